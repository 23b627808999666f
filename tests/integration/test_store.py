"""The hub's store on a real PostgreSQL."""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text

from server.store import feed, hub, saving
from server.store.engine import Contended, UnsafeDatabase, driver, make_engine, reading, retrying, transaction
from server.store.hub import PostgresHub
from server.store.migrate import upgrade
from server.store.rows import columns_of, ref_of
from sync.clock import Dot, Origin
from sync.errors import Unavailable
from sync.feed import EVERYTHING
from sync.record import Key
from sync.store import Actor, Batch, FeedPosition, FeedRow
from sync.wire import change_to_wire
from tests.contract.hub_contract import (
    NOW,
    OFFICE,
    TASK,
    WO1,
    HubContract,
    case,
    history,
    pushed,
    put,
    read,
    task,
    waits,
    work_order,
)
from tests.support.postgres import plain_url
from tests.support.store import empty, statements


@pytest.fixture(scope="module")
def url(make_database: Callable[[], str]) -> str:
    url = make_database()
    upgrade(url)
    return url


@pytest.fixture(scope="module")
def pool(url: str) -> Iterator[Engine]:
    engine = make_engine(url, lock_timeout_ms=10_000)
    yield engine
    engine.dispose()


@pytest.fixture
def engine(pool: Engine) -> Engine:
    empty(pool)
    return pool


@pytest.fixture
def store(engine: Engine) -> PostgresHub:
    return PostgresHub(engine)


class TestPostgresHub(HubContract):
    """PostgreSQL keeps the contract."""


# -- what only PostgreSQL can get wrong -----------------------------------------------------------------------------


def table(engine: Engine, query: str) -> list[Any]:
    with reading(engine) as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def full_push(records: int) -> Callable[[PostgresHub], None]:
    """A push that needs every statement there is, for this many records, mutations, cases and so on."""
    keys = [Key("task", f"K-{n}") for n in range(records)]

    def push(store: PostgresHub) -> None:
        orders = [work_order(f"WO-{n}") for n in range(records)]
        changed = [replace(task(f"K-{n}", f"WO-{n}"), scopes=("tech:T-1",)) for n in range(records)]
        put(store, *orders, cases=[case(f"c_old{n}", key) for n, key in enumerate(keys)])
        with store.begin() as uow:
            uow.lock_replica("r_1", "T-1")
            uow.ledger("r_1", 1, records)
            uow.renamed([(Origin("r_0", n), b"x" * 32) for n in range(records)], "T-1")
            uow.load(uow.reach(keys, keys), {order.key for order in orders})
            uow.blocked(keys, "T-1")
            uow.waiting(keys)
            uow.times(range(1, records + 1), {(key, 1) for key in keys})
            uow.shown({(order.key, 0, "title") for order in orders})
            uow.was_in_reach([(key, NOW) for key in keys], ("tech:T-1",))
            batch = Batch(
                NOW, OFFICE,
                records={record.key: record for record in changed},
                before=dict.fromkeys(keys),
                feed=[
                    *(FeedRow("tech:T-1", key.entity, key.id, "put") for key in keys),
                    *(FeedRow("tech:T-2", key.entity, key.id, "evict") for key in keys),
                ],
                history=[history(record, "title", None, "x") for record in changed],
                cases=[case(f"c_{n}", key) for n, key in enumerate(keys)],
                superseded=[f"c_old{n}" for n in range(records)],
                waiting=[waits("c_0", "r_5", n, key) for n, key in enumerate(keys)],
                released=[("r_6", n) for n in range(records)],
                audit=[{"actor": "a", "action": "b", "subject": "c"}] * records,
                **pushed("r_1", 1, records, origin={"replica": "r_0", "n": 1}),
            )  # fmt: skip
            uow.save(batch)
            uow.commit()
        store.read_feed([FeedPosition(f"tech:T-{n}", 0, 0) for n in range(records)], records, "r_1")

    return push


