"""What every SyncServer does, in the same process or over HTTP, whatever the hub keeps its state in."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from client_sdk.transport import HttpTransport, Tokens
from server.services.changes import HubServer
from server.services.records import create_record, delete_record, update_record
from sync.errors import GroupIncomplete, InvalidCursor, MutationGap, NotFound, ReplicaForked
from sync.memory import MemoryHub
from sync.protocol import Page, PullRequest, Push, PushResult, SyncServer
from sync.record import Key
from sync.store import Actor, HubStore
from sync.validate import parse_mutation
from sync.wire import results_from_extras
from tests.support.api import Api

OFFICE = Actor("user", "user:olga", "admin", "platform", ("*",))
SECRET = b"s" * 32
_numbers = itertools.count(1)


@dataclass
class World:
    """A hub with a technician in it, and ways in. connect: a device of that technician."""

    store: HubStore
    clock: Callable[[], int]
    connect: Callable[[str], SyncServer]

    def new(self, prefix: str) -> str:
        return f"{prefix}-s{next(_numbers)}"

    def add(self, entity: str, id: str, **values: Any) -> str:
        create_record(self.store, OFFICE, Key(entity, id), values, self.clock())
        return id

    def write(self, entity: str, id: str, **values: Any) -> None:
        update_record(self.store, OFFICE, Key(entity, id), values, None, self.clock())

    def delete(self, entity: str, id: str) -> None:
        delete_record(self.store, OFFICE, Key(entity, id), None, self.clock())

    def technician(self) -> str:
        return self.add("technician", self.new("T"), name="Tim")


@pytest.fixture(params=["memory", "postgresql", "http"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    kind = request.param
    if kind == "memory":
        times = itertools.count(1_790_000_000_000, 1000)
        yield in_process(MemoryHub(), lambda: next(times))
        return
    api: Api = request.getfixturevalue("api")
    if kind == "postgresql":
        yield in_process(api.parts.store, api.clock)
        return
    opened: list[HttpTransport] = []

    def connect(technician: str) -> SyncServer:
        device = api.enrol(technician)
        tokens = Tokens(device.enrolment["access_token"], device.enrolment["refresh_token"])
        opened.append(
            HttpTransport("http://hub", lambda: tokens, lambda new: None, http=httpx.WSGITransport(app=api.app))
        )
        return opened[-1]

    yield World(api.parts.store, api.clock, connect)
    for transport in opened:
        transport.close()


def in_process(store: HubStore, clock: Callable[[], int]) -> World:
    def connect(technician: str) -> SyncServer:
        name = f"device:d{next(_numbers)}"
        actor = Actor("device", name, "technician", "device", (f"tech:{technician}", "catalog:all"), technician)
        return HubServer(store, lambda: actor, SECRET, clock)

    return World(store, clock, connect)


def push_of(replica: str, *bodies: dict[str, Any], first: int = 1) -> Push:
    numbered = [{"n": n, "op": "update", "base": {}, **body} for n, body in enumerate(bodies, first)]
    return Push(replica, [parse_mutation(body) for body in numbered])


def edit(order: str, hub: int = 1, **patch: Any) -> dict[str, Any]:
    return {"entity": "work_order", "id": order, "patch": patch, "base": {"hub": hub}}


def read_all(server: SyncServer, cursor: str | None = None, limit: int = 1000) -> tuple[list[Any], Page]:
    changes: list[Any] = []
    while True:
        page = server.pull(PullRequest(cursor=cursor, limit=limit))
        changes += page.changes
        cursor = page.cursor
        if not page.more:
            return changes, page


def statuses(result: PushResult) -> list[str]:
    return [one.status for one in result.results]


@pytest.fixture
def tech(world: World) -> str:
    return world.technician()


@pytest.fixture
def server(world: World, tech: str) -> SyncServer:
    return world.connect(tech)


@pytest.fixture
def order(world: World, tech: str) -> str:
    return world.add("work_order", world.new("WO"), title="Fix the pump", assignee_id=tech)


def test_a_first_pull_brings_what_lies_in_the_scopes(server: SyncServer, order: str, tech: str) -> None:
    changes, page = read_all(server)

    assert {(c.entity, c.id) for c in changes if c.scope == f"tech:{tech}"} == {
        ("technician", tech),
        ("work_order", order),
    }
    assert next(t.count for t in page.scopes if t.scope == f"tech:{tech}") == 2


def test_pages_together_are_the_feed_read_at_once(world: World, server: SyncServer, tech: str) -> None:
    for _ in range(7):
        world.add("work_order", world.new("WO"), title="Job", assignee_id=tech)

    at_once, _ = read_all(server)
    in_pieces, _ = read_all(server, limit=2)

    assert [(c.seq, c.id, c.version) for c in in_pieces] == [(c.seq, c.id, c.version) for c in at_once]


def test_what_a_device_pushed_comes_back_in_the_feed(world: World, server: SyncServer, order: str) -> None:
    _, page = read_all(server)

    result = server.push(push_of(world.new("r"), edit(order, resolution="belt replaced")))
    changes, after = read_all(server, page.cursor)

    assert statuses(result) == ["applied"]
    assert [(c.id, c.data["resolution"]) for c in changes] == [(order, "belt replaced")]
    assert after.as_of >= result.committed_seq


def test_the_same_push_again_gives_the_same_answer_and_no_second_effect(
    world: World, server: SyncServer, order: str
) -> None:
    push = push_of(world.new("r"), edit(order, resolution="belt replaced"), edit(order, meter_reading="7"))

    first, again = server.push(push), server.push(push)

    assert [one.duplicate for one in again.results] == [True, True]
    assert [one.version for one in again.results] == [one.version for one in first.results]
    assert [one.record for one in again.results] == [None, None]
    assert again.last_n == first.last_n == 2


def test_two_devices_that_wrote_different_fields_both_have_their_way(world: World, tech: str, order: str) -> None:
    a, b = world.connect(tech), world.connect(tech)

    first = a.push(push_of(world.new("r"), edit(order, resolution="belt replaced")))
    second = b.push(push_of(world.new("r"), edit(order, meter_reading="120.5")))
    (seen,) = [c for c in read_all(a)[0] if c.id == order]

    assert statuses(first) + statuses(second) == ["applied", "applied"]
    assert (seen.data["resolution"], seen.data["meter_reading"]) == ("belt replaced", "120.5")


def test_of_two_values_for_one_field_none_is_lost(world: World, tech: str, order: str) -> None:
    a, b = world.connect(tech), world.connect(tech)

    a.push(push_of(world.new("r"), edit(order, resolution="belt replaced")))
    second = b.push(push_of(world.new("r"), edit(order, resolution="pump replaced")))

    (result,) = second.results
    assert result.status == "parked"
    assert result.review_id
    assert [d.kept for d in result.decisions] == ["waiting"]
    assert result.record is not None
    assert result.record["data"]["resolution"] == "belt replaced"


def test_the_larger_meter_reading_stands(world: World, tech: str, order: str) -> None:
    a, b = world.connect(tech), world.connect(tech)

    a.push(push_of(world.new("r"), edit(order, meter_reading="120.5")))
    result = b.push(push_of(world.new("r"), edit(order, meter_reading="99")))

    assert statuses(result) == ["merged"]
    assert result.results[0].decisions[0].kept == "current"


def test_one_bad_mutation_does_not_hold_up_the_others(world: World, server: SyncServer, order: str) -> None:
    result = server.push(
        push_of(
            world.new("r"),
            {"entity": "spaceship", "id": "X", "patch": {}},
            edit(order, title="mine"),
            edit(order, resolution="belt replaced"),
        )
    )

    assert statuses(result)[0] == "rejected"
    assert statuses(result)[2] == "applied"
    assert all(one.problem for one in result.results if one.status == "rejected")


def test_a_gap_in_the_numbers_is_refused_with_the_number_expected(world: World, server: SyncServer, order: str) -> None:
    with pytest.raises(MutationGap) as caught:
        server.push(push_of(world.new("r"), edit(order, resolution="x"), first=5))

    assert caught.value.extras["expected"] == 1


def test_another_payload_under_a_used_number_is_a_fork(world: World, server: SyncServer, order: str) -> None:
    replica = world.new("r")
    server.push(push_of(replica, edit(order, resolution="one"), edit(order, meter_reading="1")))

    with pytest.raises(ReplicaForked) as caught:
        server.push(push_of(replica, edit(order, resolution="one"), edit(order, meter_reading="2")))

    assert caught.value.extras["forked_at"] == 2
    assert [one.n for one in results_from_extras(caught.value.extras["results"])] == [1]


def test_half_a_group_is_refused_whole(world: World, server: SyncServer, order: str) -> None:
    member = {**edit(order, resolution="x"), "group": "g1", "group_size": 2}

    with pytest.raises(GroupIncomplete):
        server.push(push_of(world.new("r"), member))


def test_the_replica_of_another_technician_does_not_exist(world: World, server: SyncServer, order: str) -> None:
    replica = world.new("r")
    server.push(push_of(replica, edit(order, resolution="x")))
    stranger = world.connect(world.technician())

    with pytest.raises(NotFound):
        stranger.push(push_of(replica, edit(order, resolution="y"), first=2))


def test_last_n_tells_what_is_in_the_page(world: World, server: SyncServer, order: str) -> None:
    replica = world.new("r")
    before = server.pull(PullRequest(replica=replica))
    server.push(push_of(replica, edit(order, resolution="x"), edit(order, meter_reading="1")))

    after = server.pull(PullRequest(cursor=before.cursor, replica=replica))

    assert (before.last_n, after.last_n) == (0, 2)


def test_a_record_that_leaves_the_scopes_is_evicted(world: World, server: SyncServer, order: str) -> None:
    _, page = read_all(server)
    world.write("work_order", order, assignee_id=world.technician())

    changes, after = read_all(server, page.cursor)

    assert [(c.op, c.id, c.data) for c in changes] == [("evict", order, None)]
    assert after.scopes


def test_a_deleted_record_is_told_of_without_its_values(world: World, server: SyncServer, order: str) -> None:
    _, page = read_all(server)
    world.delete("work_order", order)

    changes, _ = read_all(server, page.cursor)

    assert [(c.op, c.id, c.data) for c in changes] == [("delete", order, None)]


def test_a_scope_can_be_read_again_by_itself(server: SyncServer, order: str, tech: str) -> None:
    page = server.pull(PullRequest(scope=f"tech:{tech}"))

    assert {c.id for c in page.changes} == {tech, order}
    assert [t.scope for t in page.scopes] == [f"tech:{tech}"]


def test_a_scope_that_is_not_held_does_not_exist(world: World, server: SyncServer) -> None:
    with pytest.raises(NotFound):
        server.pull(PullRequest(scope=f"tech:{world.technician()}"))


def test_the_cursor_of_another_device_is_no_cursor(world: World, server: SyncServer, tech: str) -> None:
    cursor = world.connect(tech).pull(PullRequest()).cursor

    with pytest.raises(InvalidCursor):
        server.pull(PullRequest(cursor=cursor))
