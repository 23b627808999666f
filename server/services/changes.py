"""Push and pull: the two halves of a sync, one unit of work each.

A push takes the same steps whatever its size: lock the replica, answer what the ledger knows, load all that the rest
reaches, merge in memory, write, take the feed head last, commit. `HubServer` is the `sync.protocol.SyncServer` made
of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from sync.admit import is_fact
from sync.clock import HUB, Origin
from sync.entities import ENTITY_TYPES
from sync.errors import CursorExpired, EpochChanged, GroupIncomplete, MutationGap, NotFound, ReplicaForked, Unavailable
from sync.feed import EVERYTHING, Cursor, checksum_text, finish, first_cursor
from sync.hub import merge_push
from sync.mutation import Mutation, Result, content_hash, payload_hash
from sync.protocol import Page, PullRequest, Push, PushResult, ScopeTally
from sync.record import Key
from sync.scopes import references
from sync.store import Actor, Batch, FeedPosition, HubStore, LedgerEntry, ReplicaState, Times, UnitOfWork
from sync.view import Reaching, Sender, View, clamp, reaching
from sync.waiting import release

MAX_ROUNDS = 4  # a scope path is at most two references long, so the set of records settles in three


def push_changes(store: HubStore, actor: Actor, push: Push, now: int, correlation_id: str | None = None) -> PushResult:
    """Merge a device's mutations. `now`: ms. correlation_id: for the audit.

    Raises ReplicaForked, MutationGap or GroupIncomplete (nothing applied), NotFound for another technician's replica.
    """
    wider: set[Key] = set()
    for _ in range(MAX_ROUNDS):
        with store.begin() as uow:
            replica = uow.lock_replica(push.replica, actor.technician_id)
            if replica.technician_id != actor.technician_id:
                raise NotFound
            known, fresh = _split(uow, replica, push.mutations)
            batch = Batch(now, actor, replica=replica)
            if fresh:
                known |= _renamed(uow, replica, fresh)
                todo = [mutation for mutation in fresh if mutation.n not in known]
                again = _repeated(push.replica, todo)
                missing = _merge(uow, [m for m in todo if m.n not in again], batch, known, wider)
                if missing:
                    wider |= missing
                    continue
                known |= {n: replace(known[first].stored(), n=n, duplicate=True) for n, first in again.items()}
                _book(batch, fresh, known, correlation_id)
            seq = uow.save(batch)
            uow.commit()
        last_n = max(replica.last_n, *(m.n for m in fresh), 0) if fresh else replica.last_n
        return PushResult([known[m.n] for m in push.mutations], last_n, seq)
    raise Unavailable("Records kept moving while this push was prepared. Send it again.")


def _split(
    uow: UnitOfWork, replica: ReplicaState, mutations: Sequence[Mutation]
) -> tuple[dict[int, Result], list[Mutation]]:
    """Results that the ledger knows, and the mutations that are new. Raises if their numbers do not fit."""
    if not mutations:
        return {}, []
    for earlier, later in pairwise(mutations):
        if later.n != earlier.n + 1:
            raise MutationGap(expected=earlier.n + 1)
    if mutations[0].n > replica.last_n + 1:
        raise MutationGap(expected=replica.last_n + 1)
    old = [mutation for mutation in mutations if mutation.n <= replica.last_n]
    entries = {e.n: e for e in uow.ledger(replica.replica, old[0].n, old[-1].n)} if old else {}
    known: dict[int, Result] = {}
    for mutation in old:
        entry = entries[mutation.n]
        if entry.hash != payload_hash(mutation.body):
            raise ReplicaForked(forked_at=mutation.n, results=[known[n] for n in sorted(known)])
        known[mutation.n] = replace(entry.result, duplicate=True)
    fresh = [mutation for mutation in mutations if mutation.n > replica.last_n]
    _check_groups(fresh)
    return known, fresh


def _check_groups(fresh: Sequence[Mutation]) -> None:
    sizes: dict[str, int] = {}
    runs: list[str | None] = []
    for mutation in fresh:
        if mutation.group is not None:
            sizes[mutation.group] = sizes.get(mutation.group, 0) + 1
        if not runs or runs[-1] != mutation.group:
            runs.append(mutation.group)
    for mutation in fresh:
        group = mutation.group
        if group is None:
            continue
        if runs.count(group) > 1 or (mutation.group_size is not None and mutation.group_size != sizes[group]):
            raise GroupIncomplete(group=group, expected=mutation.group_size, received=sizes[group])


def _renamed(uow: UnitOfWork, replica: ReplicaState, fresh: Sequence[Mutation]) -> dict[int, Result]:
    """Results of mutations that the same technician sent before under another name."""
    # A request that was long on its way may bring the first name last; but while nothing was restored, that name has
    # gone to the other copy of the database, and the request is a fork.
    asked = {m.n: (m.named(replica.replica), content_hash(m.body)) for m in fresh if m.origin or uow.epoch}
    found = uow.renamed(list(asked.values()), replica.technician_id) if asked else {}
    return {n: replace(found[name], n=n, duplicate=True) for n, name in asked.items() if name in found}


def _repeated(replica: str, todo: Sequence[Mutation]) -> dict[int, int]:
    """Mutations that stand in one push twice, under different numbers: n → n of the first."""
    if not any(mutation.origin for mutation in todo):
        return {}
    first: dict[tuple[Origin, bytes], int] = {}
    names = {m.n: (m.named(replica), content_hash(m.body)) for m in todo}
    return {n: place for n, name in names.items() if (place := first.setdefault(name, n)) != n}


def _merge(uow: UnitOfWork, todo: list[Mutation], batch: Batch, known: dict[int, Result], wider: set[Key]) -> set[Key]:
    """Merge `todo` into `batch` and add its results to `known`; or name the records that have to be loaded as well."""
    assert batch.replica is not None
    reach = reaching(todo)
    view, missing = load_view(uow, reach, wider, batch.actor.technician_id)
    if missing:
        return missing
    readable = [m for m in todo if not m.fault]
    times = uow.times({m.seen for m in readable if m.seen}, {(m.key, m.base[HUB]) for m in readable if m.base.get(HUB)})
    sender = Sender(
        batch.actor, batch.replica.replica, batch.now, uow.epoch, batch.replica.last_at, batch.replica.sealed
    )
    look_back(uow, readable, sender, view, times)
    for result in merge_push(todo, sender, view, times, batch):
        known[result.n] = result
    release(sender, view, batch)
    finish(batch, view)
    return set()


def load_view(
    uow: UnitOfWork, reach: Reaching, wider: set[Key], technician_id: str | None = None
) -> tuple[View, set[Key]]:
    """The records that a push reaches, locked in sorted order; or the keys that turned out to be missing.

    technician_id: what others sent that waits is nothing to this one; None: to the office it is.
    """
    lock = uow.reach(reach.write | wider, reach.paths)
    records = uow.load(lock, reach.read - lock)
    # Only now, with the locks held: until then others could let pass what waited, or add to it.
    waiting = uow.waiting(reach.write)
    view = View(
        records,
        uow.blocked(reach.write | reach.read, technician_id),
        waiting,
        {w.mutation.key: w.case_id for w in waiting if technician_id in (None, w.actor.technician_id)},
        lock,
    )
    late = reaching(w.mutation for w in waiting if w.mutation.key not in records)  # may go through in this unit of work
    paths = reach.paths | late.paths
    # Once more with the locks held: a parent or a dependant may have come in between.
    settled = uow.reach(lock | late.write, paths) if paths or late.write or wider else _parents(view, lock)
    return view, (settled | (late.read - reach.read)) - lock


def _parents(view: View, lock: set[Key]) -> set[Key]:
    found = set(lock)
    for key in lock:
        record = view.records.get(key)
        if record:
            found |= references(ENTITY_TYPES[key.entity], record.data)
    return found


def look_back(uow: UnitOfWork, readable: list[Mutation], sender: Sender, view: View, times: Times) -> None:
    """Load the past that some mutations need: what a field showed at their base, and whether they were in reach."""
    unsaid = {
        (m.key, m.base.get(HUB, 0), name)
        for m in readable
        for name in m.patch
        if m.op == "update" and name not in (m.was or {})
    }
    if unsaid:
        view.shown = uow.shown(unsaid)
    foreign, lower = set(), sender.last_at
    for mutation in readable:
        at, _, lower = clamp(mutation, lower, times, sender.now)
        for key in {mutation.key, *(reaching([mutation]).read)} if is_fact(mutation) else ():
            record = view.records.get(key)
            if record and not sender.actor.sees(record.scopes):
                foreign.add((key, at))
    if foreign:
        view.within = uow.was_in_reach(foreign, sender.actor.scopes)


def _book(batch: Batch, fresh: Sequence[Mutation], known: dict[int, Result], correlation_id: str | None) -> None:
    assert batch.replica is not None
    batch.ledger = [LedgerEntry(m.n, payload_hash(m.body), known[m.n].stored()) for m in fresh]
    batch.bodies = [m.body for m in fresh]
    batch.replica = replace(batch.replica, last_n=fresh[-1].n)
    detail: dict[str, Any] = {"first_n": fresh[0].n, "last_n": fresh[-1].n, **Counter(known[m.n].status for m in fresh)}
    batch.audit.append(
        {
            "actor": batch.actor.name,
            "action": "push",
            "subject": f"replica:{batch.replica.replica}",
            "detail": detail,
            "correlation_id": correlation_id,
        }
    )


# -- pull ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reader:
    """Who pulls. name: what cursors are bound to. scopes: what they hold."""

    name: str
    scopes: tuple[str, ...]


def pull_changes(store: HubStore, reader: Reader, request: PullRequest, secret: bytes, now: int) -> Page:
    """The next page of the feed. Raises InvalidCursor, EpochChanged, CursorExpired, NotFound for a scope not held."""
    cursor = Cursor.unseal(request.cursor, secret, reader.name) if request.cursor else None
    only = cursor.only if cursor else request.scope
    held = [scope for scope in reader.scopes if only in (None, scope)]
    if only and not held:
        raise NotFound
    positions = cursor.positions(held) if cursor else [FeedPosition(scope, 0, EVERYTHING) for scope in held]
    slice_ = store.read_feed(positions, request.limit, request.replica)
    if cursor and cursor.epoch != slice_.epoch:
        raise EpochChanged
    if cursor and cursor.main < slice_.purged_seq:
        raise CursorExpired
    start = cursor or first_cursor(slice_.epoch, reader.name, slice_.head, only)
    full = len(slice_.rows) >= request.limit
    after = start.after(held, slice_.rows, full, slice_.head)
    tallies = [
        ScopeTally(scope, count, checksum_text(total))
        for scope in held
        for count, total in [slice_.tallies.get(scope, (0, 0))]
    ]
    return Page(
        changes=slice_.rows,
        cursor=after.seal(secret),
        more=full,
        as_of=slice_.head,
        scopes=[] if full else tallies,
        server_time=now,
        last_n=slice_.last_n,
        durable_n=slice_.durable_n,
    )


class HubServer:
    """A SyncServer for one device in the same process."""

    def __init__(self, store: HubStore, actor: Callable[[], Actor], secret: bytes, clock: Callable[[], int]) -> None:
        """actor: who calls, asked anew each time, as scopes change. clock: ms."""
        self._store, self._actor, self._secret, self._clock = store, actor, secret, clock

    def push(self, push: Push) -> PushResult:
        return push_changes(self._store, self._actor(), push, self._clock())

    def pull(self, request: PullRequest) -> Page:
        actor = self._actor()
        return pull_changes(self._store, Reader(actor.name, actor.scopes), request, self._secret, self._clock())
