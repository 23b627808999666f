"""Version vectors with dots: which writes had somebody seen?

A *base* (or clock) is a vector `{"hub": version, replica: n, …}`: the hub entry covers every version of one record up
to that number, a replica entry every mutation of that replica up to that n. A *dot* names one write by both its
coordinates: the version under which the hub accepted it and, where the value stands exactly as it was sent, the
mutation that sent it.

Dotted version vectors: Preguiça, Baquero, Almeida, Fonte, Gonçalves 2010. What is special here is the single hub, which
lets a vector stay as short as the record has fields: one hub entry stands for everything that was ever pulled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

Clock = Mapping[str, int]
"""`{"hub": version, replica id: n}`, absent entries count as 0."""

HUB = "hub"

EPOCH_BITS = 32
"""The first version of feed epoch E is E * 2**32 + 1, so no version is issued twice, not even after a restore."""


class Origin(NamedTuple):
    """The first name of a mutation, kept for ever, also when its replica had to be renumbered. Ties end here."""

    replica: str
    n: int


class Dot(NamedTuple):
    """One write. `replica` is None when the value is not just what one mutation sent (combined, decided, derived)."""

    version: int
    replica: str | None = None
    n: int = 0


def contains(base: Clock, dot: Dot) -> bool:
    """Had whoever holds `base` seen the write named `dot`?"""
    # Either coordinate is enough: a device knows its own pending writes by n only, and after a restore from a backup a
    # write that was offered again has a new version but its old n.
    if dot.version <= base.get(HUB, 0):
        return True
    return dot.replica is not None and dot.n <= base.get(dot.replica, 0)


def join(clocks: Iterable[Clock]) -> dict[str, int]:
    """The least vector that covers everything the given ones cover."""
    joined: dict[str, int] = {}
    for clock in clocks:
        for actor, n in clock.items():
            joined[actor] = max(n, joined.get(actor, 0))
    return joined


def descends(clock: Clock, other: Clock) -> bool:
    """Does `clock` cover everything that `other` covers? A vector is its own descendant."""
    return all(n <= clock.get(actor, 0) for actor, n in other.items())


def is_concurrent(clock: Clock, other: Clock) -> bool:
    """Does each of the two cover something that the other lacks?"""
    # Both directions: two vectors may descend each other. Do not shorten this to "not equal and not descends".
    return not descends(clock, other) and not descends(other, clock)


def next_version(version: int, epoch: int) -> int:
    """The version after `version` in feed epoch `epoch` (0 for a first install)."""
    return max(version + 1, (epoch << EPOCH_BITS) + 1) if epoch else version + 1
