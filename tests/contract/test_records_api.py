"""The office's view of records: every entity by the same six endpoints."""

from __future__ import annotations

from typing import Any

import pytest

from sync.entities import ENTITY_TYPES
from tests.support.api import Api, Caller


@pytest.fixture
def office(api: Api) -> Caller:
    return api.office("dispatcher")


@pytest.fixture
def order(api: Api) -> str:
    return api.add_work_order(None)


# -- one record ---------------------------------------------------------------------------------------------------


def test_a_created_record_is_its_fields_beside_what_names_it(api: Api, office: Caller) -> None:
    order = api.new("WO")

    got = office.post("/v1/work-orders", {"id": order, "title": "Fix the pump", "priority": "high"})

    assert got.status_code == 201
    assert (got.headers["ETag"], got.headers["Location"]) == ('"1"', f"/v1/work-orders/{order}")
    assert (got.json["id"], got.json["version"], got.json["clock"]) == (order, 1, {"hub": 1})
    assert (got.json["title"], got.json["priority"], got.json["status"]) == ("Fix the pump", "high", "draft")
    assert office.get(got.headers["Location"]).json == got.json


def test_an_id_that_is_taken_is_told_with_what_stands_there(office: Caller, order: str) -> None:
    got = office.post("/v1/work-orders", {"id": order, "title": "Another"})

    assert (got.status_code, got.json["code"]) == (409, "exists")
    assert got.json["current"] == office.get(f"/v1/work-orders/{order}").json


def test_a_change_needs_to_say_what_it_saw(office: Caller, order: str) -> None:
    assert office.patch(f"/v1/work-orders/{order}", {"title": "x"}).status_code == 428
    assert office.delete(f"/v1/work-orders/{order}").status_code == 428


@pytest.mark.parametrize("tag", ['"2"', 'W/"1"', "1", '"1", "2"', '"x"', '"01"', '"-1"', '""'])
def test_a_change_of_what_has_changed_is_refused_with_what_stands(office: Caller, order: str, tag: str) -> None:
    path = f"/v1/work-orders/{order}"

    got = office.call("PATCH", path, {"title": "x"}, {"If-Match": tag})

    assert (got.status_code, got.json["code"]) == (412, "stale")
    assert got.json["current"] == office.get(path).json


def test_a_change_writes_the_fields_given_and_leaves_the_others(office: Caller, order: str) -> None:
    got = office.patch(f"/v1/work-orders/{order}", {"priority": "emergency"}, 1)

    assert (got.status_code, got.headers["ETag"]) == (200, '"2"')
    assert (got.json["priority"], got.json["title"]) == ("emergency", "Fix the pump")


def test_null_clears_a_field(office: Caller, order: str) -> None:
    office.patch(f"/v1/work-orders/{order}", {"description": "leaks"}, 1)

    assert office.patch(f"/v1/work-orders/{order}", {"description": None}, 2).json["description"] is None


def test_a_set_takes_additions_and_removals(office: Caller, order: str) -> None:
    office.patch(f"/v1/work-orders/{order}", {"tags": {"$add": ["urgent", "roof"]}}, 1)
    got = office.patch(f"/v1/work-orders/{order}", {"tags": {"$remove": ["roof"]}}, 2)

    assert got.json["tags"] == ["urgent"]


def test_whoever_does_not_care_what_stands_says_so(office: Caller, order: str) -> None:
    assert office.patch(f"/v1/work-orders/{order}", {"title": "x"}, "*").status_code == 200


def test_a_deleted_record_is_gone_from_lists_and_reads_but_not_from_history(office: Caller, order: str) -> None:
    got = office.delete(f"/v1/work-orders/{order}", 1)

    assert (got.status_code, got.data) == (204, b"")
    assert office.get(f"/v1/work-orders/{order}").status_code == 404
    assert office.delete(f"/v1/work-orders/{order}", 1).status_code == 404
    assert office.get(f"/v1/work-orders?id={order}").json["items"] == []
    assert office.get(f"/v1/work-orders/{order}/history").status_code == 200


def test_an_office_write_reaches_the_device(api: Api, office: Caller) -> None:
    device = api.enrol(api.add_technician())
    cursor = device.pull().json["cursor"]
    order = api.add_work_order(device.technician)
    office.patch(f"/v1/work-orders/{order}", {"title": "Fix it now"}, 1)

    (change,) = device.pull(cursor=cursor).json["changes"]

    assert (change["id"], change["version"], change["data"]["title"]) == (order, 2, "Fix it now")


