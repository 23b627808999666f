"""The hub's state in memory: the reference implementation of `sync.store`, to read first and to test against.

A unit of work reads the state as it was committed and hands its batch over on commit, so leaving early undoes
everything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from sync.clock import EPOCH_BITS, Origin
from sync.entities import ENTITY_TYPES
from sync.feed import MODULUS
from sync.mutation import Result, content_hash
from sync.protocol import Change
from sync.record import Key, Record
from sync.scopes import references
from sync.store import (
    Batch,
    Case,
    FeedPosition,
    FeedSlice,
    HistoryEntry,
    LedgerEntry,
    ReplicaState,
    Times,
    Waiting,
    join_cases,
)


@dataclass(frozen=True, slots=True)
class Commit:
    """A committed unit of work: where it stands in the feed, and when it was."""

    seq: int
    at: int
    replica: str | None
    last_n: int


@dataclass(frozen=True, slots=True)
class Span:
    """A record lay in `scope` from `since` until `until` (ms), or still does."""

    scope: str
    since: int
    until: int | None = None


@dataclass(slots=True)
class HubState:
    """Everything that the hub remembers. Values are immutable, so a copy of the containers is a backup."""

    epoch: int = 0
    head: int = 0
    durable_seq: int = 0
    records: dict[Key, Record] = field(default_factory=dict)
    feed: dict[tuple[str, Key], Change] = field(default_factory=dict)
    tallies: dict[str, tuple[int, int]] = field(default_factory=dict)
    spans: dict[Key, tuple[Span, ...]] = field(default_factory=dict)
    replicas: dict[str, ReplicaState] = field(default_factory=dict)
    ledger: dict[tuple[str, int], LedgerEntry] = field(default_factory=dict)
    renamed: dict[tuple[str | None, Origin, bytes], Result] = field(default_factory=dict)
    history: dict[Key, tuple[HistoryEntry, ...]] = field(default_factory=dict)
    committed: dict[tuple[Key, int], int] = field(default_factory=dict)  # (key, version) → ms
    cases: dict[str, Case] = field(default_factory=dict)
    waiting: dict[tuple[str, int], Waiting] = field(default_factory=dict)
    commits: tuple[Commit, ...] = ()
    audit: tuple[Any, ...] = ()

    def copy(self) -> HubState:
        """A backup: later changes do not reach it."""
        backup = replace(self)
        for name, value in ((name, getattr(self, name)) for name in self.__slots__):
            if isinstance(value, dict):
                setattr(backup, name, dict(value))
        return backup


class MemoryHub:
    """A HubStore. failpoint: called with "before_commit" and "after_commit"; whatever it raises happens to the
    caller."""

    def __init__(self, failpoint: Callable[[str], None] = lambda name: None) -> None:
        self.state = HubState()
        self._failpoint = failpoint

    def begin(self) -> MemoryUnit:
        return MemoryUnit(self.state.copy(), self._accept)

    def _accept(self, state: HubState) -> None:
        self._failpoint("before_commit")
        self.state = state
        self._failpoint("after_commit")

    def read_feed(self, positions: Sequence[FeedPosition], limit: int, replica: str | None) -> FeedSlice:
        state, wanted = self.state, {p.scope: p for p in positions}
        rows = [
            _with_record(state, change)
            for (scope, _), change in state.feed.items()
            if (p := wanted.get(scope)) and change.seq > p.after and (change.op == "put" or change.seq > p.puts_until)
        ]
        rows.sort(key=lambda row: row.seq)
        own = [commit for commit in state.commits if commit.replica == replica and replica is not None]
        return FeedSlice(
            rows=rows[:limit],
            head=state.head,
            epoch=state.epoch,
            tallies={scope: state.tallies.get(scope, (0, 0)) for scope in wanted},
            last_n=max((commit.last_n for commit in own), default=0),
            durable_n=max((commit.last_n for commit in own if commit.seq <= state.durable_seq), default=0),
        )

    def backup(self) -> HubState:
        """The state to give to `restore` later."""
        return self.state.copy()

    def restore(self, backup: HubState, epoch: int) -> None:
        """Go back to `backup` under a new feed epoch, as `backhaul epoch rotate` does after a restore."""
        # The feed goes on above every position of the lost timeline, as versions do: what a mutation had `seen` there
        # must not be taken for something that was committed after the restore.
        self.state = replace(backup.copy(), epoch=epoch, head=max(backup.head, epoch << EPOCH_BITS))


def _with_record(state: HubState, change: Change) -> Change:
    if change.op == "evict":
        return change
    record = state.records[change.key]
    data = record.data if change.op == "put" else None
    return replace(change, version=record.version, clock=record.clock, data=data)


@dataclass(frozen=True, slots=True)
class MemoryTimes:
    """Commit times, looked up in the state."""

    state: HubState

    def of_seq(self, seq: int) -> int:
        return max((commit.at for commit in self.state.commits if commit.seq <= seq), default=0)

    def of_version(self, key: Key, version: int) -> int:
        return self.state.committed.get((key, version), 0)


class MemoryUnit:
    """A UnitOfWork over a copy of the state."""

    def __init__(self, state: HubState, accept: Callable[[HubState], None]) -> None:
        self.state = state
        self._accept = accept

    def __enter__(self) -> MemoryUnit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass  # an uncommitted copy is simply forgotten

    @property
    def epoch(self) -> int:
        return self.state.epoch

    def lock_replica(self, replica: str, technician_id: str | None) -> ReplicaState:
        return self.state.replicas.setdefault(replica, ReplicaState(replica, technician_id))

    def ledger(self, replica: str, first_n: int, last_n: int) -> list[LedgerEntry]:
        return [self.state.ledger[replica, n] for n in range(first_n, last_n + 1) if (replica, n) in self.state.ledger]

    def renamed(
        self, origins: Collection[tuple[Origin, bytes]], technician_id: str | None
    ) -> dict[tuple[Origin, bytes], Result]:
        known = ((name, self.state.renamed.get((technician_id, *name))) for name in origins)
        return {name: result for name, result in known if result}

    def reach(self, keys: Collection[Key], changed_paths: Collection[Key]) -> set[Key]:
        found = set(keys)
        for _ in range(2):  # a scope path passes through at most two references
            found |= {up for key in found for up in self._above(key)}
        moved = set(changed_paths)
        for _ in range(2 if moved else 0):
            moved |= {key for key in self.state.records if self._above(key) & moved}
        if moved:
            found |= moved
            for _ in range(2):
                found |= {up for key in found for up in self._above(key)}
        return found

    def _above(self, key: Key) -> set[Key]:
        record = self.state.records.get(key)
        return references(ENTITY_TYPES[key.entity], record.data) if record else set()

    def load(self, lock: Collection[Key], read: Collection[Key]) -> dict[Key, Record]:
        return {key: self.state.records[key] for key in sorted({*lock, *read}) if key in self.state.records}

    def blocked(self, keys: Collection[Key], technician_id: str | None) -> dict[Key, str]:
        waiting = [
            (name, w)
            for name, w in sorted(self.state.waiting.items())
            if technician_id in (None, w.actor.technician_id)
        ]
        creations = [w for _, w in waiting if w.mutation.op == "create" and w.mutation.key not in self.state.records]
        return {w.mutation.key: w.case_id for w in reversed(creations) if w.mutation.key in keys}

    def waiting(self, keys: Collection[Key]) -> list[Waiting]:
        held = [w for _, w in sorted(self.state.waiting.items()) if w.mutation.key in keys]
        return [w for w in held if self.state.cases[w.case_id].type == "awaiting_record"]

    def case(self, case_id: str) -> Case | None:
        return self.state.cases.get(case_id)

    def case_waiting(self, case_id: str) -> list[Waiting]:
        return [waited for _, waited in sorted(self.state.waiting.items()) if waited.case_id == case_id]

    def times(self, seqs: Collection[int], versions: Collection[tuple[Key, int]]) -> Times:
        return MemoryTimes(self.state)

    def shown(self, wanted: Collection[tuple[Key, int, str]]) -> dict[tuple[Key, int, str], Any]:
        found = {}
        for key, version, name in wanted:
            later = [e for e in self.state.history.get(key, ()) if e.version > version]
            before = [f["before"] for e in later for f in e.fields if f["name"] == name]
            if before:
                found[key, version, name] = before[0]
            elif key in self.state.records:
                found[key, version, name] = self.state.records[key].data.get(name)
        return found

    def was_in_reach(self, wanted: Collection[tuple[Key, int]], scopes: Collection[str]) -> set[tuple[Key, int]]:
        return {
            (key, at)
            for key, at in wanted
            if any(_covers(s, at) and s.scope in scopes for s in self.state.spans.get(key, ()))
        }

    def save(self, batch: Batch) -> int:
        state = self.state
        state.records |= batch.records
        state.committed |= {(key, record.version): batch.now for key, record in batch.records.items()}
        for entry in batch.history:
            state.history[entry.key] = (*state.history.get(entry.key, ()), entry)
        for case in batch.cases:
            held = state.cases.get(case.id)
            state.cases[case.id] = join_cases(held, case) if held else case
        for case_id in batch.superseded:
            if case_id in state.cases:
                state.cases[case_id] = replace(state.cases[case_id], status="resolved")
        state.waiting |= {(w.replica, w.mutation.n): w for w in batch.waiting}
        for case_id, resolution in batch.resolved:
            case = state.cases[case_id]
            state.cases[case_id] = replace(case, status="resolved", resolution=resolution, version=case.version + 1)
        for settled in (*batch.released, *batch.dropped):
            state.waiting.pop(settled, None)
        self._book(batch)
        self._announce(batch)
        last_n = batch.replica.last_n if batch.replica else 0
        if batch.ledger or batch.feed:
            state.commits = (
                *state.commits,
                Commit(state.head, batch.now, batch.replica.replica if batch.replica else None, last_n),
            )
        state.audit = (*state.audit, *batch.audit)
        return state.head

    def _book(self, batch: Batch) -> None:
        if batch.replica is None:
            return
        self.state.replicas[batch.replica.replica] = batch.replica
        for entry, body in zip(batch.ledger, batch.bodies, strict=True):
            self.state.ledger[batch.replica.replica, entry.n] = entry
            # A mutation is known by its first name too, whoever brings it again under another one.
            sent = body.get("origin")
            origin = (
                Origin(sent["replica"], sent["n"]) if isinstance(sent, dict) else Origin(batch.replica.replica, entry.n)
            )
            self.state.renamed.setdefault((batch.replica.technician_id, origin, content_hash(body)), entry.result)

    def _announce(self, batch: Batch) -> None:
        state = self.state
        if batch.ledger and not batch.feed:
            # Otherwise a backup taken before it, at the same position, would count as containing it.
            state.head += 1
        for row in batch.feed:
            state.head += 1
            key = Key(row.entity, row.id)
            state.feed[row.scope, key] = Change(state.head, row.op, row.scope, row.entity, row.id)
            spans = state.spans.get(key, ())
            inside = any(s.scope == row.scope and s.until is None for s in spans)
            if row.op == "put" and not inside:
                state.spans[key] = (*spans, Span(row.scope, batch.now))
            elif row.op != "put" and inside:
                ended = (replace(s, until=batch.now) if s.scope == row.scope and s.until is None else s for s in spans)
                state.spans[key] = tuple(ended)
        for scope, (count, total) in batch.tallies.items():
            before = state.tallies.get(scope, (0, 0))
            state.tallies[scope] = (before[0] + count, (before[1] + total) % MODULUS)

    def commit(self) -> None:
        self._accept(self.state)


def _covers(span: Span, at: int) -> bool:
    return span.since <= at and (span.until is None or at <= span.until)
