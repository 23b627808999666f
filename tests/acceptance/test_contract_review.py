"""Section 9: cases that a person decides."""

from __future__ import annotations

import pytest

from tests.acceptance.client import Api, Company, Device, Json, in_wire_order, is_moment, new_id, now, ok, refused


class Conflict:
    """A resolution that two devices of one technician wrote, and its case."""

    def __init__(self, company: Company) -> None:
        self.one, self.two = company.device(), company.device()
        self.work_order = company.assigned()
        self.one.pull(), self.two.pull()
        base = self.one.base("work_order", self.work_order)
        self.edit(self.one, base, "belt")
        self.result = self.edit(self.two, base, "motor")
        self.case = self.result["review_id"]

    def edit(self, device: Device, base: Json, text: str) -> Json:
        self.sent = device.mutation(
            "work_order", self.work_order, "update", {"resolution": text}, base=base, was={"resolution": None}
        )
        return device.push(self.sent)[0]


@pytest.fixture
def conflict(company: Company) -> Conflict:
    return Conflict(company)


def read(reviewer: Api, case: str) -> tuple[Json, str]:
    answer = reviewer.get(f"/v1/conflicts/{case}")
    return ok(answer), answer.headers["ETag"]


def decide(reviewer: Api, case: str, option: str, **more: object) -> Json:
    _, etag = read(reviewer, case)
    body = {"option": option, "reason": "asked the technician"} | more
    decided: Json = ok(reviewer.post(f"/v1/conflicts/{case}/resolution", body, If_Match=etag))
    return decided


def test_a_case_tells_all_that_a_person_needs(reviewer: Api, conflict: Conflict) -> None:
    case, _ = read(reviewer, conflict.case)
    assert case.keys() >= {
        "id",
        "type",
        "status",
        "impact",
        "entity",
        "record_id",
        "base",
        "current",
        "incoming",
        "fields",
        "evidence",
        "timeline",
        "options",
        "opened_at",
        "claimed_by",
    }
    assert (case["id"], case["status"], case["entity"]) == (conflict.case, "open", "work_order")
    assert case["record_id"] == conflict.work_order
    assert is_moment(case["opened_at"])
    assert case["claimed_by"] is None
    (field,) = case["fields"]
    assert field.keys() >= {"name", "base", "current", "incoming", "policy"}
    assert (field["name"], field["base"], field["current"], field["incoming"]) == ("resolution", None, "belt", "motor")
    options = {option["id"]: option for option in case["options"]}
    assert options.keys() >= {"current", "incoming", "values"}
    for option in options.values():
        assert option.keys() >= {"id", "label", "effects"}
        assert option["label"]
        assert isinstance(option["effects"], list)


def test_a_case_is_in_the_list_by_every_filter(company: Company, reviewer: Api, conflict: Conflict) -> None:
    case, _ = read(reviewer, conflict.case)
    for asked in (
        {"status": "open"},
        {"type": case["type"]},
        {"entity": "work_order"},
        {"sort": "-impact"},
        {"sort": "impact"},
        {"sort": "-opened_at"},
    ):
        body = ok(reviewer.get("/v1/conflicts", technician=company.technician, **asked))
        assert [item["id"] for item in body["items"]] == [conflict.case], asked
    (item,) = body["items"]
    assert item.keys() >= {
        "id",
        "type",
        "status",
        "impact",
        "entity",
        "record_id",
        "fields",
        "technician_id",
        "opened_at",
        "claimed_by",
    }
    assert (item["fields"], item["technician_id"]) == (["resolution"], company.technician)
    for asked in ({"status": "resolved"}, {"entity": "note"}, {"type": "none-such"}):
        answer = reviewer.get("/v1/conflicts", technician=company.technician, **asked)
        assert answer.status_code == 422 or ok(answer)["items"] == [], asked
    refused(reviewer.get(f"/v1/conflicts/{new_id('c_')}"), 404, "not_found")


def test_the_list_of_cases_is_paged(company: Company, reviewer: Api) -> None:
    cases = {Conflict(company).case for _ in range(3)}
    found: list[str] = []
    after: Json = {}
    while True:
        asked = {"technician": company.technician, "sort": "-impact", "limit": 1} | after
        body = ok(reviewer.get("/v1/conflicts", **asked))
        found += [item["id"] for item in body["items"]]
        if body["next"] is None:
            break
        after = {"after": body["next"]}
    assert sorted(found) == sorted(cases)


@pytest.mark.parametrize(
    ("option", "more", "value"),
    [
        ("current", {}, "belt"),
        ("incoming", {}, "motor"),
        ("values", {"values": {"resolution": "belt and motor"}}, "belt and motor"),
    ],
)
def test_a_decision_stands_and_flows_to_the_devices(
    company: Company, reviewer: Api, conflict: Conflict, option: str, more: Json, value: str
) -> None:
    conflict.one.pull(), conflict.two.pull()
    before = company.admin.read("work-orders", conflict.work_order)
    case = decide(reviewer, conflict.case, option, **more)
    assert case["status"] == "resolved"
    record = company.admin.read("work-orders", conflict.work_order)
    assert record["resolution"] == value
    assert case["version"] == record["version"]
    assert option == "current" or record["version"] > before["version"]
    for device in (conflict.one, conflict.two):
        device.pull()
        assert device.record("work_order", conflict.work_order)["data"]["resolution"] == value
    listed = ok(reviewer.get("/v1/conflicts", technician=company.technician, status="open"))["items"]
    assert listed == []
    history = company.admin.history("work-orders", conflict.work_order)
    assert conflict.case in [entry["review_id"] for entry in history]


