"""The push in memory: what it looks at, who sends it, and what becomes of a record's place and time in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from sync.clock import HUB
from sync.entities import ENTITY_TYPES
from sync.mutation import Mutation
from sync.policy import SKEW_BOUND_MS
from sync.record import Key, Record
from sync.scopes import passed_through, path_fields, references, scopes_of, target_of
from sync.store import Actor, Times, Waiting


@dataclass(frozen=True, slots=True)
class Reaching:
    """What a push looks at. write: records it may change, and those it reads scopes from. read: records it refers to.
    paths: those whose change moves dependants to other scopes."""

    write: set[Key]
    read: set[Key]
    paths: set[Key]


def reaching(mutations: Iterable[Mutation]) -> Reaching:
    """The records that these mutations name and refer to, before anything is loaded."""
    reach = Reaching(set(), set(), set())
    for mutation in mutations:
        if mutation.fault:
            continue
        entity = ENTITY_TYPES[mutation.entity]
        reach.write.add(mutation.key)
        reach.write.update(references(entity, mutation.patch))
        reach.write.update(entity.needs(mutation.id, mutation.patch))
        for name, value in mutation.patch.items():
            spec = entity.fields.get(name)
            target = target_of(spec, value) if spec and spec.type == "reference" else None
            if target:
                reach.read.add(target)
        # Also where it is created: what a person let pass may have referred to it before it was there.
        moving = passed_through(mutation.entity) if mutation.op == "create" else path_fields(mutation.entity)
        if moving & mutation.patch.keys():
            reach.paths.add(mutation.key)
    return reach


@dataclass(slots=True)
class View:
    """The push in memory. records: as the mutations so far left them. blocked: open cases in which a creation waits.
    waiting: mutations that wait for a record to appear, awaiting: in which case. locked: what may be written, and was
    loaded with all that its scopes are read from; other records were only looked at.
    within: (key, ms) at which a record now out of reach lay in it. shown: what fields showed at the base's version."""

    records: dict[Key, Record]
    blocked: dict[Key, str] = field(default_factory=dict)
    waiting: Sequence[Waiting] = ()
    awaiting: dict[Key, str] = field(default_factory=dict)
    locked: Collection[Key] = ()
    within: set[tuple[Key, int]] = field(default_factory=set)
    shown: Mapping[tuple[Key, int, str], Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sender:
    """Whose mutations these are. last_at: the clamped time of the replica's last trustworthy mutation, ms.
    sealed: its device was reported lost, so everything is parked."""

    actor: Actor
    replica: str
    now: int
    epoch: int
    last_at: int = 0
    sealed: bool = False


def clamp(mutation: Mutation, lower: int, times: Times, now: int) -> tuple[int, bool, int]:
    """When it happened (ms), whether its clock is suspect, and the lower bound for the replica's next mutation.

    It happened after everything it had seen was committed, after the replica's mutation before it, and before now.
    """
    lower = max(lower, times.of_seq(mutation.seen or 0), times.of_version(mutation.key, mutation.base.get(HUB, 0)))
    lower = min(lower, now)
    if mutation.occurred_at is None:
        return now, False, lower
    suspect = not lower - SKEW_BOUND_MS <= mutation.occurred_at <= now + SKEW_BOUND_MS
    at = min(max(mutation.occurred_at, lower), now)
    # A wrong clock must not push its replica's later, honest mutations forward.
    return at, suspect, lower if suspect else at


def blank(key: Key) -> Record:
    """A record before its creation: the declared defaults, which nobody wrote and nothing conflicts with."""
    fields = ENTITY_TYPES[key.entity].fields.values()
    data = {spec.name: _wire(spec.default) for spec in fields if spec.default is not None}
    return Record(key.entity, key.id, 0, data)


def _wire(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Decimal) else value


def place(record: Record, find: Callable[[Key], Record | None], now: int) -> Record:
    """`record` as it is stored at `now` (ms): in the scopes that its values give it."""

    def values(key: Key) -> Mapping[str, Any] | None:
        found = find(key)
        return found.data if found else None

    scopes = scopes_of(ENTITY_TYPES[record.entity], record.id, record.data, values)
    return replace(record, scopes=scopes, updated_at=now)
