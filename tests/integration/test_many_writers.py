"""Many devices push into one scope at once, through the real services: whatever was acknowledged can be read back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

from server.services.changes import Reader, pull_changes, push_changes
from server.services.records import write_records
from server.store.engine import make_engine, retrying
from server.store.hub import PostgresHub
from server.store.migrate import upgrade
from sync.feed import row_hash
from sync.protocol import PullRequest, Push
from sync.validate import parse_mutation
from tests.support.hub import ADMINISTRATOR, COMPANY, MORNING, SECRET, device, mutation

PUSHES, SIZE = 6, 4  # of each writer: pushes, and notes in each
ADA = device("T-1")
ORDER = {"entity": "work_order", "id": "WO-1"}


@pytest.fixture
def engine(make_database: Callable[[], str]) -> Iterator[Engine]:
    url = make_database()
    upgrade(url)
    engine = make_engine(url, pool_size=12, lock_timeout_ms=15_000)
    yield engine
    engine.dispose()


def notes(replica: str, first: int) -> Push:
    """Some notes on one and the same job, and an edit of the job itself, which all writers want."""
    written = [
        mutation(n, "create", "note", f"{replica}-{n}", {"parent": ORDER, "text": "…"})
        for n in range(first, first + SIZE)
    ]
    tag = mutation(first + SIZE, "update", "work_order", "WO-1", {"tags": {"$add": [f"{replica}-{first}"]}}, {"hub": 1})
    return Push(replica, [parse_mutation(body) for body in (*written, tag)])


def write(store: PostgresHub, replica: str, acknowledged: list[str], busy: threading.Semaphore) -> None:
    for turn in range(PUSHES):
        push = notes(replica, turn * (SIZE + 1) + 1)
        with busy:  # no more than the pool has connections for
            answer = retrying(lambda push=push: push_changes(store, ADA, push, MORNING))  # type: ignore[misc]
        assert {result.status for result in answer.results} == {"applied"}
        acknowledged += [m.id for m in push.mutations if m.entity == "note"]


@pytest.mark.parametrize("writers", [8, 32])
def test_whatever_was_acknowledged_can_be_read(engine: Engine, writers: int) -> None:
    store, acknowledged, busy = PostgresHub(engine), list[str](), threading.Semaphore(10)
    company = [parse_mutation(mutation(1, "create", entity, id, values)) for (entity, id), values in COMPANY.items()]
    for body in company:
        write_records(store, ADMINISTRATOR, [body], MORNING)
    threads = [threading.Thread(target=write, args=(store, f"r_{n}", acknowledged, busy)) for n in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    page = pull_changes(store, Reader(ADA.name, ADA.scopes), PullRequest(limit=5_000), SECRET, MORNING)
    page_end = pull_changes(store, Reader(ADA.name, ADA.scopes), PullRequest(page.cursor), SECRET, MORNING)
    mine = {change.id: change for change in page.changes if change.scope == "tech:T-1"}
    assert len(acknowledged) == writers * PUSHES * SIZE
    assert set(acknowledged) <= set(mine)
    assert len(mine["WO-1"].data["tags"]) == writers * PUSHES  # type: ignore[index]
    (tally,) = [tally for tally in (page.scopes or page_end.scopes) if tally.scope == "tech:T-1"]
    held = sum(row_hash(change.entity, change.id, change.version or 0) for change in mine.values()) % (1 << 64)
    assert (tally.count, int(tally.checksum, 16)) == (len(mine), held)