def test_a_decision_is_not_opened_again_by_a_replay(company: Company, reviewer: Api, conflict: Conflict) -> None:
    decide(reviewer, conflict.case, "current")
    again = ok(conflict.two.send(conflict.sent))["results"][0]
    assert (again["duplicate"], again["review_id"]) == (True, conflict.case)
    assert read(reviewer, conflict.case)[0]["status"] == "resolved"
    assert ok(reviewer.get("/v1/conflicts", technician=company.technician, status="open"))["items"] == []


def test_a_decision_needs_to_say_what_it_saw(reviewer: Api, conflict: Conflict) -> None:
    path = f"/v1/conflicts/{conflict.case}/resolution"
    body = {"option": "current", "reason": "x"}
    refused(reviewer.post(path, body), 428, "precondition_required")
    refused(reviewer.post(path, body, If_Match='"0"'), 412, "stale")
    _, etag = read(reviewer, conflict.case)
    for wrong in ({"option": "none-such"}, {"option": None}, {"option": 7}, {"values": 7}, {"reason": 7}):
        refused(reviewer.post(path, body | wrong, If_Match=etag), 422)
    for wrong in (
        {"option": "values"},
        {"option": "values", "values": {}},
        {"option": "values", "values": {"resolution": 7}},
        {"option": "values", "values": {"no_such_field": "x"}},
        {"option": "values", "values": {"resolution": {"$inc": "1"}}},
    ):
        refused(reviewer.post(path, body | wrong, If_Match=etag), 422)
    refused(reviewer.post(path, {"option": "current"}, If_Match=etag), 422)
    assert read(reviewer, conflict.case) == (read(reviewer, conflict.case)[0], etag)
    assert read(reviewer, conflict.case)[0]["status"] == "open"
    refused(reviewer.post(f"/v1/conflicts/{new_id('c_')}/resolution", body, If_Match=etag), 404, "not_found")


def test_a_case_is_decided_once(reviewer: Api, conflict: Conflict) -> None:
    decide(reviewer, conflict.case, "current")
    _, etag = read(reviewer, conflict.case)
    path = f"/v1/conflicts/{conflict.case}/resolution"
    refused(reviewer.post(path, {"option": "incoming", "reason": "x"}, If_Match=etag), 409, "already_resolved")


def test_a_case_whose_field_moved_on_is_stale(company: Company, reviewer: Api, conflict: Conflict) -> None:
    _, etag = read(reviewer, conflict.case)
    later = {"resolution": "motor and fan"}
    base = {"hub": company.admin.read("work-orders", conflict.work_order)["version"] - 1, conflict.two.replica: 1}
    conflict.two.do("work_order", conflict.work_order, "update", later, base=base, was={"resolution": "motor"})
    body = {"option": "incoming", "reason": "x"}
    answer = reviewer.post(f"/v1/conflicts/{conflict.case}/resolution", body, If_Match=etag)
    assert answer.status_code in {409, 412}
    assert company.admin.read("work-orders", conflict.work_order)["resolution"] != "motor"


def test_a_change_elsewhere_in_the_record_does_not_close_a_case(
    company: Company, reviewer: Api, conflict: Conflict
) -> None:
    company.admin.change("work-orders", conflict.work_order, title="elsewhere")
    assert decide(reviewer, conflict.case, "incoming")["status"] == "resolved"
    record = company.admin.read("work-orders", conflict.work_order)
    assert (record["title"], record["resolution"]) == ("elsewhere", "motor")


def test_a_decision_is_later_than_what_it_saw(company: Company, reviewer: Api, conflict: Conflict) -> None:
    """Who has seen the decision simply writes upon it."""
    decide(reviewer, conflict.case, "incoming")
    conflict.one.pull()
    base = conflict.one.base("work_order", conflict.work_order)
    upon = {"resolution": "motor, done"}
    result = conflict.one.do("work_order", conflict.work_order, "update", upon, base=base, was={"resolution": "motor"})
    assert result["status"] == "applied"


def test_a_parked_fact_can_be_turned_down(company: Company, reviewer: Api) -> None:
    device = company.device()
    used = {"work_order_id": company.assigned(), "part_id": "P-NONE", "quantity": "1", "occurred_at": now()}
    name = new_id("C")
    result = device.do("part_consumption", name, "create", used)
    case, _ = read(reviewer, result["review_id"])
    assert "P-NONE" in in_wire_order(case["incoming"])
    decided = decide(reviewer, result["review_id"], "current")
    assert decided["status"] == "resolved"
    refused(company.admin.get(f"/v1/part-consumptions/{name}"), 404, "not_found")


def test_only_who_may_decide_decides(company: Company, conflict: Conflict) -> None:
    body = {"option": "current", "reason": "x"}
    path = f"/v1/conflicts/{conflict.case}/resolution"
    office = company.server.office
    for api in (conflict.one.api, office("auditor"), office("integration", "--system", "wms")):
        refused(api.post(path, body, If_Match='"1"'), 403, "forbidden")