def test_a_device_may_look_at_what_it_holds(api: Api) -> None:
    device = api.enrol(api.add_technician())
    order = api.add_work_order(device.technician)

    assert device.get(f"/v1/work-orders/{order}").json["id"] == order
    assert [item["id"] for item in device.get("/v1/work-orders").json["items"]] == [order]
    assert device.patch(f"/v1/work-orders/{order}", {"title": "x"}, 1).status_code == 403


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"id": "a b", "title": "x"},
        {"id": 7, "title": "x"},
        {"id": "WO-bad"},
        {"id": "WO-bad", "title": 7},
        {"id": "WO-bad", "title": None},
        {"id": "WO-bad", "title": "x" * 201},
        {"id": "WO-bad", "title": "x", "colour": "red"},
        {"id": "WO-bad", "title": "x", "priority": "huge"},
        {"id": "WO-bad", "title": "x", "scheduled_start": "tomorrow"},
        {"id": "WO-bad", "title": "x", "assignee_id": "T-nobody"},
        {"id": "WO-bad", "title": "x", "meter_reading": 7},
        {"id": "WO-bad", "title": "x", "version": 3},
        {"id": "WO-bad", "title": "x", "clock": {"hub": 9}},
        {"id": "WO-bad", "title": "x", "tags": {"$inc": "1"}},
        [],
        "x",
    ],
)
def test_what_does_not_fit_its_declaration_is_refused_and_nothing_is_made(api: Api, office: Caller, body: Any) -> None:
    got = office.post("/v1/work-orders", body)

    assert got.status_code == 422, got.text
    assert office.get("/v1/work-orders?id=WO-bad").json["items"] == []


def server_fields() -> list[tuple[str, str]]:
    return [(e.name, f.name) for e in ENTITY_TYPES.values() for f in e.fields.values() if f.server]


@pytest.mark.parametrize(("entity", "field"), server_fields())
def test_a_field_that_only_the_server_writes_is_refused(api: Api, entity: str, field: str) -> None:
    plural = ENTITY_TYPES[entity].plural

    got = api.office().post(f"/v1/{plural}", {"id": api.new("X"), field: "1"})

    assert (got.status_code, got.json["code"]) == (422, "server_field")


def test_a_role_may_not_write_a_field_that_is_not_its_own(api: Api, order: str) -> None:
    got = api.office("inventory_controller").patch(f"/v1/work-orders/{order}", {"title": "x", "priority": "low"}, 1)

    assert (got.status_code, got.json["code"]) == (403, "forbidden")


def test_a_step_that_the_table_does_not_have_is_refused(office: Caller, order: str) -> None:
    assert office.patch(f"/v1/work-orders/{order}", {"status": "closed"}, 1).status_code in (403, 422)
    assert office.patch(f"/v1/work-orders/{order}", {"status": "ready"}, 1).status_code == 200


# -- lists --------------------------------------------------------------------------------------------------------


@pytest.fixture
def depot(api: Api) -> str:
    return api.add_depot()


def test_lists_are_filtered_by_any_declared_field(api: Api, office: Caller, depot: str) -> None:
    technician = api.add_technician()
    order = api.add_work_order(
        technician,
        depot,
        priority="high",
        is_test=True,
        tags=["roof"],
        scheduled_start="2026-05-01T10:00:00+02:00",
    )
    api.add_work_order(None, depot)

    for wanted in (
        f"assignee_id={technician}",
        "priority=high",
        "is_test=true",
        "tags=roof",
        "scheduled_start=2026-05-01T08:00:00Z",
        f"id={order}",
        "title=Fix the pump&priority=high",
    ):
        items = office.get(f"/v1/work-orders?depot_id={depot}&{wanted}").json["items"]
        assert [item["id"] for item in items] == [order], wanted


def test_an_empty_filter_finds_records_without_a_value(api: Api, office: Caller, depot: str) -> None:
    api.add_work_order(api.add_technician(), depot)
    free = api.add_work_order(None, depot)

    items = office.get(f"/v1/work-orders?depot_id={depot}&assignee_id=").json["items"]

    assert [item["id"] for item in items] == [free]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("colour=red", "unknown_filter"),
        ("sort=colour", "invalid"),
        ("sort=tags", "invalid"),
        ("limit=0", "invalid"),
        ("limit=501", "invalid"),
        ("meter_reading=many", "invalid"),
        ("is_test=maybe", "invalid"),
        ("scheduled_start=tomorrow", "invalid"),
        ("priority=low&priority=high", "invalid"),
        ("title=%00", "invalid"),
        ("signature=%7B", "invalid"),
    ],
)
def test_a_list_asked_for_wrongly_says_where(office: Caller, query: str, code: str) -> None:
    got = office.get(f"/v1/work-orders?{query}")

    assert (got.status_code, got.json["code"]) == (422, code)


