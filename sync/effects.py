"""What a change reaches and what it causes: the two pure functions beside every entity's declaration.

`needs(entity id, patch)` names the records that a mutation's effects will look at, so that they are locked and loaded
with the rest of the push. `effects(before, after, origin, view)` gives the records that the change brings about: on
the hub in the same transaction, on the device to show its own pending work at once. Ids of what they make come from
`origin`, never from chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sync.clock import Origin
from sync.record import Key, Record

Lookup = Callable[[Key], Record | None]
"""The push in memory: the record as the mutations before this one left it."""


@dataclass(frozen=True, slots=True)
class Effect:
    """A record that a change brings about. patch: values as in a mutation, `{"$inc": …}` included."""

    key: Key
    patch: Mapping[str, Any]


Needs = Callable[[str, Mapping[str, Any]], Iterable[Key]]
Effects = Callable[[Record | None, Record, Origin, Lookup], Iterable[Effect]]


def no_needs(id: str, patch: Mapping[str, Any]) -> Iterable[Key]:
    """Reaches nothing beyond the record itself."""
    return ()


def no_effects(before: Record | None, after: Record, origin: Origin, view: Lookup) -> Iterable[Effect]:
    """Causes nothing."""
    return ()
