"""The feed epoch, the durable position, the purge and claims, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from server.store.engine import make_engine, transaction
from server.store.epochs import feed_position, move_durable, rotate_epoch
from server.store.hub import PostgresHub
from server.store.migrate import upgrade
from server.store.purge import purge
from sync.clock import Dot, next_version
from tests.contract.hub_contract import NOW, WO1, history, load, pushed, put, read, work_order
from tests.support.store import empty

DAY_MS = 86_400_000
AUDIT = {"actor": "system:operator", "action": "x", "subject": "feed"}


@pytest.fixture(scope="module")
def pool(make_database: Callable[[], str]) -> Iterator[Engine]:
    url = make_database()
    upgrade(url)
    engine = make_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def engine(pool: Engine) -> Engine:
    empty(pool)
    return pool


@pytest.fixture
def store(engine: Engine) -> PostgresHub:
    return PostgresHub(engine)


def test_an_epoch_is_the_least_that_is_asked_for_or_one_more_than_the_last(engine: Engine, store: PostgresHub) -> None:
    assert [rotate_epoch(engine, 500, NOW, AUDIT) for _ in range(2)] == [500, 501]
    assert feed_position(engine) >= 501 << 32, "no position of the lost timeline is one of this"

    assert read(store).epoch == 501
    with store.begin() as uow:
        assert next_version(3, uow.epoch) == (501 << 32) + 1


def test_the_durable_position_never_lies_ahead_of_the_feed(engine: Engine, store: PostgresHub) -> None:
    head = put(store, work_order("WO-1"), **pushed("r_1", 1, 3))

    assert move_durable(engine, head + 1, NOW, AUDIT) is None
    assert read(store, replica="r_1").durable_n == 0
    assert move_durable(engine, head, NOW, AUDIT) == head
    assert read(store, replica="r_1").durable_n == 3


def test_a_purge_takes_old_deletions_and_keeps_their_stubs(engine: Engine, store: PostgresHub) -> None:
    old, new = NOW, NOW + 200 * DAY_MS
    seqs = []
    for id, at in (("WO-1", old), ("WO-2", old), ("WO-3", new)):
        gone = replace(work_order(id, 2), deleted=Dot(2, "r_1", 2), updated_at=at)
        put(store, work_order(id), now=at)
        seqs.append(put(store, gone, now=at, past=[history(gone, "*", False, True)]))
    put(store, work_order("WO-4"), now=new)

    with transaction(engine) as connection:
        taken = purge(connection, old + DAY_MS)
        assert purge(connection, old + DAY_MS) == (0, 0, 0)

    assert taken == (2, 2, 2)
    slice_ = read(store, "tech:T-1")
    assert [(row.op, row.id) for row in slice_.rows] == [("delete", "WO-3"), ("put", "WO-4")]
    assert slice_.purged_seq == seqs[1]
    stub = load(store, WO1)[WO1]
    assert (stub.version, stub.data, stub.deleted, stub.clock) == (2, {}, Dot(2), {"hub": 2})


def test_a_purged_record_can_come_back(engine: Engine, store: PostgresHub) -> None:
    gone = replace(work_order("WO-1", 2), deleted=Dot(2))
    put(store, work_order("WO-1"))
    put(store, gone, past=[history(gone, "*", False, True)])
    with transaction(engine) as connection:
        purge(connection, NOW + DAY_MS)

    put(store, work_order("WO-1", 3), now=NOW + 2 * DAY_MS)

    slice_ = read(store, "tech:T-1")
    assert [(row.op, row.version) for row in slice_.rows] == [("put", 3)]
    assert slice_.tallies["tech:T-1"][0] == 1