def test_a_push_of_500_takes_as_many_statements_as_one_of_5(engine: Engine) -> None:
    counts = []
    for records in (5, 500):
        empty(engine)
        with statements(engine) as sent:
            full_push(records)(PostgresHub(engine))
        counts.append(len(sent))

    assert counts[0] == counts[1]
    assert counts[0] < 50


def test_locks_on_absent_records_leave_nothing_behind(store: PostgresHub, engine: Engine) -> None:
    with store.begin() as uow:
        uow.load({WO1, TASK}, ())
        uow.commit()

    assert table(engine, "SELECT * FROM lock_key") == []


def test_a_record_that_does_not_exist_yet_is_locked_all_the_same(store: PostgresHub) -> None:
    entered, seen = threading.Event(), []

    def second() -> None:
        with store.begin() as uow:
            entered.set()
            seen.append(uow.load({WO1}, ()))

    thread = threading.Thread(target=second)
    with store.begin() as uow:
        uow.load({WO1}, ())
        thread.start()
        entered.wait(5)
        thread.join(0.3)
        assert thread.is_alive()
        record = replace(work_order("WO-1"), scopes=("tech:T-1",))
        uow.save(Batch(NOW, OFFICE, records={WO1: record}, before={WO1: None}))
        uow.commit()
    thread.join(5)

    assert seen == [{WO1: record}]


def test_units_that_lock_the_same_keys_in_opposite_order_never_deadlock(store: PostgresHub) -> None:
    put(store, *(work_order(f"WO-{n}") for n in range(20)))
    keys = [Key("work_order", f"WO-{n}") for n in range(40)]  # half of them do not exist
    failures: list[BaseException] = []

    def work(ordered: list[Key]) -> None:
        try:
            for _ in range(25):
                with store.begin() as uow:
                    uow.load(ordered, ())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[order]) for order in (keys, keys[::-1]) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []


def test_two_first_pushes_of_one_replica_come_one_after_the_other(store: PostgresHub) -> None:
    states = []

    def second() -> None:
        with store.begin() as uow:
            states.append(uow.lock_replica("r_1", "T-2"))

    thread = threading.Thread(target=second)
    with store.begin() as uow:
        uow.lock_replica("r_1", "T-1")
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        uow.save(Batch(NOW, OFFICE, **pushed("r_1", 1, 4)))
        uow.commit()
    thread.join(5)

    assert [(state.technician_id, state.last_n) for state in states] == [("T-1", 4)]


def test_a_push_without_records_moves_the_head_so_that_an_older_backup_does_not_contain_it(store: PostgresHub) -> None:
    before = put(store, work_order("WO-1"))

    after = put(store, **pushed("r_1", 1, 1))

    assert after == before + 1
    assert read(store).head == after


def test_a_unit_that_changes_nothing_does_not_move_the_head(store: PostgresHub) -> None:
    head = put(store, work_order("WO-1"))

    assert put(store) == head


def test_durable_n_is_the_last_mutation_below_the_durable_mark(store: PostgresHub, engine: Engine) -> None:
    put(store, **pushed("r_1", 1, 3))
    mark = put(store, **pushed("r_1", 4, 6))
    put(store, **pushed("r_1", 7, 9))
    with transaction(engine) as connection:
        connection.execute(text(f"UPDATE feed_epoch SET durable_seq = {mark}"))

    slice_ = read(store, "tech:T-1", replica="r_1")

    assert (slice_.last_n, slice_.durable_n) == (9, 6)


def test_the_text_of_a_feed_row_is_the_wire_document(store: PostgresHub) -> None:
    put(store, work_order("WO-1", title='Pump "Süd" \\ \u2028'), work_order("WO-2"), work_order("WO-3"))
    put(store, replace(work_order("WO-2", 2), deleted=Dot(2, "r_1", 2)), work_order("WO-3", 2, assignee=None))
    positions = [FeedPosition("tech:T-1", 0, 0)]

    texts = store.read_feed_text(positions, 10, None)

    slice_ = store.read_feed(positions, 10, None)
    assert [json.loads(row) for row in texts.rows] == [change_to_wire(row) for row in slice_.rows]
    assert (texts.head, texts.tallies, texts.last_seq) == (slice_.head, slice_.tallies, slice_.rows[-1].seq)
    assert store.read_feed_text([], 10, None).rows == []


