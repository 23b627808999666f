"""One sync of a device: send the work, fetch the news, check that nothing is missing.

It may die at any line: what was captured is in the outbox until the server has answered it, sending it again changes
nothing, and pages and cursor are stored together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sync.errors import (
    CursorExpired,
    EpochChanged,
    GroupIncomplete,
    InvalidCursor,
    InvariantBroken,
    Malformed,
    MutationGap,
    Refused,
    ReplicaForked,
    SyncError,
    TooLarge,
    Unprocessable,
)
from sync.mutation import MAX_PUSH, Problem, Result
from sync.protocol import DEFAULT_PAGE, Page, PullRequest, Push, SyncServer
from sync.record import Key
from sync.replica import Entry, Replica, first_batch, is_indivisible, successor
from sync.schema import SCHEMA_VERSION
from sync.wire import as_sent, results_from_extras

Now = Callable[[], int | None]
"""The device's clock, ms; None if it has none."""

MAX_SETBACKS = 20  # forks, gaps and lost cursors in one sync; two are already a remarkable day
UNREADABLE = (Malformed, TooLarge, Unprocessable, GroupIncomplete)


@dataclass(slots=True)
class SyncReport:
    """What a sync did, also as far as it came. answered: in order. changed: records that look different now.
    renamed: (old, new) replica ids. voided: could not be sent. repaired: scopes that had to be fetched again."""

    answered: list[tuple[Entry, Result]] = field(default_factory=list)
    changed: set[Key] = field(default_factory=set)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    voided: list[Entry] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    pulled: int = 0
    restarts: int = 0
    server_time: int = 0


def sync_once(
    replica: Replica, server: SyncServer, *, page_size: int = DEFAULT_PAGE, wait_s: float = 0,
    now: Now = lambda: None, report: SyncReport | None = None,
) -> SyncReport:  # fmt: skip
    """Bring `replica` and `server` together. wait_s: how long to wait for news if there are none.

    report: is filled in as the sync proceeds, so that what was done is known even if it raises in the middle.
    Raises SyncError; nothing is lost then, and calling it again goes on from there.
    """
    report = report or SyncReport()
    offered_again = False
    if replica.position.cursor is None:
        # Only a cursor tells of a restore. What was acknowledged before an earlier start broke off may be lost again,
        # and numbers alone do not tell: they may be those of a copy of this database by now.
        replica.restart()
    for _ in range(MAX_SETBACKS):
        try:
            push_pending(replica, server, now, report)
            page = pull_news(replica, server, page_size, wait_s, report)
            lost = compare_outbox(replica, server, page)
        except (EpochChanged, CursorExpired, InvalidCursor):
            replica.restart()
            report.restarts += 1
            continue
        if lost and not offered_again:
            offered_again = True
            continue
        if replica.position.push_seq <= page.as_of:
            repair_scopes(replica, server, page, page_size, report)
        return report
    raise InvariantBroken("The server sent this device back to the start again and again.")


# -- push ---------------------------------------------------------------------------------------------------------


