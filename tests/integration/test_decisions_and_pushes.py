"""Decisions and pushes on one PostgreSQL: at the same time, on the same records, and with numbers at the edge."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from server.services.changes import push_changes
from server.services.conflicts import resolve_case
from server.services.records import create_record, update_record, write_records
from server.store.engine import make_engine
from server.store.hub import PostgresHub, PostgresUnit
from server.store.keyset import Window
from server.store.listing import find_case, list_cases
from server.store.migrate import upgrade
from sync.clock import HUB
from sync.entity import REVIEWER
from sync.errors import SyncError
from sync.mutation import Result
from sync.protocol import Push
from sync.record import Key, Record
from sync.store import Actor
from sync.validate import parse_mutation
from tests.support.hub import ADMINISTRATOR, COMPANY, MORNING, device, mutation
from tests.support.store import empty

ADA = device("T-1")
JUDGE = Actor("user", "user:judge", REVIEWER, "platform", ("*",))
WO1, WO2, WO9 = (Key("work_order", f"WO-{number}") for number in (1, 2, 9))
PARENT = {HUB: 1}


@pytest.fixture(scope="module")
def pool(make_database: Callable[[], str]) -> Iterator[Engine]:
    url = make_database()
    upgrade(url)
    engine = make_engine(url, lock_timeout_ms=10_000)
    yield engine
    engine.dispose()


@pytest.fixture
def store(pool: Engine) -> PostgresHub:
    empty(pool)
    store = PostgresHub(pool)
    for (entity, id), values in COMPANY.items():
        write_records(store, ADMINISTRATOR, [parse_mutation(mutation(1, "create", entity, id, values))], MORNING)
    return store


def push(store: PostgresHub, *bodies: dict[str, Any], replica: str = "r_1") -> list[Result]:
    mutations = [parse_mutation(body) for body in bodies]
    return list(push_changes(store, ADA, Push(replica, mutations), MORNING + 1).results)


def titled(n: int, title: str, was: str, base: dict[str, int], id: str = "WO-1") -> dict[str, Any]:
    return mutation(n, "update", "work_order", id, {"title": title}, base, was={"title": was})


def record(store: PostgresHub, key: Key) -> Record:
    with store.begin() as uow:
        return uow.load((), {key})[key]


def contested_title(store: PostgresHub) -> str:
    push(store, titled(1, "A", "Fix it", PARENT), replica="r_a")
    (parked,) = push(store, titled(1, "B", "Fix it", PARENT), replica="r_b")
    assert parked.review_id
    return parked.review_id


class Slow:
    """Pushes in another thread that hold their locks for a while. errors: what became of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.locked = threading.Event()
        self.errors: list[SyncError] = []
        save = PostgresUnit.save

        def held(unit: PostgresUnit, batch: Any) -> int:
            if batch.replica:
                self.locked.set()
                time.sleep(0.5)
            return save(unit, batch)

        monkeypatch.setattr(PostgresUnit, "save", held)

    def run(self, work: Callable[[], Any]) -> threading.Thread:
        def working() -> None:
            try:
                work()
            except SyncError as error:
                self.errors.append(error)

        thread = threading.Thread(target=working)
        thread.start()
        assert self.locked.wait(5)
        return thread


