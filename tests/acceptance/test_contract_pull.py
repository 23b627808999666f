"""Sections 2, 4, 5 and 6: what a device is told, and when."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.client import Api, Company, Device, Json, Server, check_page, checksum, new_id, ok, refused


@pytest.fixture
def device(company: Company) -> Device:
    return company.device()


def note(device: Device, work_order: str) -> Json:
    parent = {"entity": "work_order", "id": work_order}
    return device.mutation("note", new_id("N"), "create", {"parent": parent, "text": "x"})


def scopes_of(page: Json) -> dict[str, Json]:
    return {scope["scope"]: scope for scope in page["scopes"]}


def in_a_moment(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Timer(0.4, act)
    thread.start()
    return thread


def test_the_checksum_is_the_one_of_the_definition() -> None:
    one = [("work_order", "WO-1", 17)]
    assert checksum(one) == "d19af6add068b1c7"
    assert checksum([*one, ("part", "P-100", 3)]) == "4abbe4ee32d11f24"
    assert checksum([]) == "0000000000000000"


def test_a_first_pull_brings_all_that_is_in_ones_scopes(company: Company, device: Device) -> None:
    mine, other = company.assigned(), company.assigned(assignee_id=company.colleague)
    task = company.admin.create("tasks", id=new_id("TASK"), work_order_id=mine, title="x")["id"]
    shelf = company.admin.create("locations", id=new_id("BIN"), name="Bin", kind="bin", depot_id=company.depot)["id"]
    stock = company.admin.create("toolkit-items", id=new_id("TI"), location_id=shelf, part_id=company.part)["id"]
    carried = company.admin.create("toolkit-items", id=new_id("TI"), location_id=company.van, part_id=company.part)[
        "id"
    ]
    box = company.admin.create("locations", id=new_id("BOX"), name="Box", kind="toolbox", parent_id=company.van)["id"]
    boxed = company.admin.create("toolkit-items", id=new_id("TI"), location_id=box, part_id=company.part)["id"]
    device.pull()
    tech, depot = f"tech:{company.technician}", f"stock:{company.depot}"
    assert set(scopes_of(device.last)) == {tech, depot, "catalog:all"}
    held = set(device.held)
    assert held >= {
        (tech, "work_order", mine),
        (tech, "task", task),
        (tech, "technician", company.technician),
        (tech, "location", company.van),
        (tech, "toolkit_item", carried),
        (tech, "location", box),
        (tech, "toolkit_item", boxed),
        (depot, "location", shelf),
        (depot, "location", company.depot),
        (depot, "toolkit_item", stock),
        ("catalog:all", "part", company.part),
    }
    assert not device.holds("work_order", other)
    assert not device.holds("technician", company.colleague)
    assert not {key for key in held if key[0] == depot and key[2] in {company.van, carried, box, boxed}}
    assert (device.last["last_n"], device.last["durable_n"]) == (0, 0)


def test_pages_of_one_row_bring_the_same(company: Company, device: Device) -> None:
    for _ in range(3):
        company.assigned()
    whole = company.device()
    whole.pull()
    pages = list(device.pages(None, limit=1))
    rows = [row for page in pages for row in page["changes"]]
    assert all(len(page["changes"]) <= 1 for page in pages)
    assert all(page["more"] for page in pages[:-1])
    assert len(rows) == len(whole.held)
    assert [row["seq"] for row in rows] == sorted(row["seq"] for row in rows)
    device.pull(limit=1)
    assert device.held.keys() == whole.held.keys()
    assert device.counted() == whole.counted()


def test_changes_between_the_pages_are_not_lost(company: Company, device: Device) -> None:
    first = [company.assigned() for _ in range(3)]
    came: dict[tuple[str, str], Json] = {}
    made = None
    for number, page in enumerate(device.pages(None, limit=2)):
        if number == 1:
            made = company.assigned()
            company.admin.change("work-orders", first[0], title="changed")
            company.admin.remove("work-orders", first[1])
            company.server.office("dispatcher").change("work-orders", first[2], assignee_id=company.colleague)
        for row in page["changes"]:
            came[row["scope"], row["id"]] = row
    tech = f"tech:{company.technician}"
    assert came[tech, made or ""]["op"] == "put"
    assert came[tech, first[0]]["data"]["title"] == "changed"
    assert came.get((tech, first[1]), {"op": "delete"})["op"] == "delete"
    assert came.get((tech, first[2]), {"op": "evict"})["op"] == "evict"
    live = [row for row in came.values() if row["op"] == "put" and row["scope"] == tech]
    told = scopes_of(page)[tech]
    assert told["count"] == len(live)
    assert told["checksum"] == checksum((row["entity"], row["id"], row["version"]) for row in live)


def test_a_pull_goes_on_where_it_stopped(company: Company, device: Device) -> None:
    device.pull()
    assert device.pull() == []
    work_order = company.assigned()
    rows = device.pull()
    assert [(row["op"], row["entity"], row["id"]) for row in rows] == [("put", "work_order", work_order)]
    assert rows[0].keys() >= {"seq", "op", "scope", "entity", "id", "version", "clock", "data"}
    company.admin.change("work-orders", work_order, title="new")
    (row,) = device.pull()
    assert row["version"] > rows[0]["version"]
    assert row["data"]["title"] == "new"


def test_a_deletion_is_told_and_left_out_of_a_first_pull(company: Company, device: Device) -> None:
    work_order = company.assigned()
    device.pull()
    company.admin.remove("work-orders", work_order)
    (row,) = device.pull()
    assert (row["op"], row["entity"], row["id"]) == ("delete", "work_order", work_order)
    assert "data" not in row
    fresh = company.device()
    assert {row["op"] for row in fresh.pull()} == {"put"}


def test_a_job_that_goes_to_another_takes_all_with_it(company: Company, device: Device) -> None:
    work_order = company.assigned()
    task = company.admin.create("tasks", id=new_id("TASK"), work_order_id=work_order, title="x")["id"]
    device.pull()
    written = note(device, work_order)
    device.push(written)
    colleague = company.device(company.colleague)
    device.pull(), colleague.pull()
    company.server.office("dispatcher").change("work-orders", work_order, assignee_id=company.colleague)
    gone = {(row["entity"], row["id"]): row for row in device.pull()}
    assert gone.keys() == {("work_order", work_order), ("task", task), ("note", written["id"])}
    assert {row["op"] for row in gone.values()} == {"evict"}
    assert {row["scope"] for row in gone.values()} == {f"tech:{company.technician}"}
    assert {(row["op"], row["id"]) for row in colleague.pull()} == {
        ("put", work_order),
        ("put", task),
        ("put", written["id"]),
    }
    company.server.office("dispatcher").change("work-orders", work_order, assignee_id=company.technician)
    assert {row["op"] for row in device.pull()} == {"put"}
    assert {row["op"] for row in colleague.pull()} == {"evict"}


def test_a_new_scope_is_filled_and_an_old_one_ends_in_the_same_call(company: Company, device: Device) -> None:
    depot = company.admin.create("locations", id=new_id("WH"), name="Other", kind="warehouse")["id"]
    company.admin.change("locations", depot, depot_id=depot)
    shelves = [
        company.admin.create("locations", id=new_id("BIN"), name="Bin", kind="bin", depot_id=depot)["id"]
        for _ in range(3)
    ]
    work_order = company.assigned()
    device.pull()
    before = dict(device.held)
    company.server.office("dispatcher").change("technicians", company.technician, depot_id=depot)
    rows = device.pull(limit=1)
    came = {(row["scope"], row["id"]) for row in rows if row["op"] == "put"}
    assert came == {(f"stock:{depot}", name) for name in [depot, *shelves]} | {
        (f"tech:{company.technician}", company.technician)
    }
    assert set(scopes_of(device.last)) == {f"tech:{company.technician}", f"stock:{depot}", "catalog:all"}
    assert (f"tech:{company.technician}", "work_order", work_order) in before
    assert device.pull() == []


def test_a_scope_is_read_again_by_itself(company: Company, device: Device) -> None:
    work_order = company.assigned()
    device.pull()
    tech = f"tech:{company.technician}"
    company.admin.change("work-orders", work_order, title="new")
    cursor, came = None, []
    while True:
        page = ok(device.api.get("/v1/changes", scope=tech, limit=1, **({} if cursor is None else {"cursor": cursor})))
        check_page(page)
        came += page["changes"]
        cursor = page["cursor"]
        if not page["more"]:
            break
    assert {row["scope"] for row in came} == {tech}
    live = {(row["entity"], row["id"], row["version"]) for row in came if row["op"] == "put"}
    told = scopes_of(page)[tech]
    assert (told["count"], told["checksum"]) == (len(live), checksum(live))
    assert [row["id"] for row in device.pull()] == [work_order], "the main cursor stays where it was"
    for scope in (f"tech:{company.colleague}", f"depot:{company.depot}", "tech:none", "*", "x"):
        assert device.api.get("/v1/changes", scope=scope).status_code in {400, 404, 422}, scope


def test_last_n_is_what_is_in_the_answer(company: Company, device: Device) -> None:
    work_order = company.assigned()
    device.pull()
    device.push(note(device, work_order), note(device, work_order))
    device.pull()
    assert device.last["last_n"] == 2
    page = ok(device.api.get("/v1/changes"))
    assert page.get("last_n") in (None, 0), "no replica was named"


def test_durable_n_follows_what_the_backup_job_says(server: Server, company: Company, device: Device) -> None:
    work_order = company.assigned()
    device.push(note(device, work_order))
    device.pull()
    assert device.last["durable_n"] in (0, 1)
    at = server.command("durable")
    device.push(note(device, work_order))
    server.command("durable", "--as-of", at)
    device.pull()
    assert (device.last["last_n"], device.last["durable_n"]) == (2, 1)


def test_a_cursor_is_good_for_its_device_only(company: Company, device: Device) -> None:
    device.pull()
    other = company.device()
    assert device.cursor
    refused(other.api.get("/v1/changes", cursor=device.cursor), 400, "invalid_cursor")
    turned = device.cursor[:-2] + ("AA" if device.cursor[-2:] != "AA" else "BB")
    for wrong in ("x", "\u0000", turned, device.cursor + "A", device.cursor[:-1], "A" * 2000, "0"):
        refused(device.api.get("/v1/changes", cursor=wrong), 400, "invalid_cursor")
    ok(device.api.get("/v1/changes", cursor=device.cursor))


@pytest.mark.parametrize(
    "asked",
    [
        {"limit": "0"},
        {"limit": "5001"},
        {"limit": "-1"},
        {"limit": "x"},
        {"limit": "9" * 30},
        {"wait": "-1"},
        {"wait": "26"},
        {"wait": "x"},
        {"wait": "nan"},
        {"wait": "inf"},
        {"replica": "ä"},
        {"replica": "x" * 65},
    ],
    ids=str,
)
def test_a_pull_of_the_wrong_shape_is_refused(device: Device, asked: Json) -> None:
    assert device.api.get("/v1/changes", **asked).status_code in {400, 404, 422}


def test_a_page_may_be_of_five_thousand(device: Device) -> None:
    ok(device.api.get("/v1/changes", limit=5000))
    ok(device.api.get("/v1/changes", limit=1, wait=0))


def test_an_old_app_may_push_and_is_asked_to_upgrade_when_it_pulls(
    server: Server, company: Company, device: Device
) -> None:
    old = server.api(device.api.token, app_version="0.9.9")
    refused(old.get("/v1/changes"), 426, "upgrade_required")
    pushed = device.envelope([note(device, company.assigned())])
    assert ok(old.post("/v1/push", pushed))["results"][0]["status"] == "applied"
    both = ok(old.post("/v1/sync", {"push": pushed, "cursor": None}))
    assert both["push"]["results"][0]["duplicate"] is True
    assert both["pull"]["problem"]["code"] == "upgrade_required"
    ok(server.api(device.api.token, app_version="10.0.0").get("/v1/changes"))


# Waiting


def test_a_long_poll_is_answered_when_something_changes(company: Company, device: Device) -> None:
    device.pull()
    company.admin.read("technicians", company.technician)
    started = time.monotonic()
    act = in_a_moment(company.assigned)
    page = ok(device.api.get("/v1/changes", cursor=device.cursor, wait=20))
    act.join()
    assert [row["entity"] for row in page["changes"]] == ["work_order"]
    assert 0.2 < time.monotonic() - started < 10


def test_a_long_poll_of_nothing_ends_when_it_said(device: Device) -> None:
    device.pull()
    started = time.monotonic()
    page = ok(device.api.get("/v1/changes", cursor=device.cursor, wait=1))
    assert (page["changes"], page["more"]) == ([], False)
    assert 0.8 < time.monotonic() - started < 10


def test_a_long_poll_with_news_does_not_wait(company: Company, device: Device) -> None:
    device.pull()
    company.assigned()
    started = time.monotonic()
    assert ok(device.api.get("/v1/changes", cursor=device.cursor, wait=20))["changes"]
    assert time.monotonic() - started < 5


def test_the_stream_pokes_when_something_changes(company: Company, device: Device) -> None:
    device.pull()
    with device.api.http.stream("GET", "/v1/changes/stream", timeout=20) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].split(";")[0] == "text/event-stream"
        assert answer.headers["X-Correlation-Id"]
        act = in_a_moment(company.assigned)
        event: dict[str, str] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(":")
            if name:
                event[name] = value.strip()
            elif event.get("event") == "poke" and json.loads(event["data"])["seq"] > device.last["as_of"]:
                break
        act.join()
    assert re.fullmatch(r"[0-9]+", str(json.loads(event["data"])["seq"]))
    assert json.loads(event["data"]).keys() == {"seq"}
    assert device.pull()


def test_streams_and_pulls_are_for_devices_with_a_token(nobody: Api) -> None:
    for path in ("/v1/changes", "/v1/changes/stream"):
        refused(nobody.get(path), 401, "unauthorized")
    refused(nobody.post("/v1/sync", {"push": None, "cursor": None}), 401, "unauthorized")
    refused(nobody.post("/v1/push", {}), 401, "unauthorized")


# Both at once


def sync(device: Device, push: Json | None, cursor: str | None, **more: Any) -> Json:
    return ok(device.api.post("/v1/sync", {"push": push, "cursor": cursor} | more))


def test_a_sync_pushes_and_pulls_in_one_call(company: Company, device: Device) -> None:
    work_order = company.assigned()
    first = sync(device, None, None, limit=1000)
    assert first["push"] is None
    check_page(first["pull"])
    written = note(device, work_order)
    both = sync(device, device.envelope([written]), first["pull"]["cursor"])
    assert both["push"]["results"][0]["status"] == "applied"
    assert [row["id"] for row in both["pull"]["changes"]] == [written["id"]]
    assert both["pull"]["last_n"] == 1
    again = sync(device, device.envelope([written]), both["pull"]["cursor"])
    assert again["push"]["results"][0]["duplicate"] is True
    assert again["pull"]["changes"] == []
    assert len(sync(device, None, None, limit=1)["pull"]["changes"]) == 1


def test_a_sync_whose_pull_fails_still_pushed(company: Company, device: Device) -> None:
    written = note(device, company.assigned())
    both = sync(device, device.envelope([written]), "rubbish")
    assert both["push"]["results"][0]["status"] == "applied"
    problem = both["pull"]["problem"]
    assert problem.keys() >= {"type", "title", "status", "detail", "code", "retryable", "correlation_id"}
    assert (problem["status"], problem["code"]) == (400, "invalid_cursor")
    assert company.admin.read("notes", written["id"])["text"] == "x"


def test_a_sync_whose_push_is_refused_says_so(company: Company, device: Device) -> None:
    ahead = note(device, company.assigned()) | {"n": 5}
    body = {"push": device.envelope([ahead]), "cursor": None}
    assert refused(device.api.post("/v1/sync", body), 409, "mutation_gap")["expected"] == 1
    for body in (
        {"push": 7},
        {"push": []},
        {"push": None, "cursor": 7},
        {"push": None, "limit": 0},
        {"push": None, "limit": "x"},
    ):
        assert device.api.post("/v1/sync", body).status_code in {400, 422}, body


# After a restore


def test_a_new_epoch_asks_every_device_to_start_again(server: Server, company: Company, device: Device) -> None:
    work_order = company.assigned()
    device.push(note(device, work_order))
    device.pull()
    epoch = device.joined["feed_epoch"]
    server.command("epoch", "rotate")
    refused(device.api.get("/v1/changes", cursor=device.cursor), 410, "epoch_changed")
    refused(device.api.get("/v1/changes", cursor=device.cursor, wait=5), 410, "epoch_changed")
    both = sync(device, device.envelope([note(device, work_order)]), device.cursor)
    assert both["push"]["results"][0]["status"] == "applied"
    assert both["pull"]["problem"]["code"] == "epoch_changed"
    device.cursor = None
    device.pull()
    base = device.base("work_order", work_order)
    changed = company.admin.change("work-orders", work_order, title="after")
    later = company.device()
    assert later.joined["feed_epoch"] != epoch
    assert changed["version"] >= 2**32 + 1
    assert changed["version"] % 2**32 == 1
    result = device.do("work_order", work_order, "update", {"resolution": "x"}, base=base, was={"resolution": None})
    assert result["status"] == "applied"
    assert device.pull()
