"""Review: what waits for a person, what can be decided, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.api import Answer, Api, Caller, Device


@dataclass
class Dispute:
    """A job whose resolution two devices wrote. case_id: what waits."""

    a: Device
    b: Device
    order: str
    case_id: str


def edit(order: str, **patch: Any) -> dict[str, Any]:
    return {"entity": "work_order", "id": order, "patch": patch, "base": {"hub": 1}}


@pytest.fixture
def dispute(api: Api) -> Dispute:
    technician = api.add_technician()
    a, b = api.enrol(technician), api.enrol(technician)
    order = api.add_work_order(technician)
    a.push(edit(order, resolution="belt replaced"))
    (result,) = b.push(edit(order, resolution="pump replaced")).json["results"]
    return Dispute(a, b, order, result["review_id"])


@pytest.fixture
def reviewer(api: Api) -> Caller:
    return api.office("reviewer")


def decide(caller: Caller, case_id: str, option: str, tag: str | None = None, **more: Any) -> Answer:
    headers = {"If-Match": caller.get(f"/v1/conflicts/{case_id}").headers["ETag"] if tag is None else tag}
    body = {"option": option, "reason": "I asked them both.", **more}
    return caller.post(f"/v1/conflicts/{case_id}/resolution", body, headers)


def test_a_case_shows_what_was_what_stands_and_what_was_sent(reviewer: Caller, dispute: Dispute) -> None:
    case = reviewer.get(f"/v1/conflicts/{dispute.case_id}").json

    assert (case["status"], case["entity"], case["record_id"]) == ("open", "work_order", dispute.order)
    assert case["fields"] == [
        {
            "name": "resolution",
            "base": None,
            "current": "belt replaced",
            "incoming": "pump replaced",
            "policy": "merge3",
        }
    ]
    assert case["technician_id"] == dispute.b.technician
    assert case["evidence"]["origin"] == {"replica": dispute.b.replica, "n": 1}
    assert case["timeline"] == sorted(case["timeline"], key=lambda event: event["at"])
    assert {"opened_at", "claimed_by", "impact", "version", "base", "current", "incoming"} <= set(case)


def test_the_options_say_in_words_what_would_follow(reviewer: Caller, dispute: Dispute) -> None:
    options = {o["id"]: o for o in reviewer.get(f"/v1/conflicts/{dispute.case_id}").json["options"]}

    assert list(options) == ["current", "incoming", "values"]
    assert options["current"]["label"] == "Keep what stands now"
    assert f"Resolution of work order {dispute.order} becomes “pump replaced”." in options["incoming"]["effects"]
    assert all(effect.endswith(".") for option in options.values() for effect in option["effects"])


def test_taking_what_was_sent_writes_it_and_tells_every_device(reviewer: Caller, dispute: Dispute) -> None:
    cursor = dispute.a.pull().json["cursor"]

    got = decide(reviewer, dispute.case_id, "incoming")

    assert got.status_code == 200
    assert (got.json["status"], got.json["version"]) == ("resolved", 4)
    assert got.json["resolution"]["by"] == "user:reviewer"
    (change,) = dispute.a.pull(cursor=cursor).json["changes"]
    assert (change["version"], change["data"]["resolution"]) == (4, "pump replaced")


def test_keeping_what_stands_closes_the_case(reviewer: Caller, dispute: Dispute) -> None:
    decide(reviewer, dispute.case_id, "current")

    order = reviewer.get(f"/v1/work-orders/{dispute.order}").json
    assert order["resolution"] == "belt replaced"
    assert reviewer.get(f"/v1/conflicts/{dispute.case_id}").json["status"] == "resolved"


def test_other_values_may_be_written(reviewer: Caller, dispute: Dispute) -> None:
    got = decide(reviewer, dispute.case_id, "values", values={"resolution": "belt and pump replaced"})

    assert got.status_code == 200
    assert reviewer.get(f"/v1/work-orders/{dispute.order}").json["resolution"] == "belt and pump replaced"


def test_a_replay_does_not_open_a_decided_case_again(reviewer: Caller, dispute: Dispute) -> None:
    decide(reviewer, dispute.case_id, "current")
    dispute.b.n = 0

    (again,) = dispute.b.push(edit(dispute.order, resolution="pump replaced")).json["results"]

    assert (again["duplicate"], again["review_id"]) == (True, dispute.case_id)
    assert reviewer.get(f"/v1/conflicts/{dispute.case_id}").json["status"] == "resolved"


def test_a_decision_needs_to_say_what_it_saw(reviewer: Caller, dispute: Dispute) -> None:
    got = reviewer.post(f"/v1/conflicts/{dispute.case_id}/resolution", {"option": "current", "reason": "x"})

    assert (got.status_code, got.json["code"]) == (428, "precondition_required")


def test_a_decision_about_what_has_changed_since_is_refused(reviewer: Caller, dispute: Dispute) -> None:
    seen = reviewer.get(f"/v1/conflicts/{dispute.case_id}").headers["ETag"]
    dispute.a.push({**edit(dispute.order, resolution="belt and filter replaced"), "base": {dispute.a.replica: 1}})

    stale = decide(reviewer, dispute.case_id, "current", tag=seen)

    assert (stale.status_code, stale.json["code"]) == (412, "stale")
    assert reviewer.get(f"/v1/conflicts/{dispute.case_id}").json["status"] == "open"


def test_a_case_is_decided_once(reviewer: Caller, dispute: Dispute) -> None:
    decide(reviewer, dispute.case_id, "current")

    again = decide(reviewer, dispute.case_id, "incoming")

    assert (again.status_code, again.json["code"]) == (409, "already_resolved")
    assert again.json["resolution"]["option"] == "current"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"option": "current"},
        {"option": "current", "reason": ""},
        {"option": "maybe", "reason": "x"},
        {"option": "values", "reason": "x"},
        {"option": "values", "reason": "x", "values": {"title": "not of this case"}},
        {"option": "values", "reason": "x", "values": {"resolution": 7}},
    ],
)
def test_a_decision_that_is_none_says_where(reviewer: Caller, dispute: Dispute, body: dict[str, Any]) -> None:
    got = reviewer.post(f"/v1/conflicts/{dispute.case_id}/resolution", body, {"If-Match": "*"})

    assert got.status_code == 422
    assert got.json["errors"]
    assert reviewer.get(f"/v1/conflicts/{dispute.case_id}").json["status"] == "open"


def test_a_decision_is_in_the_audit(api: Api, reviewer: Caller, dispute: Dispute) -> None:
    decide(reviewer, dispute.case_id, "current")

    (entry,) = api.office("auditor").get(f"/v1/audit?subject=case:{dispute.case_id}").json["items"]

    assert (entry["action"], entry["actor"]) == ("conflict.resolve", "user:reviewer")
    assert entry["correlation_id"]


# -- mutations that wait whole ------------------------------------------------------------------------------------


@pytest.fixture
def stray(api: Api) -> Dispute:
    """A part was used at a job that nobody knows."""
    device = api.enrol(api.add_technician())
    used = {"work_order_id": "WO-unknown", "part_id": "P-unknown", "quantity": "1", "location_id": "L-unknown"}
    mutation = {"entity": "part_consumption", "id": api.new("PC"), "op": "create", "patch": used}
    (result,) = device.push(mutation).json["results"]
    assert result["status"] == "parked", result
    return Dispute(device, device, mutation["id"], result["review_id"])  # type: ignore[arg-type]


def test_a_fact_that_fits_nowhere_waits_whole_and_can_be_left(reviewer: Caller, stray: Dispute) -> None:
    case = reviewer.get(f"/v1/conflicts/{stray.case_id}").json
    options = {o["id"]: o["label"] for o in case["options"]}

    assert options == {
        "current": "Do not apply it", "incoming": "Apply it as it was sent", "values": "Apply it with corrections",
    }  # fmt: skip
    assert {field["name"] for field in case["fields"]} >= {"work_order_id", "part_id", "quantity"}
    assert decide(reviewer, stray.case_id, "current").status_code == 200
    assert reviewer.get(f"/v1/part-consumptions/{stray.order}").status_code == 404


def test_a_fact_that_fits_nowhere_can_be_corrected(api: Api, reviewer: Caller, stray: Dispute) -> None:
    part, order = api.new("P"), api.add_work_order(stray.a.technician)
    made = api.office().post("/v1/parts", {"id": part, "number": part, "name": "Belt", "uom": "m"})
    assert made.status_code == 201, made.text
    van = api.new("VAN")
    api.office().post("/v1/locations", {"id": van, "name": "Van", "kind": "van", "assigned_to": stray.a.technician})
    right = {"work_order_id": order, "part_id": part, "location_id": van}

    got = decide(reviewer, stray.case_id, "values", values=right)

    assert got.status_code == 200, got.text
    shown = reviewer.get(f"/v1/part-consumptions/{stray.order}").json
    assert (shown["work_order_id"], shown["part_id"], shown["quantity"]) == (order, part, "1")


def test_a_case_does_not_show_a_record_that_appeared_out_of_reach(api: Api) -> None:
    device = api.enrol(api.add_technician())
    order = api.new("WO")
    (result,) = device.push({**edit(order, resolution="x"), "op": "update"}).json["results"]
    depot = api.add_depot()
    limited = api.office("dispatcher", [f"depot:{depot}"])
    path = f"/v1/conflicts/{result['review_id']}"
    assert limited.get(path).json["record_id"] == order

    api.office().post("/v1/work-orders", {"id": order, "title": "x", "description": "secret", "resolution": "secret"})

    assert "secret" not in limited.get(path).text


# -- the list -----------------------------------------------------------------------------------------------------


def test_cases_are_filtered_by_what_the_contract_names(reviewer: Caller, dispute: Dispute) -> None:
    for wanted in ("status=open", "entity=work_order", "type=field_conflict"):
        items = reviewer.get(f"/v1/conflicts?technician={dispute.b.technician}&{wanted}").json["items"]
        assert [item["id"] for item in items] == [dispute.case_id], wanted
    (item,) = reviewer.get(f"/v1/conflicts?technician={dispute.b.technician}").json["items"]
    assert set(item) == {
        "id", "type", "status", "impact", "entity", "record_id", "fields", "technician_id", "opened_at", "claimed_by",
    }  # fmt: skip
    assert item["fields"] == ["resolution"]
    assert reviewer.get(f"/v1/conflicts?technician={dispute.b.technician}&status=resolved").json["items"] == []
    assert reviewer.get("/v1/conflicts?mood=bad").json["code"] == "unknown_filter"


def test_what_most_depends_on_comes_first(api: Api, reviewer: Caller) -> None:
    technician = api.add_technician()
    a, b = api.enrol(technician), api.enrol(technician)
    for priority in ("normal", "emergency", "high"):
        order = api.add_work_order(technician, priority=priority)
        a.push(edit(order, resolution="one"))
        b.push(edit(order, resolution="two"))
    path = f"/v1/conflicts?technician={technician}"

    at_once = reviewer.get(path).json["items"]
    first = reviewer.get(f"{path}&limit=2").json
    second = reviewer.get(f"{path}&limit=2&after={first['next']}").json

    impacts = [item["impact"] for item in at_once]
    assert impacts == sorted(impacts, reverse=True)
    assert len(set(impacts)) == 3
    assert first["items"] + second["items"] == at_once