def test_an_after_of_another_list_is_refused(office: Caller) -> None:
    assert office.get("/v1/work-orders?after=abc").json["code"] == "invalid_cursor"


@pytest.mark.parametrize(
    "sort", ["id", "-id", "meter_reading", "-meter_reading", "scheduled_start", "-title", "version"]
)
def test_pages_together_are_the_list_in_order(api: Api, office: Caller, depot: str, sort: str) -> None:
    values: list[dict[str, Any]] = [
        {"meter_reading": "10", "scheduled_start": "2026-05-01T10:00:00+02:00", "title": "b"},
        {"meter_reading": "9.5", "scheduled_start": "2026-05-01T08:00:00Z", "title": "a"},
        {"meter_reading": "9.5", "scheduled_start": "2026-05-01T09:00:00+23:59", "title": "c"},
        {"title": "a"},
        {"meter_reading": "100", "scheduled_start": "2026-04-01T08:00:00Z", "title": "Z"},
    ]
    made = {api.add_work_order(None, depot, **one) for one in values}
    path = f"/v1/work-orders?depot_id={depot}&sort={sort}"

    at_once = [item["id"] for item in office.get(path).json["items"]]
    in_pieces: list[str] = []
    after: str | None = ""
    while after is not None:
        page = office.get(f"{path}&limit=2" + (f"&after={after}" if after else "")).json
        in_pieces += [item["id"] for item in page["items"]]
        after = page["next"]

    assert set(at_once) == made
    assert in_pieces == at_once
    if sort.endswith("meter_reading"):
        readings = [item.get("meter_reading") for item in office.get(path).json["items"]]
        expected = ["9.5", "9.5", "10", "100"]
        assert readings == [*(expected if sort[0] != "-" else expected[::-1]), None]


@pytest.mark.parametrize("name", sorted(ENTITY_TYPES))
def test_every_entity_can_be_sorted_by_all_that_its_document_names(api: Api, name: str) -> None:
    plural = ENTITY_TYPES[name].plural
    parameters = api.nobody().get("/v1/openapi.json").json["paths"][f"/v1/{plural}"]["get"]["parameters"]
    (sorts,) = [p["schema"]["enum"] for p in parameters if p["name"] == "sort"]

    for sort in sorts:
        assert api.office().get(f"/v1/{plural}?sort={sort}&limit=2").status_code == 200, sort


# -- history ------------------------------------------------------------------------------------------------------


def test_the_history_tells_who_changed_what_newest_first(api: Api) -> None:
    device = api.enrol(api.add_technician())
    order = api.add_work_order(device.technician)
    edit = {"entity": "work_order", "id": order, "base": {"hub": 1}, "patch": {"resolution": "belt replaced"}}
    device.push({**edit, "occurred_at": "2026-01-01T00:00:00Z"})

    newest, first = api.office("auditor").get(f"/v1/work-orders/{order}/history").json["items"]

    assert (newest["version"], first["version"]) == (2, 1)
    assert newest["actor"] == {
        "kind": "device", "id": f"device:{device.enrolment['device_id']}", "replica": device.replica, "n": 1,
    }  # fmt: skip
    assert first["actor"]["kind"] == "office"
    (field,) = newest["fields"]
    assert (field["name"], field["before"], field["after"]) == ("resolution", None, "belt replaced")
    assert newest["recorded_at"] >= newest["occurred_at"]


def test_a_long_history_is_read_page_by_page(office: Caller, order: str) -> None:
    for version in range(1, 5):
        office.patch(f"/v1/work-orders/{order}", {"title": f"Title {version}"}, version)

    versions: list[int] = []
    after: str | None = ""
    while after is not None:
        page = office.get(f"/v1/work-orders/{order}/history?limit=2" + (f"&after={after}" if after else "")).json
        versions += [item["version"] for item in page["items"]]
        after = page["next"]

    assert versions == [5, 4, 3, 2, 1]


def test_office_writes_are_in_the_audit(api: Api, office: Caller, order: str) -> None:
    office.patch(f"/v1/work-orders/{order}", {"title": "Secret title"}, 1)
    office.delete(f"/v1/work-orders/{order}", 2)

    entries = api.office("auditor").get(f"/v1/audit?subject=work_order:{order}").json["items"]

    assert [e["action"] for e in entries] == ["work_order.delete", "work_order.update", "work_order.create"]
    assert entries[1]["detail"]["fields"] == ["title"]
    assert "Secret" not in str(entries)
