"""What the hub knows of one record: its values and, beside each field, the writes that no later write has seen.

A field that holds one value keeps the *set* of its uncovered writes. One of them stands (or a combination of them
does); the others wait beside it until somebody writes who has seen them. Counters and logs need only the names of their
latest writes, sets keep names per element. Nothing here is ever pruned: the sets are as large as there was concurrency,
not as large as the fleet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sync.clock import HUB, Clock, Dot, Origin, contains


class Key(NamedTuple):
    """Names a record."""

    entity: str
    id: str


class Missing:
    """The type of MISSING: no value was given, which differs from null."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = Missing()


@dataclass(frozen=True, slots=True)
class Write:
    """One uncovered write of a single-valued field.

    at: when it happened by the writer's clock, clamped to what is possible, ms. system: the writer's system ("device",
    "fsm", "erp", …). suspect: the clock was off by more than the bound, so no rule may decide by `at`.
    was: what the field showed when it was captured; kept only where the policy merges against it.
    """

    value: Any
    dot: Dot
    origin: Origin
    at: int
    system: str
    suspect: bool = False
    was: Any = MISSING


@dataclass(frozen=True, slots=True)
class FieldState:
    """What stands beside a field's value.

    writes: uncovered writes (single-valued fields). standing: the dot of the value shown.
    dots: uncovered writes (counter, log, set: they never conflict, but a deletion must have seen them).
    keys: the place of each log entry, (at, replica, n, position). elements: the dots that hold each set element in.
    case: the open review case in which the field waits.
    """

    standing: Dot
    writes: tuple[Write, ...] = ()
    dots: tuple[Dot, ...] = ()
    keys: tuple[tuple[int, str, int, int], ...] = ()
    elements: tuple[tuple[str, tuple[Dot, ...]], ...] = ()
    case: str | None = None

    def uncovered(self) -> Iterator[Dot]:
        """The dots of all writes that no later write has seen."""
        yield from (write.dot for write in self.writes)
        yield from self.dots


@dataclass(frozen=True, slots=True)
class Record:
    """One synced record at one version. A deleted one keeps its values: a tombstone, from which it can return."""

    entity: str
    id: str
    version: int
    data: Mapping[str, Any]
    fields: Mapping[str, FieldState] = field(default_factory=dict)
    scopes: tuple[str, ...] = ()
    deleted: Dot | None = None
    updated_at: int = 0

    @property
    def key(self) -> Key:
        return Key(self.entity, self.id)

    @property
    def clock(self) -> dict[str, int]:
        """`hub` and the replicas named by the standing values: at most one entry a field, so never pruned."""
        clock = {HUB: self.version}
        stamps = [state.standing for state in self.fields.values()]
        for stamp in (*stamps, self.deleted) if self.deleted else stamps:
            if stamp.replica is not None:
                clock[stamp.replica] = max(stamp.n, clock.get(stamp.replica, 0))
        return clock

    def unseen(self, base: Clock) -> bool:
        """Does this record hold a write that `base` does not contain?"""
        return any(not contains(base, dot) for state in self.fields.values() for dot in state.uncovered())


def uncovered(dots: Iterable[Dot], base: Clock) -> tuple[Dot, ...]:
    """Those of `dots` that `base` does not contain."""
    return tuple(dot for dot in dots if not contains(base, dot))