def push_pending(replica: Replica, server: SyncServer, now: Now, report: SyncReport) -> None:
    """Send everything that was not acknowledged, in order, batch by batch."""
    limit, setbacks = MAX_PUSH, 0
    while batch := first_batch(replica.unsent(), limit):
        name = batch[0].replica
        try:
            answer = server.push(Push(name, [as_sent(entry.mutation) for entry in batch], now(), SCHEMA_VERSION))
        except ReplicaForked as fork:
            setbacks = _count(setbacks, fork)
            _fork(replica, server, batch, fork, report)
        except MutationGap as gap:
            setbacks = _count(setbacks, gap)
            _fill_gap(replica, server, name, gap, report)
        except UNREADABLE as error:
            if is_indivisible(batch):
                _give_up(replica, server, batch, error, report)
                limit = MAX_PUSH
            else:
                limit = max(1, len(batch) // 2)
        else:
            if [result.n for result in answer.results] != [entry.n for entry in batch]:
                raise InvariantBroken("The server did not answer each mutation of a push in its order.")
            _settle(replica, batch, answer.results, answer.committed_seq, report)


def _count(setbacks: int, error: SyncError) -> int:
    if setbacks >= MAX_SETBACKS:
        raise error
    return setbacks + 1


def _settle(
    replica: Replica, batch: Sequence[Entry], results: Sequence[Result], committed_seq: int, report: SyncReport
) -> None:
    answers = list(zip(batch, results, strict=False))
    report.changed |= replica.settle(answers, committed_seq)
    # What is offered again after a restore has its answer already; only another answer is news.
    report.answered += [(e, r) for e, r in answers if e.result is None or _news(e.result) != _news(r)]


def _news(result: Result) -> tuple[object, ...]:
    return result.status, result.problem, result.decisions, result.review_id


def _fork(
    replica: Replica, server: SyncServer, batch: Sequence[Entry], fork: ReplicaForked, report: SyncReport
) -> None:
    """This database was copied, and its other half sent other work under our name: go on under a new one."""
    forked_at = _expect_n(fork, "forked_at")
    stored = {result.n: result for result in results_from_extras(fork.extras.get("results") or ())}
    known = [entry for entry in batch if entry.n < forked_at and entry.n in stored]
    _settle(replica, known, [stored[entry.n] for entry in known], 0, report)
    if forked_at > batch[-1].n:
        raise fork
    _rename(replica, server, batch[0].replica, forked_at, report)


def _fill_gap(replica: Replica, server: SyncServer, name: str, gap: MutationGap, report: SyncReport) -> None:
    """The server lacks mutations that it once acknowledged: send them again, or start a new name if they are gone."""
    expected = _expect_n(gap, "expected")
    oldest = min(entry.n for entry in replica.outbox() if entry.replica == name)
    if oldest <= expected:
        # All of it: what the server has below `expected` may be the work of a copy of this database, and then it has to
        # say so; and `expected` may lie in the middle of a group.
        replica.reopen(name, oldest)
    else:
        _rename(replica, server, name, oldest, report)


def _rename(replica: Replica, server: SyncServer, name: str, from_n: int, report: SyncReport) -> None:
    moved = [entry for entry in replica.outbox() if entry.replica == name and entry.n >= from_n]
    new = successor(name, min(moved, key=lambda entry: entry.n))
    others = sorted(replica.names() - {name})
    replica.rename(name, from_n, new, {other: _ask(replica, server, other).last_n for other in others})
    report.renamed.append((name, new))


def _expect_n(error: SyncError, member: str) -> int:
    n = error.extras.get(member)
    if not isinstance(n, int) or n < 1:
        raise error
    return n


def _give_up(replica: Replica, server: SyncServer, batch: Sequence[Entry], error: Refused, report: SyncReport) -> None:
    """The server cannot read this one: fill its number, so that it does not block the others; what it said is kept."""
    if any(entry.voided is not None for entry in batch):
        raise error
    # If not even an empty push is read, then it is not the mutation's fault: some proxy, or the wrong address.
    server.push(Push(batch[0].replica, [], None, SCHEMA_VERSION))
    for entry in batch:
        replica.void(entry, Problem(error.code, error.detail))
        report.voided.append(entry)


# -- pull ---------------------------------------------------------------------------------------------------------


def pull_news(replica: Replica, server: SyncServer, page_size: int, wait_s: float, report: SyncReport) -> Page:
    """Fetch pages until there are no more; the last one, with which they are shown."""
    while True:
        before = replica.position
        page = server.pull(PullRequest(before.cursor, page_size, wait_s, before.replica))
        if page.more and page.cursor == before.cursor:
            raise InvariantBroken("The server promised more changes but did not move on.")
        report.changed |= replica.stage(page)
        report.pulled += len(page.changes)
        report.server_time = page.server_time
        if not page.more:
            return page
        wait_s = 0


def repair_scopes(replica: Replica, server: SyncServer, page: Page, page_size: int, report: SyncReport) -> None:
    """Compare what is held with the tallies, and fetch scopes that differ once more."""
    broken = [t.scope for t in page.scopes if replica.tally(t.scope) != (t.count, int(t.checksum, 16))]
    for scope in broken:
        report.changed |= replica.repair(scope, _whole_scope(replica, server, scope, page_size))
        report.repaired.append(scope)
    if broken:
        # The repaired scope is ahead of the others now.
        pull_news(replica, server, page_size, 0, report)


def _whole_scope(replica: Replica, server: SyncServer, scope: str, page_size: int) -> list[Page]:
    pages: list[Page] = []
    while not pages or pages[-1].more:
        cursor = pages[-1].cursor if pages else None
        pages.append(server.pull(PullRequest(cursor, page_size, 0, replica.position.replica, scope)))
    return pages


def compare_outbox(replica: Replica, server: SyncServer, page: Page) -> bool:
    """Let go of acknowledged work that every backup of the server contains, and open again what the server lost in a
    restore that this device did not notice otherwise. Was there any?"""
    lost = False
    for name in sorted(replica.names()):
        answer = page if name == replica.position.replica else _ask(replica, server, name)
        replica.forget(name, answer.durable_n)
        if replica.reopen(name, answer.last_n + 1):
            replica.reopen(name, 1)  # see _fill_gap
            lost = True
    return lost


def _ask(replica: Replica, server: SyncServer, name: str) -> Page:
    """What the server has of a name; nothing of this page is stored."""
    return server.pull(PullRequest(replica.position.cursor, 1, 0, name))