def test_values_come_back_exactly_as_they_were_sent(store: PostgresHub) -> None:
    odd = {"big": 9_999_999_999_999_999_999, "least": -9_999_999_999_999_999_999, "float": 1e22, "tiny": 1.5e-7}
    record = work_order("WO-1", extra={**odd, "deep": [[], {}, None, True, 1, 1.0, "\u2028😀"]})

    put(store, record)

    with store.begin() as uow:
        data = uow.load((), {WO1})[WO1].data["extra"]
    assert repr(data) == repr(record.data["extra"])


def test_news_are_announced_with_the_commit(store: PostgresHub, url: str) -> None:
    with psycopg.connect(plain_url(url), autocommit=True) as listener:
        listener.execute(f"LISTEN {saving.CHANNEL}")
        seq = put(store, work_order("WO-1"))

        (heard,) = listener.notifies(timeout=5, stop_after=1)
    assert heard.payload == str(seq)
    assert store.newest(["tech:T-1", "tech:T-2"]) == seq
    assert store.newest(["tech:T-2"]) == 0


def test_office_work_has_a_history_too(store: PostgresHub, engine: Engine) -> None:
    for version in (1, 2):
        record = work_order("WO-1", version)
        put(store, record, past=[history(record, "title", None, "x")] * 2)

    assert table(engine, "SELECT replica, first_n, actor FROM push") == [(None, None, "user:ann")] * 2
    assert table(engine, "SELECT entity, id, version FROM change ORDER BY version") == [(*WO1, 1), (*WO1, 2)]


def test_a_record_keeps_the_names_of_what_its_scopes_are_read_from(store: PostgresHub, engine: Engine) -> None:
    put(store, task("K-1", "WO-1"))

    assert table(engine, "SELECT refs FROM record") == [(["work_order:WO-1"],)]


def test_a_rotated_epoch_stops_what_was_begun_before_it(store: PostgresHub, engine: Engine) -> None:
    with store.begin() as uow:
        assert uow.epoch == 0
        with transaction(engine) as connection:
            connection.execute(text("UPDATE feed_epoch SET number = 7"))

        with pytest.raises(Contended):
            uow.save(Batch(NOW, OFFICE, **pushed("r_1", 1, 1)))


def test_the_device_of_a_replica_is_known(store: PostgresHub, engine: Engine) -> None:
    with store.begin() as uow:
        device = Actor("device", "device:d7", "technician", "device", ("tech:T-1",), "T-1")
        uow.save(Batch(NOW, device, **pushed("r_1", 1, 1)))
        uow.commit()
    put(store, **pushed("r_1", 2, 2))

    assert table(engine, "SELECT device_id, first_seen FROM replica") == [("d7", NOW)]


def test_failpoints_stand_before_and_after_the_commit(engine: Engine) -> None:
    def fail_at(name: str) -> PostgresHub:
        def failpoint(reached: str) -> None:
            if reached == name:
                raise ConnectionError(name)

        return PostgresHub(engine, failpoint)

    for name, stored in (("before_commit", 0), ("after_commit", 1)):
        with pytest.raises(ConnectionError):
            put(fail_at(name), work_order("WO-1"))
        assert len(table(engine, "SELECT id FROM record")) == stored


# -- connections --------------------------------------------------------------------------------------------------


def test_a_deadlock_is_told_as_contended_and_tried_again(engine: Engine) -> None:
    attempts, pauses = [], []

    def work() -> str:
        attempts.append(1)
        if len(attempts) < 4:
            with driver(engine):
                raise psycopg.errors.DeadlockDetected
        return "done"

    assert retrying(work, jitter=lambda: 0.5, sleep=pauses.append) == "done"
    assert pauses == pytest.approx([0.05, 0.1, 0.15])