def test_a_decision_and_a_push_into_its_case_never_wait_for_each_other(
    store: PostgresHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    case_id = contested_title(store)
    slow = Slow(monkeypatch)
    pushing = slow.run(lambda: push(store, titled(2, "B2", "B", {**PARENT, "r_b": 1}), replica="r_b"))
    resolve_case(store, JUDGE, case_id, "incoming", None, "because", None, MORNING + 2)
    pushing.join()

    assert slow.errors == []
    assert record(store, WO1).data["title"] == "B2", "what came in meanwhile is what is decided about"


def test_what_begins_to_wait_while_its_record_is_made_is_let_pass(
    store: PostgresHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    pushing = slow.run(lambda: push(store, titled(1, "sent", "x", {HUB: 5}, "WO-9")))
    create_record(store, ADMINISTRATOR, WO9, {"title": "x", "assignee_id": "T-1"}, MORNING + 3)
    pushing.join()

    assert slow.errors == []
    assert record(store, WO9).data["title"] == "sent"


def test_a_decision_opens_a_case_for_what_its_sender_may_not_do(store: PostgresHub) -> None:
    group = {"group": "g", "group_size": 2}
    used = {"work_order_id": "WO-1", "part_id": "P-404", "quantity": "1"}
    stolen = mutation(2, "update", "work_order", "WO-2", {"assignee_id": "T-1"}, PARENT, was={}, **group)
    first, second = push(store, mutation(1, "create", "part_consumption", "C-1", used, **group), stolen)
    assert first.review_id == second.review_id
    resolve_case(store, JUDGE, str(first.review_id), "incoming", None, "because", None, MORNING + 2)

    assert record(store, Key("part_consumption", "C-1")).data["part_id"] == "P-404"
    assert record(store, WO2).data["assignee_id"] == "T-2"
    (left,) = list_cases(store._engine, ("*",), {"status": "open"}, Window(10))
    assert (left.record_id, left.id == first.review_id) == ("WO-2", False)
    resolve_case(store, JUDGE, left.id, "incoming", None, "she may", None, MORNING + 3)
    assert record(store, WO2).data["assignee_id"] == "T-1", "once a person has seen it"


def test_a_case_is_seen_where_its_record_is(store: PostgresHub, pool: Engine) -> None:
    create_record(store, ADMINISTRATOR, Key("location", "D-2"), {"name": "D", "kind": "warehouse"}, MORNING)
    case_id = contested_title(store)
    awaited, *_ = push(store, titled(1, "x", "", {HUB: 5}, "WO-9"))

    def seen(depot: str) -> set[str]:
        listed = {case.id for case in list_cases(pool, (f"depot:{depot}",), {}, Window(10))}
        assert listed == {id for id in (case_id, awaited.review_id) if id and find_case(pool, (f"depot:{depot}",), id)}
        return listed

    assert (seen("D-1"), seen("D-2")) == ({case_id, awaited.review_id}, {awaited.review_id})
    update_record(store, ADMINISTRATOR, WO1, {"depot_id": "D-2"}, None, MORNING + 2)
    create_record(store, ADMINISTRATOR, WO9, {"title": "secret", "depot_id": "D-2"}, MORNING + 3)
    assert (seen("D-1"), seen("D-2")) == (set(), {case_id, awaited.review_id})


def test_numbers_at_the_edge_reach_the_database(store: PostgresHub) -> None:
    most = 2**53 - 1
    odd = {"x": 1e300, "y": -0.0, "z": most, "w": 5e-324}
    results = push(
        store,
        mutation(1, "update", "work_order", "WO-1", {"meter_reading": "-0"}, {HUB: most}, seen=most),
        mutation(2, "update", "work_order", "WO-1", {"meter_reading": "9" * 19}, {HUB: most, "r_1": most}, seen=most),
        mutation(3, "update", "work_order", "WO-1", odd, {HUB: most}),
        mutation(4, "update", "work_order", "WO-1", {"title": "t"}, {}, was={"title": {"a": [1e300]}}),
        mutation(5, "update", "work_order", "WO-1", {"title": "u"}, {}, origin={"replica": "r_9", "n": most}),
        mutation(6, "update", "work_order", "WO-9", {"title": "u"}, {HUB: most}, seen=most),
        mutation(7, "update", "work_order", "WO-1", {"status": "completed"}, {}, was={"status": {"a": 1}}),
    )

    assert [r.status for r in results] == ["applied", "applied", "applied", "parked", "parked", "parked", "parked"]
    assert {name: record(store, WO1).data[name] for name in odd} == odd
