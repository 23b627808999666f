"""What the hub keeps, and the unit of work in which a push reads and writes it.

Two implementations pass the same contract suite: `sync.memory.MemoryHub`, which is the reference, and PostgreSQL
(`server.store`). The services of the server know only this interface.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol

from sync.clock import Origin
from sync.mutation import Mutation, Result
from sync.protocol import Change
from sync.record import Key, Record


@dataclass(frozen=True, slots=True)
class Actor:
    """Who writes. kind: device, user or system. name: `device:…`, `user:…` or `system:…`. system: for owner_wins.

    scopes: what the caller sees; ("*",) is everything.
    """

    kind: Literal["device", "user", "system"]
    name: str
    role: str
    system: str
    scopes: tuple[str, ...]
    technician_id: str | None = None

    def sees(self, scopes: Collection[str]) -> bool:
        """Does a record in `scopes` lie in this caller's reach?"""
        return "*" in self.scopes or any(scope in self.scopes for scope in scopes)


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One local database. technician_id: whose it is. last_n: the last mutation processed. last_at: its clamped time,
    ms.

    sealed: it belonged to a device that was lost, so what it still sends is parked whole.
    """

    replica: str
    technician_id: str | None
    last_n: int = 0
    last_at: int = 0
    sealed: bool = False


class LedgerEntry(NamedTuple):
    """What the ledger knows of one processed mutation. hash: of its payload, 32 bytes."""

    n: int
    hash: bytes
    result: Result


class FeedRow(NamedTuple):
    """One row to be written to the feed; its seq is given when the feed head is taken."""

    scope: str
    entity: str
    id: str
    op: Literal["put", "delete", "evict"]


class Tally(NamedTuple):
    """A change of a scope's live rows: how many more, and the sum of row hashes to add, modulo 2**64."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
    checksum: int


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One version of one record. fields: `{name, before, after, sent, policy, kept, why}` each. n, replica: of the
    sender."""

    key: Key
    version: int
    occurred_at: int | None
    actor: Mapping[str, Any]
    fields: Sequence[Mapping[str, Any]]
    review_id: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """A review case: what a person has to decide. fields: names that wait (empty: the whole mutation waits).

    base, current, incoming: the record's values before, now, and as sent. evidence: what else helps to decide.
    type: field_conflict, clock_suspect, delete_conflict, blocked, or the code of the problem that parked it.
    version: counts changes of the case itself. resolution: who decided what and why, once it is.
    """

    id: str
    type: str
    entity: str
    record_id: str
    scopes: tuple[str, ...]
    fields: tuple[str, ...]
    base: Mapping[str, Any]
    current: Mapping[str, Any]
    incoming: Mapping[str, Any]
    evidence: Mapping[str, Any]
    technician_id: str | None
    opened_at: int
    impact: int = 0
    status: Literal["open", "claimed", "resolved", "reopened"] = "open"
    version: int = 1
    claimed_by: str | None = None
    resolution: Mapping[str, Any] | None = None


def join_cases(earlier: Case, later: Case) -> Case:
    """An open case after another mutation joined it: more fields, newer values, everything else as it was opened."""
    return replace(
        earlier,
        fields=(*earlier.fields, *(name for name in later.fields if name not in earlier.fields)),
        base={**later.base, **earlier.base},
        current={**earlier.current, **later.current},
        incoming={**earlier.incoming, **later.incoming},
        evidence={**earlier.evidence, **later.evidence, "why": {**_whys(earlier), **_whys(later)}},
        impact=max(earlier.impact, later.impact),
        version=earlier.version + 1,
    )


def _whys(case: Case) -> Mapping[str, Any]:
    """Why each field waits."""
    whys: Mapping[str, Any] = case.evidence.get("why", {})
    return whys


@dataclass(frozen=True, slots=True)
class Waiting:
    """A mutation that waits whole in a case, with everything needed to apply it later, in (replica, n) order."""

    case_id: str
    replica: str
    mutation: Mutation
    at: int
    suspect: bool
    actor: Actor

    @property
    def name(self) -> tuple[str, int]:
        """Its replica and number."""
        return self.replica, self.mutation.n


@dataclass(slots=True)
class Batch:
    """All that one unit of work writes. `before` holds every changed record as it was loaded, None if it is new."""

    now: int
    actor: Actor
    records: dict[Key, Record] = field(default_factory=dict)
    before: dict[Key, Record | None] = field(default_factory=dict)
    feed: list[FeedRow] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)
    history: list[HistoryEntry] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)  # new ones, or what `join_cases` adds to an open one
    superseded: list[str] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    released: list[tuple[str, int]] = field(default_factory=list)  # (replica, n) of waiting mutations now applied
    dropped: list[tuple[str, int]] = field(default_factory=list)  # (replica, n) that a person decided not to apply
    resolved: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)  # (case id, resolution)
    replica: ReplicaState | None = None
    ledger: list[LedgerEntry] = field(default_factory=list)
    bodies: list[Mapping[str, Any]] = field(default_factory=list)  # as received, beside `ledger`
    audit: list[Mapping[str, Any]] = field(default_factory=list)


class FeedPosition(NamedTuple):
    """Where to read on in one scope. puts_until: up to this seq only puts matter (the reader holds nothing of it
    yet)."""

    scope: str
    after: int
    puts_until: int


@dataclass(frozen=True, slots=True)
class FeedSlice:
    """What one snapshot of the feed gave. rows in seq order. tallies: scope → (count, checksum)."""

    rows: Sequence[Change]
    head: int
    epoch: int
    tallies: Mapping[str, tuple[int, int]]
    last_n: int
    durable_n: int
    purged_seq: int = 0


class Times(Protocol):
    """When things that a mutation had seen were committed, ms; 0 if nothing is known of them."""

    def of_seq(self, seq: int) -> int: ...

    def of_version(self, key: Key, version: int) -> int: ...


class UnitOfWork(Protocol):
    """One transaction at the hub. Leaving the `with` block without `commit` undoes everything."""

    def lock_replica(self, replica: str, technician_id: str | None) -> ReplicaState:
        """The replica's row, locked; made if it is new."""
        ...

    def ledger(self, replica: str, first_n: int, last_n: int) -> list[LedgerEntry]:
        """The processed mutations of `replica` with first_n ≤ n ≤ last_n, in order."""
        ...

    def renamed(
        self, origins: Collection[tuple[Origin, bytes]], technician_id: str | None
    ) -> dict[tuple[Origin, bytes], Result]:
        """Stored results of this technician's mutations known by (origin, content hash), under whatever name they came
        first."""
        ...

    def reach(self, keys: Collection[Key], changed_paths: Collection[Key]) -> set[Key]:
        """`keys`, the records that their scopes are read from, and all that reads its scopes from `changed_paths`.
        Locks nothing."""
        ...

    def load(self, lock: Collection[Key], read: Collection[Key]) -> dict[Key, Record]:
        """Records that exist (deleted ones too). Those of `lock` are locked, in sorted order, also the ids that do
        not exist yet."""
        ...

    def blocked(self, keys: Collection[Key], technician_id: str | None) -> dict[Key, str]:
        """Open cases in which the creation of a record waits, as this technician sent it; None: whoever did."""
        ...

    def waiting(self, keys: Collection[Key]) -> list[Waiting]:
        """Whole mutations that wait for a record to appear (type awaiting_record), by (replica, n)."""
        ...

    def case(self, case_id: str) -> Case | None:
        """A review case, locked until the end of the unit of work."""
        ...

    def case_waiting(self, case_id: str) -> list[Waiting]:
        """The mutations that wait whole in a case, by (replica, n)."""
        ...

    def times(self, seqs: Collection[int], versions: Collection[tuple[Key, int]]) -> Times:
        """Commit times of feed positions and of record versions."""
        ...

    def shown(self, wanted: Collection[tuple[Key, int, str]]) -> dict[tuple[Key, int, str], Any]:
        """What a field showed at a version, from the history; absent where the history is gone."""
        ...

    def was_in_reach(self, wanted: Collection[tuple[Key, int]], scopes: Collection[str]) -> set[tuple[Key, int]]:
        """Those (key, ms) at which the record lay in one of `scopes`."""
        ...

    @property
    def epoch(self) -> int:
        """The feed epoch's number."""
        ...

    def save(self, batch: Batch) -> int:
        """Write everything; the feed head comes last. Returns the feed position that contains it."""
        ...

    def commit(self) -> None:
        """Make it durable."""
        ...


class Opening(Protocol):
    """A unit of work about to begin: `with store.begin() as uow`."""

    def __enter__(self) -> UnitOfWork: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...


class HubStore(Protocol):
    """Where the hub's state lives."""

    def begin(self) -> Opening:
        """A new unit of work."""
        ...

    def read_feed(self, positions: Sequence[FeedPosition], limit: int, replica: str | None) -> FeedSlice:
        """At most `limit` rows of the scopes, in seq order, from one snapshot, with their head and tallies."""
        ...
