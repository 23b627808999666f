"""Section 8: the office's records, one by one and in lists."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.client import Api, Company, Device, Json, Server, is_moment, new_id, now, ok, refused

PLURALS = [
    "technicians",
    "locations",
    "parts",
    "work-orders",
    "tasks",
    "notes",
    "toolkit-items",
    "part-consumptions",
    "discrepancies",
    "rmas",
]


def a_record(shared: Company, plural: str) -> tuple[Json, Json]:
    """What to create, and what to change then."""
    work_order = shared.work_order()
    made: dict[str, tuple[Json, Json]] = {
        "technicians": ({"name": "x", "depot_id": shared.depot}, {"name": "y"}),
        "locations": ({"name": "x", "kind": "bin", "depot_id": shared.depot}, {"name": "y"}),
        "parts": ({"number": "x", "name": "x", "uom": "pcs"}, {"name": "y"}),
        "work-orders": ({"title": "x", "depot_id": shared.depot}, {"title": "y"}),
        "tasks": ({"work_order_id": work_order, "title": "x"}, {"title": "y"}),
        "notes": ({"parent": {"entity": "work_order", "id": work_order}, "text": "x"}, {"text": "y"}),
        "toolkit-items": ({"location_id": shared.van, "part_id": shared.part, "minimum": "1"}, {"minimum": "2"}),
        "part-consumptions": (
            {"work_order_id": work_order, "part_id": shared.part, "quantity": "1", "uom": "pcs", "occurred_at": now()},
            {"quantity": "2"},
        ),
        "discrepancies": ({"location_id": shared.van, "part_id": shared.part, "counted": "3"}, {"counted": "4"}),
        "rmas": ({"part_id": shared.part, "quantity": "1", "work_order_id": work_order}, {"reason": "defective"}),
    }
    return made[plural]


@pytest.mark.parametrize("plural", PLURALS)
def test_a_record_is_made_read_changed_and_deleted(shared: Company, plural: str) -> None:
    admin = shared.admin
    body, change = a_record(shared, plural)
    body = body | {"id": new_id("X")}
    path = f"/v1/{plural}/{body['id']}"
    if plural == "rmas":
        kinds = ok(admin.get("/v1/schema"))["entities"]["rma"]["fields"]["type"]["choices"]
        body["type"] = kinds[0]

    made = admin.post(f"/v1/{plural}", body)
    record = ok(made, 201)
    assert made.headers["Location"].endswith(path)
    assert made.headers["ETag"].strip('"') == str(record["version"])
    assert record.keys() >= {"id", "version", "clock", "updated_at"} | body.keys()
    assert record["version"] == record["clock"]["hub"]
    assert is_moment(record["updated_at"])
    assert "data" not in record

    read = admin.get(path)
    assert ok(read) == record
    assert read.headers["ETag"] == made.headers["ETag"]

    again = refused(admin.post(f"/v1/{plural}", body), 409, "exists")
    assert again["current"] == record

    refused(admin.patch(path, change), 428, "precondition_required")
    refused(admin.delete(path), 428, "precondition_required")

    changed = admin.patch(path, change, If_Match=made.headers["ETag"])
    after = ok(changed)
    assert after["version"] > record["version"]
    assert changed.headers["ETag"].strip('"') == str(after["version"])
    assert ok(admin.get(path)) == after

    stale = refused(admin.patch(path, change, If_Match=made.headers["ETag"]), 412, "stale")
    assert stale["current"] == after
    stale = refused(admin.delete(path, If_Match=made.headers["ETag"]), 412, "stale")
    assert stale["current"] == after

    listed = ok(admin.get(f"/v1/{plural}", id=body["id"]))["items"]
    assert listed == [after]

    history = ok(admin.get(f"{path}/history"))["items"]
    assert [entry["version"] for entry in history] == [after["version"], record["version"]]
    for entry in history:
        assert entry.keys() >= {"version", "recorded_at", "occurred_at", "actor", "fields", "review_id"}
        assert is_moment(entry["recorded_at"])
        assert entry["actor"].keys() >= {"kind", "id", "replica", "n"}
        assert entry["actor"]["kind"] == "office"
        for field in entry["fields"]:
            assert field.keys() >= {"name", "before", "after", "sent", "policy", "kept", "why"}
    ((name, value),) = change.items()
    (field,) = [field for field in history[0]["fields"] if field["name"] == name]
    assert (field["before"], field["after"]) == (record.get(name), after[name])
    assert field["after"] == value or float(field["after"]) == float(value)

    gone = admin.delete(path, If_Match=changed.headers["ETag"])
    assert (gone.status_code, gone.content) == (204, b"")
    refused(admin.get(path), 404, "not_found")
    refused(admin.patch(path, change, If_Match=changed.headers["ETag"]), 404, "not_found")
    refused(admin.delete(path, If_Match=changed.headers["ETag"]), 404, "not_found")
    assert ok(admin.get(f"/v1/{plural}", id=body["id"]))["items"] == []


@pytest.mark.parametrize("plural", PLURALS)
def test_every_declared_field_is_a_filter(admin: Api, plural: str) -> None:
    declared = next(each for each in ok(admin.get("/v1/schema"))["entities"].values() if each["plural"] == plural)
    samples = {
        "integer": "7",
        "decimal": "1.50",
        "boolean": "true",
        "moment": "2026-11-20T10:15:00+01:00",
        "date": "2026-11-20",
    }
    for name, field in declared["fields"].items():
        value = field["choices"][0] if field["type"] == "choice" else samples.get(field["type"], "none-such")
        if field.get("target") == "*":
            value = "work_order:none-such"
        answer = admin.get(f"/v1/{plural}", **{name: value})
        assert answer.status_code == 200 or field["type"] == "object", (name, answer.text)
        for sort in (name, f"-{name}"):
            assert admin.get(f"/v1/{plural}", sort=sort).status_code in {200, 422}, name
        for wrong in ("\u0000", "'", "x" * 1000, ""):
            assert admin.get(f"/v1/{plural}", **{name: wrong}).status_code in {200, 400, 422}, (name, wrong)


def test_filters_find_what_has_the_value(company: Company) -> None:
    moment, part = "2027-03-04T05:06:07+00:00", new_id("P")
    found = company.work_order(due_at=moment, meter_reading="7.5", is_test=True, tags=["red"], priority="high")
    company.work_order()
    company.admin.create("parts", id=part, number=part, name="x", shelf_life_days=77)
    mine = {"depot_id": company.depot}
    for asked in (
        {"due_at": moment},
        {"due_at": "2027-03-04T06:06:07+01:00"},
        {"meter_reading": "7.5"},
        {"meter_reading": "7.50"},
        {"is_test": "true"},
        {"priority": "high"},
        {"priority": "high", "is_test": "true"},
    ):
        items = ok(company.admin.get("/v1/work-orders", **(mine | asked)))["items"]
        assert [item["id"] for item in items] == [found], asked
    items = ok(company.admin.get("/v1/parts", number=part, shelf_life_days="77"))["items"]
    assert [item["id"] for item in items] == [part]


ETAGS = ['"0"', '"x"', "x", "", 'W/"1"', "\u00e4", '"' + "9" * 40 + '"']


@pytest.mark.parametrize("etag", ETAGS)
def test_an_if_match_of_something_else_changes_nothing(shared: Company, etag: str) -> None:
    work_order = shared.work_order()
    before = shared.admin.read("work-orders", work_order)
    headers = {"If-Match": etag.encode()}
    for method, body in (("PATCH", {"title": "new"}), ("DELETE", None)):
        answer = shared.admin.send(method, f"/v1/work-orders/{work_order}", json=body, headers=headers)
        assert answer.status_code in {400, 412, 428}, answer.text
        assert shared.admin.read("work-orders", work_order) == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"title": None},
        {"title": 7},
        {"title": "x" * 201},
        {"status": "eaten"},
        {"meter_reading": "x"},
        {"due_at": "x"},
        {"is_test": "yes"},
        {"tags": "x"},
        {"tags": [7]},
        {"assignee_id": "T-NONE"},
        {"assignee_id": 7},
        {"depot_id": "WH-NONE"},
    ],
    ids=str,
)
def test_a_value_of_the_wrong_shape_is_refused_and_named(shared: Company, wrong: Json) -> None:
    body = {"id": new_id("WO"), "title": "x", "depot_id": shared.depot} | wrong
    refused(shared.admin.post("/v1/work-orders", body), 422)
    refused(shared.admin.get(f"/v1/work-orders/{body['id']}"), 404, "not_found")
    work_order = shared.work_order()
    etag = shared.admin.get(f"/v1/work-orders/{work_order}").headers["ETag"]
    refused(shared.admin.patch(f"/v1/work-orders/{work_order}", wrong, If_Match=etag), 422)
    assert shared.admin.get(f"/v1/work-orders/{work_order}").headers["ETag"] == etag


def test_fields_of_the_server_are_not_written(shared: Company) -> None:
    body = {"id": new_id("TI"), "location_id": shared.van, "part_id": shared.part, "on_hand": "5"}
    refused(shared.admin.post("/v1/toolkit-items", body), 422, "server_field")
    made = shared.admin.create("toolkit-items", **{key: value for key, value in body.items() if key != "on_hand"})
    path = f"/v1/toolkit-items/{made['id']}"
    refused(shared.admin.patch(path, {"reserved": "1"}, If_Match=f'"{made["version"]}"'), 422, "server_field")


def test_a_change_of_nothing_is_no_change_of_content(shared: Company) -> None:
    work_order = shared.work_order()
    before = shared.admin.read("work-orders", work_order)
    after = shared.admin.change("work-orders", work_order)
    assert after["title"] == before["title"]
    assert after["version"] >= before["version"]


def test_an_office_write_goes_to_the_devices(company: Company) -> None:
    device = company.device()
    work_order = company.assigned()
    device.pull()
    after = company.server.office("dispatcher").change("work-orders", work_order, priority="emergency")
    (row,) = device.pull()
    assert (row["id"], row["version"], row["clock"]) == (work_order, after["version"], after["clock"])
    assert row["data"]["priority"] == "emergency"
    assert row["clock"].keys() == {"hub"}


def test_history_names_the_device_that_wrote_and_why_it_stands(company: Company) -> None:
    one, two = company.device(), company.device()
    work_order = company.assigned()
    one.pull(), two.pull()
    base = one.base("work_order", work_order)
    one.do("work_order", work_order, "update", {"meter_reading": "9"}, base=base, was={"meter_reading": None})
    two.do("work_order", work_order, "update", {"meter_reading": "7"}, base=base, was={"meter_reading": None})
    two.do("work_order", work_order, "update", {"resolution": "x"}, base=base, was={"resolution": None})
    history = company.admin.history("work-orders", work_order)
    versions = [entry["version"] for entry in history]
    assert versions == sorted(versions, reverse=True)
    actors = [(entry["actor"]["kind"], entry["actor"]["replica"], entry["actor"]["n"]) for entry in history]
    assert ("device", one.replica, 1) in actors
    assert ("device", two.replica, 2) in actors
    lost = [f for entry in history for f in entry["fields"] if f["name"] == "meter_reading" and f["kept"] == "current"]
    assert [float(field["sent"]) for field in lost] == [7]
    assert lost[0]["policy"] == "largest"
    assert lost[0]["why"]
    page = ok(company.admin.get(f"/v1/work-orders/{work_order}/history", limit=1))
    assert len(page["items"]) == 1
    rest = ok(company.admin.get(f"/v1/work-orders/{work_order}/history", limit=500, after=page["next"]))
    assert page["items"] + rest["items"] == history


def test_history_tells_a_system_from_a_person(server: Server, company: Company) -> None:
    erp = server.office("integration", "--system", "erp")
    erp.change("parts", company.part, name="Belt, long")
    assert [entry["actor"]["kind"] for entry in company.admin.history("parts", company.part)] == ["system", "office"]


def test_who_sees_a_depot_sees_that_depot(server: Server, company: Company) -> None:
    other = Company.found(server)
    mine, theirs = company.work_order(), other.work_order()
    local = server.office("dispatcher", "--scope", f"depot:{company.depot}")
    listed = [item["id"] for item in ok(local.get("/v1/work-orders", limit=500))["items"]]
    assert mine in listed
    assert theirs not in listed
    ok(local.get(f"/v1/work-orders/{mine}"))
    refused(local.get(f"/v1/work-orders/{theirs}"), 404, "not_found")
    body = {"id": new_id("WO"), "title": "x", "depot_id": other.depot}
    hidden = local.post("/v1/work-orders", body)
    none = local.post("/v1/work-orders", body | {"depot_id": new_id("WH")})
    assert hidden.status_code == none.status_code
    assert hidden.status_code in {404, 422}
    assert hidden.json()["code"] == none.json()["code"]


def test_a_device_sees_its_scopes_and_writes_by_push_only(company: Company) -> None:
    device: Device = company.device()
    work_order, other = company.assigned(), company.assigned(assignee_id=company.colleague)
    etag = company.admin.get(f"/v1/work-orders/{work_order}").headers["ETag"]
    for call in (
        device.api.post("/v1/work-orders", {"id": new_id("WO"), "title": "x"}),
        device.api.patch(f"/v1/work-orders/{work_order}", {"title": "x"}, If_Match=etag),
        device.api.delete(f"/v1/work-orders/{work_order}", If_Match=etag),
        device.api.get("/v1/devices"),
        device.api.get("/v1/audit"),
        device.api.get("/v1/conflicts"),
    ):
        assert call.status_code in {403, 404}, call.request.url
    assert company.admin.read("work-orders", work_order)["title"] == "Belt"
    assert device.api.get(f"/v1/work-orders/{other}").status_code in {403, 404}
    assert device.api.get(f"/v1/work-orders/{other}/history").status_code in {403, 404}
    listed = device.api.get("/v1/work-orders", limit=500)
    assert listed.status_code == 403 or {item["id"] for item in ok(listed)["items"]} == {work_order}


def test_two_office_writers_never_overwrite_each_other_unseen(shared: Company) -> None:
    work_order = shared.work_order()
    etag = shared.admin.get(f"/v1/work-orders/{work_order}").headers["ETag"]
    first: Any = shared.admin.patch(f"/v1/work-orders/{work_order}", {"title": "first"}, If_Match=etag)
    second = shared.admin.patch(f"/v1/work-orders/{work_order}", {"title": "second"}, If_Match=etag)
    ok(first)
    assert refused(second, 412, "stale")["current"]["title"] == "first"
