"""Push, pull and sync over HTTP: waiting for news, streams, old apps, and bodies that nobody should send."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.store.listing import read_figures
from tests.support.api import Api, Device


@pytest.fixture
def phone(api: Api) -> Device:
    return api.enrol(api.add_technician())


@pytest.fixture
def order(api: Api, phone: Device) -> str:
    return api.add_work_order(phone.technician)


def edit(order: str, hub: int = 1, **patch: Any) -> dict[str, Any]:
    return {"entity": "work_order", "id": order, "patch": patch, "base": {"hub": hub}}


# -- the example of two devices in conflict -----------------------------------------------------------------------


def test_two_devices_that_edit_different_fields_are_both_applied(api: Api) -> None:
    technician = api.add_technician()
    a, b = api.enrol(technician), api.enrol(technician)
    order = api.add_work_order(technician)
    for version, title in ((1, "Fix"), (2, "Fix it")):
        api.office().patch(f"/v1/work-orders/{order}", {"title": title}, version)

    first = a.push(edit(order, 3, resolution="belt replaced")).json
    second = b.push(edit(order, 3, meter_reading="120.5")).json

    assert [r["status"] for r in first["results"] + second["results"]] == ["applied", "applied"]
    shown = api.office().get(f"/v1/work-orders/{order}").json
    assert (shown["resolution"], shown["meter_reading"], shown["version"]) == ("belt replaced", "120.5", 5)
    assert shown["clock"] == {"hub": 5, a.replica: 1, b.replica: 1}


def test_of_two_resolutions_the_one_that_does_not_stand_is_kept_in_a_case(api: Api) -> None:
    technician = api.add_technician()
    a, b = api.enrol(technician), api.enrol(technician)
    order = api.add_work_order(technician)
    a.push(edit(order, resolution="belt replaced"))

    (result,) = b.push(edit(order, resolution="pump replaced")).json["results"]

    assert result["status"] == "parked"
    assert result["record"]["data"]["resolution"] == "belt replaced"
    case = api.office("reviewer").get(f"/v1/conflicts/{result['review_id']}").json
    assert case["incoming"]["resolution"] == "pump replaced"


# -- push ---------------------------------------------------------------------------------------------------------


def test_a_replay_is_byte_identical_but_for_duplicate_and_record(api: Api, phone: Device, order: str) -> None:
    body = {"replica": phone.replica, "mutations": [{"n": 1, "op": "update", **edit(order, resolution="x")}]}

    first = phone.post("/v1/push", body).json["results"][0]
    again = phone.post("/v1/push", body).json["results"][0]

    assert again == {**{k: v for k, v in first.items() if k != "record"}, "duplicate": True}


def test_a_fork_tells_where_and_what_was_stored(api: Api, phone: Device, order: str) -> None:
    phone.push(edit(order, resolution="one"), edit(order, meter_reading="1"))
    phone.n = 0

    got = phone.push(edit(order, resolution="one"), edit(order, meter_reading="2"))

    assert (got.status_code, got.json["code"], got.json["forked_at"]) == (409, "replica_forked", 2)
    assert [(r["n"], r["status"], r["duplicate"]) for r in got.json["results"]] == [(1, "applied", True)]


def test_the_replica_of_another_technician_does_not_exist(api: Api, phone: Device, order: str) -> None:
    phone.push(edit(order, resolution="x"))
    stranger = api.enrol(api.add_technician())
    stranger.replica = phone.replica

    assert stranger.push().status_code == 404
    assert stranger.pull(replica=phone.replica).status_code == 404
    assert api.enrol(phone.technician).pull(replica=phone.replica).json["last_n"] == 1


def test_each_push_is_in_the_audit_with_what_became_of_it(api: Api, phone: Device, order: str) -> None:
    phone.push(edit(order, resolution="x"), {"entity": "spaceship", "id": "X", "patch": {}})

    (entry,) = api.office("auditor").get(f"/v1/audit?subject=replica:{phone.replica}").json["items"]

    assert entry["action"] == "push"
    assert entry["actor"] == f"device:{phone.enrolment['device_id']}"
    assert entry["detail"] == {"first_n": 1, "last_n": 2, "applied": 1, "rejected": 1}
    assert entry["correlation_id"]


def test_too_many_pushes_at_once_are_told_to_come_again(
    own_api: Callable[..., AbstractContextManager[Api]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.api.changes.PUSH_QUEUE_S", 0.01)
    with own_api(push_slots=1) as api:
        phone = api.enrol(api.add_technician())
        api.parts.push_slots.acquire()
        refused = phone.push()
        api.parts.push_slots.release()

        assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
        assert phone.push().status_code == 200


# -- pull ---------------------------------------------------------------------------------------------------------


def test_a_page_has_what_the_contract_names(phone: Device, order: str) -> None:
    page = phone.pull(replica=phone.replica).json

    assert set(page) == {
        "changes", "cursor", "more", "as_of", "scopes", "server_time", "last_n", "durable_n",
    }  # fmt: skip
    assert {c["id"] for c in page["changes"] if c["entity"] == "work_order"} == {order}
    assert [s["scope"] for s in page["scopes"]] == [f"tech:{phone.technician}", "catalog:all"]


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 5001}, {"limit": "x"}, {"wait": 26}, {"replica": "a b"}])
def test_a_pull_outside_its_bounds_says_where(phone: Device, query: dict[str, Any]) -> None:
    got = phone.pull(**query)

    assert (got.status_code, got.json["errors"][0]["path"]) == (422, next(iter(query)))


@pytest.mark.parametrize("cursor", ["x", "AAAA", "a" * 5000, "\u00e4", "bnVsbA"])
def test_a_cursor_that_is_none_is_refused(phone: Device, cursor: str) -> None:
    got = phone.pull(cursor=cursor)

    assert (got.status_code, got.json["code"]) == (400, "invalid_cursor")


def test_an_old_app_may_push_and_not_pull(own_api: Callable[..., AbstractContextManager[Api]]) -> None:
    with own_api(min_app_version="2.10") as api:
        phone = api.enrol(api.add_technician())
        order = api.add_work_order(phone.technician)
        old = {"X-App-Version": "2.9.9"}
        push = {"replica": phone.replica, "mutations": [{"n": 1, "op": "update", **edit(order, resolution="x")}]}

        pulled = phone.get("/v1/changes", old)
        synced = phone.post("/v1/sync", {"push": push, "cursor": None}, old)

        assert (pulled.status_code, pulled.json["code"]) == (426, "upgrade_required")
        assert synced.status_code == 200
        assert synced.json["push"]["results"][0]["status"] == "applied"
        assert synced.json["pull"]["problem"]["code"] == "upgrade_required"
        assert phone.get("/v1/changes", {"X-App-Version": "2.10.0"}).status_code == 200
        assert phone.post("/v1/sync", {"push": None}, old).status_code == 426


# -- both at once -------------------------------------------------------------------------------------------------


def test_sync_pushes_and_pulls_in_one_round_trip(phone: Device, order: str) -> None:
    push = {"replica": phone.replica, "mutations": [{"n": 1, "op": "update", **edit(order, resolution="x")}]}

    got = phone.post("/v1/sync", {"push": push, "cursor": None, "limit": 100}).json

    assert got["push"]["last_n"] == got["pull"]["last_n"] == 1
    assert [c["data"]["resolution"] for c in got["pull"]["changes"] if c["id"] == order] == ["x"]


def test_a_push_that_went_through_is_told_although_the_pull_fails(api: Api, phone: Device, order: str) -> None:
    push = {"replica": phone.replica, "mutations": [{"n": 1, "op": "update", **edit(order, resolution="x")}]}

    got = phone.post("/v1/sync", {"push": push, "cursor": "broken"})

    assert got.status_code == 200
    assert got.json["push"]["results"][0]["status"] == "applied"
    assert got.json["pull"]["problem"]["code"] == "invalid_cursor"
    assert phone.post("/v1/sync", {"push": None, "cursor": "broken"}).status_code == 400


# -- live ---------------------------------------------------------------------------------------------------------


def later(work: Callable[[], Any], after_s: float = 0.4) -> threading.Timer:
    timer = threading.Timer(after_s, work)
    timer.start()
    return timer


def test_a_pull_that_waits_is_answered_when_something_comes(api: Api, phone: Device) -> None:
    cursor = phone.pull().json["cursor"]
    timer = later(lambda: api.add_work_order(phone.technician))

    started = time.monotonic()
    page = phone.pull(cursor=cursor, wait=15).json
    timer.join()

    assert [c["entity"] for c in page["changes"]] == ["work_order"]
    assert 0.2 < time.monotonic() - started < 10


def test_what_came_before_the_waiting_began_ends_it_at_once(api: Api, phone: Device, order: str) -> None:
    started = time.monotonic()

    assert phone.pull(wait=15).json["changes"]
    assert time.monotonic() - started < 5


def test_news_for_others_do_not_end_the_waiting(api: Api, phone: Device) -> None:
    cursor = phone.pull().json["cursor"]
    timer = later(lambda: api.add_work_order(api.add_technician()), 0.1)

    started = time.monotonic()
    page = phone.pull(cursor=cursor, wait=1).json
    timer.join()

    assert page["changes"] == []
    assert time.monotonic() - started >= 1


def test_a_device_revoked_while_it_waits_gets_nothing_more(api: Api, phone: Device) -> None:
    cursor = phone.pull().json["cursor"]

    def revoke() -> None:
        api.office().post(f"/v1/devices/{phone.enrolment['device_id']}/revoke", {"reason": "lost"})
        api.add_work_order(phone.technician)

    timer = later(revoke)
    got = phone.pull(cursor=cursor, wait=15)
    timer.join()

    assert (got.status_code, got.json["code"]) == (401, "device_revoked")


def test_beyond_the_places_a_pull_is_answered_at_once_and_a_stream_refused(
    own_api: Callable[..., AbstractContextManager[Api]],
) -> None:
    with own_api(waiters=1) as api:
        phone = api.enrol(api.add_technician())
        cursor = phone.pull().json["cursor"]
        assert api.parts.pokes.enter()

        started = time.monotonic()
        waited = phone.pull(cursor=cursor, wait=15)
        refused = phone.get("/v1/changes/stream")

        assert (waited.status_code, waited.json["changes"]) == (200, [])
        assert time.monotonic() - started < 5
        assert (refused.status_code, refused.json["code"], "Retry-After" in refused.headers) == (
            503,
            "unavailable",
            True,
        )
        api.parts.pokes.leave()
        assert phone.get("/v1/changes/stream").status_code == 200


def pokes(phone: Device, headers: dict[str, str] | None = None) -> tuple[Any, Iterator[str]]:
    got = phone.client.get("/v1/changes/stream", headers=phone.headers(headers), buffered=False)
    return got, (chunk.decode() if isinstance(chunk, bytes) else chunk for chunk in got.response)


def test_a_stream_pokes_without_content_when_something_changes(api: Api, phone: Device) -> None:
    got, events = pokes(phone)
    assert got.mimetype == "text/event-stream"
    assert next(events).startswith(":")
    timer = later(lambda: api.add_work_order(phone.technician), 0.2)

    poke = next(events)
    timer.join()
    got.close()

    seq = phone.pull().json["as_of"]
    assert poke == f'id: {seq}\nevent: poke\ndata: {{"seq":{seq}}}\n\n'


def test_a_stream_opened_again_pokes_at_once_for_what_was_missed(api: Api, phone: Device) -> None:
    before = phone.pull().json["as_of"]
    api.add_work_order(phone.technician)

    got, events = pokes(phone, {"Last-Event-ID": str(before)})
    next(events)

    assert "event: poke" in next(events)
    got.close()


def test_a_stream_ends_by_itself_and_gives_its_place_back(
    own_api: Callable[..., AbstractContextManager[Api]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.api.changes.STREAM_S", 0.2)
    with own_api(waiters=1) as api:
        phone = api.enrol(api.add_technician())
        for _ in range(3):
            got, events = pokes(phone)
            assert len(list(events)) == 1
            got.close()


# -- the schema ---------------------------------------------------------------------------------------------------


def test_the_schema_is_sent_once(phone: Device) -> None:
    first = phone.get("/v1/schema")
    again = phone.get("/v1/schema", {"If-None-Match": first.headers["ETag"]})

    assert first.json["entities"]["work_order"]["plural"] == "work-orders"
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", first.headers["ETag"])


# -- hostile bodies -----------------------------------------------------------------------------------------------

BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"hello",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "cut off": b'{"replica":"r","mutations":[',
    "equal keys": b'{"replica":"r","replica":"s","mutations":[]}',
    "NaN": b'{"replica":"r","mutations":[{"n":NaN}]}',
    "a long number": b'{"replica":"r","mutations":[{"n":' + b"9" * 40 + b"}]}",
    "NUL": b'{"replica":"r\\u0000","mutations":[]}',
    "half a surrogate": b'{"replica":"\\ud800","mutations":[]}',
    "not UTF-8": b'{"replica":"\xff"}',
    "deep": b"[" * 2000 + b"]" * 2000,
    "deep objects": b'{"a":' * 100 + b"1" + b"}" * 100,
    "501 mutations": json.dumps({"replica": "r", "mutations": [{"n": n} for n in range(1, 502)]}).encode(),
    "no replica": b'{"mutations":[]}',
    "the hub's name": b'{"replica":"hub","mutations":[]}',
    "n of 0": b'{"replica":"r","mutations":[{"n":0}]}',
    "n of true": b'{"replica":"r","mutations":[{"n":true}]}',
    "n as text": b'{"replica":"r","mutations":[{"n":"1"}]}',
    "a mutation of text": b'{"replica":"r","mutations":["x"]}',
}


@pytest.mark.parametrize("path", ["/v1/push", "/v1/sync"])
@pytest.mark.parametrize("name", sorted(BODIES))
def test_a_hostile_body_is_refused_and_changes_nothing(api: Api, phone: Device, path: str, name: str) -> None:
    body = BODIES[name] if path == "/v1/push" else b'{"push":' + (BODIES[name] or b"x") + b"}"
    before = read_figures(api.parts.engine)

    got = phone.client.post(path, data=body, headers=phone.headers())

    if path == "/v1/sync" and name == "null":
        assert got.status_code == 200  # no push: only a pull
    else:
        assert got.status_code in (400, 413, 422), got.text
        assert got.mimetype == "application/problem+json"
    assert read_figures(api.parts.engine) == before


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", b"x", 400),
        ("gzip", gzip.compress(b"[" + b"0," * 4_000_000 + b"0]"), 413),
        ("zstd", b"x", 400),
        ("br", b"{}", 415),
    ],
)
def test_a_body_packed_to_do_harm_is_refused(phone: Device, encoding: str, body: bytes, status: int) -> None:
    got = phone.client.post("/v1/push", data=body, headers=phone.headers({"Content-Encoding": encoding}))

    assert got.status_code == status


TEXTS = ["1.5", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00+23:59", "hub", "$inc", "r_x"]
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=8) | st.sampled_from(TEXTS)
NAMES = st.sampled_from(["$inc", "$append", "$add", "$remove", "entity", "id", "replica", "n", "x"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)
FIELDS = st.sampled_from(
    ["title", "status", "meter_reading", "labour", "tags", "assignee_id", "scheduled_start", "signature", "odd", "$x"]
)
MUTATIONS = st.fixed_dictionaries(
    {},
    optional={
        "entity": st.sampled_from(["work_order", "note", "part_consumption", "toolkit_item", "rma", "nope"]) | VALUES,
        "id": st.sampled_from(["WO-x", "N-1"]) | VALUES,
        "op": st.sampled_from(["create", "update", "delete", "void"]) | VALUES,
        "patch": st.dictionaries(FIELDS, VALUES, max_size=3) | VALUES,
        "was": st.dictionaries(FIELDS, VALUES, max_size=3) | VALUES,
        "base": st.dictionaries(st.sampled_from(["hub", "r_x"]), st.integers(0, 5), max_size=2) | VALUES,
        "seen": VALUES,
        "occurred_at": VALUES,
        "group": VALUES,
        "group_size": VALUES,
        "origin": VALUES,
        "schema": VALUES,
        "problem": VALUES,
    },
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies=st.lists(MUTATIONS, max_size=3), sent_at=VALUES)
def test_no_push_makes_the_server_stumble(api: Api, bodies: list[dict[str, Any]], sent_at: Any) -> None:
    if not hasattr(api, "fuzzer"):
        api.fuzzer = api.enrol(api.add_technician())  # type: ignore[attr-defined]  # one device for all examples
    phone: Device = api.fuzzer  # type: ignore[attr-defined]
    phone.replica = api.new("fuzz")
    body = {"replica": phone.replica, "sent_at": sent_at, "mutations": [{**b, "n": n} for n, b in enumerate(bodies, 1)]}

    got = phone.post("/v1/push", body)

    assert got.status_code in (200, 400, 409, 413, 422), got.text
    if got.status_code == 200:
        assert [r["n"] for r in got.json["results"]] == list(range(1, len(bodies) + 1))
        assert phone.post("/v1/push", body).status_code == 200
    assert phone.pull().status_code == 200