def test_a_unit_that_is_contended_four_times_is_given_up(engine: Engine) -> None:
    def work() -> None:
        with driver(engine):
            raise psycopg.errors.SerializationFailure

    with pytest.raises(Contended):
        retrying(work, sleep=lambda pause: None)


def test_a_pool_without_a_free_connection_is_unavailable(url: str) -> None:
    small = make_engine(url, pool_size=1)
    try:
        with driver(small), pytest.raises(Unavailable, match="All database connections"), driver(small):
            pass
    finally:
        small.dispose()


def test_a_wait_for_a_lock_ends_as_unavailable(url: str, store: PostgresHub) -> None:
    impatient = make_engine(url, lock_timeout_ms=100)
    try:
        with store.begin() as uow:
            uow.load({WO1}, ())
            with pytest.raises(Unavailable), PostgresHub(impatient).begin() as other:
                other.load({WO1}, ())
    finally:
        impatient.dispose()


def test_a_server_that_loses_acknowledged_work_is_refused(url: str) -> None:
    with psycopg.connect(plain_url(url), autocommit=True) as admin:
        admin.execute("ALTER ROLE backhaul SET synchronous_commit = off")
        try:
            engine = make_engine(url)
            with pytest.raises(UnsafeDatabase), driver(engine):
                pass
            allowed = make_engine(url, allow_lossy_commit=True)
            with driver(allowed) as connection:
                assert connection.execute("SHOW synchronous_commit").fetchone() == ("off",)
            allowed.dispose()
        finally:
            admin.execute("ALTER ROLE backhaul RESET synchronous_commit")


def test_a_forked_child_opens_connections_of_its_own(url: str) -> None:
    single = make_engine(url, pool_size=1)
    with driver(single) as connection:
        mine = connection.info.backend_pid
    receiver, sender = os.pipe()

    with warnings.catch_warnings():
        # The child only reports and ends; whatever threads the test runner has do not matter to it.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            with driver(single) as own:
                os.write(sender, str(own.info.backend_pid).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(sender)
    theirs = int(os.read(receiver, 100))
    os.close(receiver)

    assert theirs != mine
    with driver(single) as connection:
        assert connection.execute("SELECT pg_backend_pid()").fetchone() == (mine,)
    single.dispose()


def test_reads_alone_open_no_transaction(engine: Engine) -> None:
    with driver(engine, autocommit=True) as connection:
        connection.execute("SELECT 1")
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    with driver(engine) as connection:
        assert not connection.autocommit


def test_reach_goes_by_index_however_many_keys_there_are(store: PostgresHub, engine: Engine) -> None:
    put(store, *(task(f"K-{n}", f"WO-{n}") for n in range(3_000)))
    with transaction(engine) as connection:
        connection.execute(text("ANALYZE"))
    keys = [Key("task", f"K-{n}") for n in range(500)]
    for statement, values in ((hub.ABOVE, columns_of(keys)), (hub.DEPENDANTS, [[ref_of(key) for key in keys]])):
        with driver(engine) as connection:
            plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {statement}", values).fetchall())

        assert "Seq Scan on record" not in plan


def test_a_bootstrap_reads_its_scopes_by_index(store: PostgresHub, engine: Engine) -> None:
    put(store, *(work_order(f"WO-{n}", assignee=f"T-{n % 50}") for n in range(3_000)))
    with transaction(engine) as connection:
        connection.execute(text("ANALYZE"))
    values = {"scopes": ["tech:T-1", "tech:T-2"], "afters": [0, 0], "puts_untils": [EVERYTHING] * 2}
    with driver(engine) as connection:
        rows = connection.execute(f"EXPLAIN {feed.PAGE}", {**values, "limit": 10, "replica": None}).fetchall()
    plan = "\n".join(line for (line,) in rows)

    assert "ix_feed_scope_seq" in plan
    assert "Seq Scan on feed " not in plan
