"""Section 3: what becomes of mutations."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from tests.acceptance.client import (
    Api,
    Company,
    Device,
    Json,
    check_push_answer,
    in_wire_order,
    new_id,
    now,
    ok,
    refused,
)

YEARS = timedelta(days=3650)


def consumption(company: Company, work_order: str, **more: Any) -> Json:
    made = {"work_order_id": work_order, "part_id": company.part, "quantity": "1", "uom": "pcs", "line_status": "used"}
    return made | {"location_id": company.van, "occurred_at": now()} | more


def note(device: Device, work_order: str, text: str = "x", **more: Any) -> Json:
    patch = {"parent": {"entity": "work_order", "id": work_order}, "text": text}
    return device.mutation("note", new_id("N"), "create", patch, **more)


@pytest.fixture
def device(company: Company) -> Device:
    made = company.device()
    made.pull()
    return made


def edit(device: Device, work_order: str, base: Json, patch: Json, was: Json | None = None, **more: Any) -> Json:
    """Push one edit of a work order; it showed nothing in these fields, unless said otherwise. The result."""
    shown = was or dict.fromkeys(patch)
    return device.do("work_order", work_order, "update", patch, base=base, was=shown, **more)


def two_at_the_same_version(company: Company, **fields: Any) -> tuple[Device, Device, str, Json]:
    """Two devices of one technician that hold a work order, and its clock."""
    work_order = company.assigned(**fields)
    one, two = company.device(), company.device()
    one.pull(), two.pull()
    return one, two, work_order, one.base("work_order", work_order)


def status_of(api: Api, case_id: str) -> str:
    return ok(api.get(f"/v1/conflicts/{case_id}"))["status"]


# Applied


def test_an_edit_of_what_one_saw_is_applied(company: Company, device: Device) -> None:
    work_order = company.assigned()
    device.pull()
    before = device.record("work_order", work_order)
    mutation = device.mutation(
        "work_order",
        work_order,
        "update",
        {"resolution": "belt replaced"},
        base=before["clock"],
        was={"resolution": None},
        seen=device.last["as_of"],
    )
    answer = ok(device.send(mutation))
    check_push_answer(answer, [mutation])
    (result,) = answer["results"]
    assert (result["status"], result["duplicate"]) == ("applied", False)
    assert result["version"] > before["version"]
    assert result["clock"] == before["clock"] | {"hub": result["version"], device.replica: 1}
    assert answer["last_n"] == 1
    device.pull()
    row = device.record("work_order", work_order)
    assert row["data"]["resolution"] == "belt replaced"
    assert (row["version"], row["clock"]) == (result["version"], result["clock"])
    assert answer["committed_seq"] >= row["seq"]


def test_an_own_edit_upon_an_own_edit_is_applied(company: Company, device: Device) -> None:
    work_order = company.assigned()
    device.pull()
    base = device.base("work_order", work_order)
    first = device.mutation(
        "work_order", work_order, "update", {"resolution": "a"}, base=base, was={"resolution": None}
    )
    base = base | {device.replica: first["n"]}
    second = device.mutation(
        "work_order", work_order, "update", {"resolution": "b"}, base=base, was={"resolution": "a"}
    )
    assert [result["status"] for result in device.push(first, second)] == ["applied", "applied"]
    assert company.admin.read("work-orders", work_order)["resolution"] == "b"


def test_two_devices_that_edit_different_fields_are_both_applied(company: Company) -> None:
    one, two, work_order, base = two_at_the_same_version(company)
    first = one.do("work_order", work_order, "update", {"resolution": "belt replaced"}, base=base)
    second = two.do("work_order", work_order, "update", {"meter_reading": "120.5"}, base=base)
    assert (first["status"], second["status"]) == ("applied", "applied")
    assert second["record"]["data"]["resolution"] == "belt replaced"
    assert second["clock"] == base | {"hub": second["version"], one.replica: 1, two.replica: 1}
    now_there = company.admin.read("work-orders", work_order)
    assert (now_there["resolution"], float(now_there["meter_reading"])) == ("belt replaced", 120.5)


def test_of_two_values_for_one_field_none_is_lost(company: Company) -> None:
    one, two, work_order, base = two_at_the_same_version(company)
    edit(one, work_order, base, {"resolution": "belt replaced"})
    result = two.do(
        "work_order", work_order, "update", {"resolution": "motor swapped"}, base=base, was={"resolution": None}
    )
    assert result["status"] in {"merged", "parked"}
    assert [decision["field"] for decision in result["decisions"]] == ["resolution"]
    kept = in_wire_order(company.admin.history("work-orders", work_order))
    if result["status"] == "parked":
        kept += in_wire_order(ok(company.server.office("reviewer").get(f"/v1/conflicts/{result['review_id']}")))
    assert "belt replaced" in kept
    assert "motor swapped" in kept


def test_lines_of_one_text_that_two_edit_are_combined(company: Company) -> None:
    text = "one\ntwo\nthree\nfour\nfive\n"
    one, two, work_order, base = two_at_the_same_version(company, description=text)
    was = {"description": text}
    edit(one, work_order, base, {"description": text.replace("one", "ONE")}, was)
    result = two.do(
        "work_order", work_order, "update", {"description": text.replace("five", "FIVE")}, base=base, was=was
    )
    assert result["status"] == "merged"
    assert result["decisions"][0]["kept"] == "combined"
    assert result["record"]["data"]["description"] == "ONE\ntwo\nthree\nfour\nFIVE\n"


def test_without_was_the_history_at_the_base_serves(company: Company) -> None:
    text = "one\ntwo\nthree\nfour\nfive\n"
    one, two, work_order, base = two_at_the_same_version(company, description=text)
    one.do("work_order", work_order, "update", {"description": text.replace("one", "ONE")}, base=base)
    result = two.do("work_order", work_order, "update", {"description": text.replace("five", "FIVE")}, base=base)
    assert result["status"] == "merged"
    assert result["record"]["data"]["description"] == "ONE\ntwo\nthree\nfour\nFIVE\n"


def test_a_meter_only_runs_forward(company: Company) -> None:
    one, two, work_order, base = two_at_the_same_version(company)
    edit(one, work_order, base, {"meter_reading": "812.5"})
    result = two.do(
        "work_order", work_order, "update", {"meter_reading": "810.0"}, base=base, was={"meter_reading": None}
    )
    assert result["status"] == "merged"
    assert result["decisions"][0]["kept"] == "current"
    assert float(result["record"]["data"]["meter_reading"]) == 812.5


def test_additions_to_a_set_all_stand(company: Company) -> None:
    one, two, work_order, base = two_at_the_same_version(company, tags=["a", "b"])
    one.do("work_order", work_order, "update", {"tags": {"$add": ["c"], "$remove": ["a"]}}, base=base)
    result = two.do("work_order", work_order, "update", {"tags": {"$add": ["d"]}}, base=base)
    assert result["status"] in {"applied", "merged"}
    assert set(result["record"]["data"]["tags"]) == {"b", "c", "d"}


def test_lines_of_a_log_are_appended_by_operator_only(company: Company, device: Device) -> None:
    task = company.admin.create("tasks", id=new_id("TASK"), work_order_id=company.assigned(), title="x")["id"]
    device.pull()
    base = device.base("task", task)
    line = {"question": "q1", "answer": "yes"}
    result = device.do("task", task, "update", {"answers": [line]}, base=base)
    assert (result["status"], result["problem"]["code"]) == ("rejected", "operator_required")
    result = device.do("task", task, "update", {"answers": {"$append": [line]}}, base=base)
    assert result["status"] == "applied", result
    device.pull()
    assert in_wire_order(device.record("task", task)["data"]["answers"]).count('"yes"') == 1


def test_null_clears_a_field(company: Company, device: Device) -> None:
    work_order = company.assigned(description="old")
    device.pull()
    base = device.base("work_order", work_order)
    result = device.do("work_order", work_order, "update", {"description": None}, base=base, was={"description": "old"})
    assert result["status"] == "applied"
    assert company.admin.read("work-orders", work_order).get("description") is None


def test_a_create_of_what_exists_is_an_update(company: Company, device: Device) -> None:
    work_order = company.assigned()
    made = note(device, work_order, "first")
    other = company.device()
    patch = {"parent": {"entity": "work_order", "id": work_order}, "text": "first", "pinned": True}
    assert device.push(made)[0]["status"] == "applied"
    result = other.do("note", made["id"], "create", patch)
    assert result["status"] in {"applied", "merged"}
    assert result["record"]["data"]["pinned"] is True
    assert result["version"] > 0


# Replay, fork, gap, void, origin


def without_repetition(result: Json) -> str:
    return in_wire_order({key: value for key, value in result.items() if key not in {"duplicate", "record"}})


def test_a_replay_is_answered_byte_for_byte_and_does_nothing(company: Company) -> None:
    one, device, work_order, base = two_at_the_same_version(company)
    one.do("work_order", work_order, "update", {"resolution": "a", "meter_reading": "9"}, base=base)
    sent = [
        note(device, work_order),
        device.mutation("work_order", work_order, "update", {"resolution": "b", "meter_reading": "7"}, base=base),
        device.mutation("part_consumption", new_id("C"), "create", consumption(company, work_order, part_id="P-NONE")),
        device.mutation("nonsense", "x", "create", {}),
        device.mutation("work_order", work_order, "update", {"priority": "low"}, base=base),
    ]
    first = device.push(*sent)
    assert {result["status"] for result in first} >= {"applied", "parked", "rejected"}
    head = len(device.pull())
    assert head
    again = ok(device.send(*sent, sent_at=now(timedelta(hours=1))))
    third = ok(device.send(*sent))
    assert all(result["duplicate"] and "record" not in result for result in again["results"])
    assert list(map(without_repetition, again["results"])) == list(map(without_repetition, first))
    assert in_wire_order(again["results"]) == in_wire_order(third["results"])
    assert device.pull() == []
    more = note(device, work_order)
    mixed = device.push(*sent[3:], more)
    assert [result["duplicate"] for result in mixed] == [True, True, False]


def test_a_retry_written_in_another_way_is_the_same_mutation(company: Company, device: Device) -> None:
    sent = note(device, company.assigned(), "ä 1")
    device.push(sent)
    turned = dict(reversed(sent.items()))
    turned["patch"] = dict(reversed(sent["patch"].items()))
    for text in (
        json.dumps(device.envelope([turned]), indent=2),
        json.dumps(device.envelope([sent]), ensure_ascii=False),
    ):
        answer = device.api.send(
            "POST", "/v1/push", content=text.encode(), headers={"Content-Type": "application/json"}
        )
        assert ok(answer)["results"][0]["duplicate"] is True


def test_a_number_used_for_other_content_is_a_fork(company: Company, device: Device) -> None:
    work_order = company.assigned()
    one, two, three = note(device, work_order), note(device, work_order), note(device, work_order)
    first = device.push(one, two)
    other = two | {"patch": two["patch"] | {"text": "other"}}
    told = refused(device.send(one, other, three), 409, "replica_forked")
    assert told["forked_at"] == 2
    assert [without_repetition(result) for result in told["results"]] == [without_repetition(first[0])]
    assert company.admin.get(f"/v1/notes/{three['id']}").status_code == 404
    for changed in (
        {"occurred_at": now(timedelta(hours=1))},
        {"base": {"hub": 1}},
        {"was": {"text": None}},
        {"hint": 1},
    ):
        assert refused(device.send(one | changed, two), 409, "replica_forked")["forked_at"] == 1


def test_what_a_fork_sends_again_under_its_first_name_counts_once(company: Company, device: Device) -> None:
    work_order = company.assigned()
    sent = note(device, work_order)
    used = device.mutation("part_consumption", new_id("C"), "create", consumption(company, work_order))
    first = device.push(sent, used)
    device.pull()
    clone = company.device()
    renamed = [
        mutation | {"n": n, "origin": {"replica": device.replica, "n": mutation["n"]}}
        for n, mutation in enumerate((sent, used), 1)
    ]
    results = clone.push(*renamed)
    assert [r["status"] for r in results] == [r["status"] for r in first]
    assert [r["version"] for r in results] == [r["version"] for r in first]
    assert device.pull() == []
    changed = renamed[0] | {"n": 3, "patch": sent["patch"] | {"text": "another"}}
    answer = clone.send(changed)
    assert answer.status_code == 200
    assert len(company.admin.history("notes", sent["id"])) <= 2


def test_a_gap_is_told_and_nothing_is_applied(company: Company, device: Device) -> None:
    work_order = company.assigned()
    one, two, three = note(device, work_order), note(device, work_order), note(device, work_order)
    assert refused(device.send(two, three), 409, "mutation_gap")["expected"] == 1
    answer = device.send(one, three)
    assert answer.status_code in {400, 409, 422}
    if answer.status_code == 409:
        assert answer.json()["expected"] == 2
    for each in (one, two, three):
        assert company.admin.get(f"/v1/notes/{each['id']}").status_code == 404
    assert [result["status"] for result in device.push(one, two, three)] == ["applied"] * 3
    assert refused(device.send(note(device, work_order) | {"n": 9}), 409, "mutation_gap")["expected"] == 4


def test_a_void_fills_a_number_and_blocks_nobody(company: Company, device: Device) -> None:
    work_order = company.assigned()
    void = {"n": 1, "op": "void", "problem": {"code": "malformed", "detail": "a number of 20 digits"}}
    device.n = 1
    after = note(device, work_order)
    results = device.push(void, after)
    assert [result["status"] for result in results] == ["rejected", "applied"]
    again = ok(device.send(void))["results"][0]
    assert without_repetition(again) == without_repetition(results[0])


def test_a_void_that_names_what_it_voids_is_recorded_too(company: Company, device: Device) -> None:
    problem = {"code": "too_large", "detail": "a photo in a text"}
    void = device.mutation("note", new_id("N"), "void", problem=problem)
    after = note(device, company.assigned())
    assert [result["status"] for result in device.push(void, after)] == ["rejected", "applied"]


@pytest.mark.parametrize(
    "change",
    [
        {"replica": None},
        {"replica": 7},
        {"replica": ""},
        {"replica": "r_ä"},
        {"replica": "r_" + "x" * 63},
        {"mutations": None},
        {"mutations": {}},
        {"mutations": [None]},
        {"mutations": ["x"]},
        {"mutations": [{"entity": "note"}]},
        {"mutations": [{"n": 0}]},
        {"mutations": [{"n": -1}]},
        {"mutations": [{"n": "1"}]},
        {"mutations": [{"n": True}]},
        {"mutations": [{"n": 1.5}]},
        {"mutations": [{"n": None}]},
        {"mutations": [{"n": 1, "op": "void"}, {"n": 1, "op": "void"}]},
        {"mutations": [{"n": 2, "op": "void"}, {"n": 1, "op": "void"}]},
    ],
    ids=str,
)
def test_an_envelope_that_cannot_be_used_is_refused_as_a_whole(device: Device, change: Json) -> None:
    answer = device.api.post("/v1/push", device.envelope([]) | change)
    assert answer.status_code in {400, 409, 422}
    assert answer.status_code != 409 or answer.json()["code"] == "mutation_gap"
    device.pull()
    assert device.last["last_n"] == 0


def test_an_envelope_without_its_names_is_refused(device: Device) -> None:
    for name in ("replica", "mutations"):
        body = device.envelope([])
        del body[name]
        assert device.api.post("/v1/push", body).status_code in {400, 422}


def test_a_push_of_nothing_is_answered(device: Device) -> None:
    answer = ok(device.send())
    assert (answer["results"], answer["last_n"]) == ([], 0)


def test_the_rest_of_an_envelope_may_be_anything(company: Company, device: Device) -> None:
    work_order = company.assigned()
    for change in (
        {"sent_at": None},
        {"sent_at": "yesterday"},
        {"sent_at": 7},
        {"schema": 99},
        {"schema": 0},
        {"hint": {"a": 1}},
    ):
        answer = device.send(note(device, work_order), **change)
        assert answer.status_code in {200, 400, 422}, change
        if answer.status_code != 200:
            device.n -= 1
    answer = ok(device.send(note(device, work_order), schema=0, future=True))
    assert answer["results"][0]["status"] == "applied"


# Rejected


def test_what_cannot_be_read_is_rejected_alone(company: Company, device: Device) -> None:
    work_order = company.assigned()
    device.pull()
    base = device.base("work_order", work_order)
    item = new_id("TI")

    def update(patch: Any, **more: Any) -> Json:
        return device.mutation("work_order", work_order, "update", patch, base=base, **more)

    unreadable = {
        "entity": device.mutation("unicorn", "x", "create", {}),
        "no entity": device.mutation("work_order", work_order, "update", {"title": "x"}) | {"entity": None},
        "op": device.mutation("work_order", work_order, "explode", {"title": "x"}),
        "no op": device.mutation("work_order", work_order, "update", {"title": "x"}) | {"op": None},
        "patch": update("x"),
        "patch list": update([1]),
        "value": update({"title": 7}),
        "decimal": update({"meter_reading": 1.5}),
        "moment": update({"actual_start": "yesterday"}),
        "choice": update({"status": "eaten"}),
        "set": update({"tags": "x"}),
        "operator": update({"title": {"$inc": "1"}}),
        "unknown operator": update({"tags": {"$explode": ["x"]}}),
        "operator shape": update({"tags": {"$add": "x"}}),
        "server field": device.mutation("toolkit_item", item, "create", {"on_hand": "5"}),
        "base": update({"title": "x"}) | {"base": "x"},
        "base value": update({"title": "x"}) | {"base": {"hub": "3"}},
        "base negative": update({"title": "x"}) | {"base": {"hub": -3}},
        "occurred_at": update({"title": "x"}) | {"occurred_at": "yesterday"},
        "occurred_at type": update({"title": "x"}) | {"occurred_at": 17},
        "occurred_at offset": update({"title": "x"}) | {"occurred_at": "2026-11-20T10:15:00"},
        "was": update({"title": "x"}, was="x"),
        "no id": update({"title": "x"}) | {"id": None},
        "required": update({"title": None}),
    }
    results = dict(zip(unreadable, device.push(*unreadable.values(), note(device, work_order)), strict=False))
    others = {name: result["status"] for name, result in results.items() if result["status"] != "rejected"}
    assert others == {}
    assert results["server field"]["problem"]["code"] == "server_field"
    assert company.admin.read("work-orders", work_order)["title"] == "Belt"
    assert company.admin.get(f"/v1/toolkit-items/{item}").status_code == 404
    device.pull()
    assert device.last["last_n"] == len(unreadable) + 1
    assert sum(key[1] == "note" for key in device.held) == 1


def test_an_intent_that_is_not_ones_own_is_rejected(company: Company, device: Device) -> None:
    work_order = company.assigned()
    device.pull()
    base = device.base("work_order", work_order)
    for patch in ({"priority": "low"}, {"assignee_id": company.colleague}, {"billing_status": "billed"}):
        result = device.do("work_order", work_order, "update", patch, base=base)
        assert (result["status"], result["problem"]["code"]) == ("rejected", "not_permitted"), patch
    result = device.do("work_order", new_id("WO"), "create", {"title": "x", "depot_id": company.depot})
    assert result["status"] == "rejected"


def test_an_update_of_what_never_was_is_rejected(device: Device) -> None:
    result = device.do("work_order", new_id("WO"), "update", {"title": "x"}, base={})
    assert result["status"] == "rejected"


# Parked


@pytest.mark.parametrize(
    ("wrong", "code"),
    [({"part_id": "P-NONE"}, "unknown_part"), ({"location_id": "L-NONE"}, "unknown_location")],
)
def test_a_fact_about_something_unknown_is_parked_whole(
    company: Company, reviewer: Api, device: Device, wrong: Json, code: str
) -> None:
    name = new_id("C")
    result = device.do("part_consumption", name, "create", consumption(company, company.assigned(), **wrong))
    assert (result["status"], result["problem"]["code"]) == ("parked", code)
    case = ok(reviewer.get(f"/v1/conflicts/{result['review_id']}"))
    assert (case["entity"], case["record_id"], case["status"]) == ("part_consumption", name, "open")
    assert in_wire_order(case["incoming"]).count(next(iter(wrong.values()))) >= 1


def test_a_part_of_a_whole_unit_is_parked(company: Company, device: Device) -> None:
    result = device.do(
        "part_consumption", new_id("C"), "create", consumption(company, company.assigned(), quantity="0.5")
    )
    assert (result["status"], result["problem"]["code"]) == ("parked", "fraction_of_whole_unit")


def test_an_impossible_transition_is_parked(company: Company, device: Device) -> None:
    work_order = company.assigned()
    device.pull()
    base = device.base("work_order", work_order)
    result = device.do(
        "work_order", work_order, "update", {"status": "completed"}, base=base, was={"status": "assigned"}
    )
    assert (result["status"], result["problem"]["code"]) == ("parked", "impossible_transition")
    assert company.admin.read("work-orders", work_order)["status"] == "assigned"


def test_a_transition_is_checked_from_what_was_shown(company: Company, device: Device) -> None:
    """The device saw in_progress and finished; meanwhile the office put the job on hold."""
    work_order = company.assigned()
    device.pull()
    started = device.mutation(
        "work_order",
        work_order,
        "update",
        {"status": "in_progress"},
        base=device.base("work_order", work_order),
        was={"status": "assigned"},
    )
    assert device.push(started)[0]["status"] == "applied"
    device.pull()
    base = device.base("work_order", work_order)
    company.server.office("dispatcher").change("work-orders", work_order, status="on_hold")
    result = device.do(
        "work_order", work_order, "update", {"status": "completed"}, base=base, was={"status": "in_progress"}
    )
    assert result["status"] == "merged"
    assert result["decisions"][0]["policy"] == "state_machine"
    assert result["decisions"][0]["kept"] == "incoming"
    assert company.admin.read("work-orders", work_order)["status"] == "completed"


def parked_note(company: Company, device: Device) -> tuple[str, str]:
    """A consumption whose create waits: its id and its case."""
    name = new_id("C")
    result = device.do("part_consumption", name, "create", consumption(company, company.assigned(), part_id="P-NONE"))
    return name, result["review_id"]


def test_what_builds_on_a_parked_create_waits_in_its_case(company: Company, device: Device) -> None:
    name, case = parked_note(company, device)
    base = {device.replica: 1}
    results = device.push(
        device.mutation("part_consumption", name, "update", {"quantity": "2"}, base=base, was={"quantity": "1"}),
        device.mutation("part_consumption", name, "update", {"quantity": "3"}, base={device.replica: 2}),
        note(device, company.assigned()),
    )
    assert [result["status"] for result in results] == ["parked", "parked", "applied"]
    for result in results[:2]:
        assert (result["problem"]["code"], result["review_id"]) == ("blocked_by", case)


def test_what_waits_for_a_create_is_applied_when_it_is_decided(company: Company, reviewer: Api, device: Device) -> None:
    name, case = parked_note(company, device)
    base = {device.replica: 1}
    device.do("part_consumption", name, "update", {"quantity": "2"}, base=base, was={"quantity": "1"})
    etag = reviewer.get(f"/v1/conflicts/{case}").headers["ETag"]
    decision = {"option": "values", "values": {"part_id": company.part}, "reason": "the new belt"}
    answer = ok(reviewer.post(f"/v1/conflicts/{case}/resolution", decision, If_Match=etag))
    assert answer["status"] == "resolved"
    made = company.admin.read("part-consumptions", name)
    assert (made["part_id"], float(made["quantity"])) == (company.part, 2)
    device.pull()
    assert device.holds("part_consumption", name)


def test_what_builds_on_a_rejected_create_is_parked(company: Company, device: Device) -> None:
    name = new_id("TASK")
    first = device.do("task", name, "create", {"work_order_id": "WO-NONE", "title": "x"})
    assert first["status"] == "rejected"
    result = device.do("task", name, "update", {"title": "y"}, base={device.replica: 1}, was={"title": "x"})
    assert result["status"] == "parked"
    assert result["problem"]["code"] in {"blocked_by", "awaiting_record"}


def test_what_names_a_version_that_the_hub_lacks_awaits_its_record(device: Device) -> None:
    result = device.do("work_order", new_id("WO"), "update", {"title": "x"}, base={"hub": 7}, was={"title": "y"})
    assert (result["status"], result["problem"]["code"]) == ("parked", "awaiting_record")


def conflicting_texts(company: Company) -> tuple[Device, str, Json, Json]:
    """A resolution that two devices wrote and that waits: the second device, the work order, its base, the result."""
    one, two, work_order, base = two_at_the_same_version(company)
    edit(one, work_order, base, {"resolution": "belt"})
    result = edit(two, work_order, base, {"resolution": "motor"})
    return two, work_order, base, result


def test_a_later_value_of_a_waiting_field_joins_its_case(company: Company, reviewer: Api) -> None:
    two, work_order, base, first = conflicting_texts(company)
    assert first["status"] == "parked"
    assert [decision["kept"] for decision in first["decisions"]] == ["waiting"]
    patch = {"resolution": "motor and fan", "meter_reading": "5"}
    base = base | {two.replica: 1}
    second = two.do("work_order", work_order, "update", patch, base=base, was={"resolution": "motor"})
    assert (second["status"], second["review_id"]) == ("parked", first["review_id"])
    case = ok(reviewer.get(f"/v1/conflicts/{first['review_id']}"))
    waits = {field["name"]: field for field in case["fields"]}
    assert waits["resolution"]["incoming"] == "motor and fan"
    assert waits["resolution"]["current"] == "belt"
    assert float(company.admin.read("work-orders", work_order)["meter_reading"]) == 5


def test_a_field_decided_by_rule_closes_its_case(company: Company, reviewer: Api) -> None:
    two, work_order, _, first = conflicting_texts(company)
    two.pull()
    base = two.base("work_order", work_order)
    second = two.do("work_order", work_order, "update", {"resolution": "both"}, base=base, was={"resolution": "belt"})
    assert second["status"] in {"applied", "merged"}
    assert status_of(reviewer, first["review_id"]) not in {"open", "claimed"}


def test_a_field_without_conflict_is_applied_beside_one_that_waits(company: Company) -> None:
    one, two, work_order, base = two_at_the_same_version(company)
    edit(one, work_order, base, {"resolution": "belt"})
    patch = {"resolution": "motor", "failure_code": "F1"}
    result = two.do(
        "work_order", work_order, "update", patch, base=base, was={"resolution": None, "failure_code": None}
    )
    assert result["status"] == "parked"
    assert result["record"]["data"]["failure_code"] == "F1"
    assert result["record"]["data"]["resolution"] == "belt"
    assert [decision["field"] for decision in result["decisions"]] == ["resolution"]


# Groups


def test_a_group_is_applied_whole(company: Company, device: Device) -> None:
    work_order = company.assigned()
    members = [note(device, work_order, group="g", group_size=3) for _ in range(3)]
    assert [result["status"] for result in device.push(*members)] == ["applied"] * 3


def test_a_part_of_a_group_is_refused_and_nothing_applied(company: Company, device: Device) -> None:
    work_order = company.assigned()
    before = note(device, work_order)
    one, two = note(device, work_order, group="g", group_size=3), note(device, work_order, group="g", group_size=3)
    refused(device.send(before, one, two), 409, "group_incomplete")
    for each in (before, one, two):
        assert company.admin.get(f"/v1/notes/{each['id']}").status_code == 404
    device.n = 0
    apart = [note(device, work_order, group="g", group_size=2), note(device, work_order)]
    apart.append(note(device, work_order, group="g", group_size=2))
    answer = device.send(*apart)
    assert answer.status_code in {400, 409, 422}
    device.pull()
    assert device.last["last_n"] == 0


def test_a_group_without_its_size_is_what_the_push_holds(company: Company, device: Device) -> None:
    work_order = company.assigned()
    results = device.push(note(device, work_order, group="g"), note(device, work_order, group="g"))
    assert [result["status"] for result in results] == ["applied"] * 2


def test_if_one_of_a_group_is_rejected_all_are(company: Company, device: Device) -> None:
    work_order = company.assigned()
    device.pull()
    base = device.base("work_order", work_order)
    group = {"group": "g", "group_size": 3, "base": base}
    results = device.push(
        device.mutation("work_order", work_order, "update", {"title": "new"}, **group),
        device.mutation("work_order", work_order, "update", {"priority": "low"}, **group),
        device.mutation("work_order", work_order, "update", {"tags": {"$add": ["x"]}}, **group),
        note(device, work_order),
    )
    assert [result["status"] for result in results] == ["rejected", "rejected", "rejected", "applied"]
    assert results[1]["problem"]["code"] == "not_permitted"
    assert {results[0]["problem"]["code"], results[2]["problem"]["code"]} == {"group_failed"}
    assert company.admin.read("work-orders", work_order)["title"] == "Belt"


def test_a_group_with_a_fact_is_parked_whole_instead(company: Company, reviewer: Api, device: Device) -> None:
    work_order = company.assigned()
    device.pull()
    base = device.base("work_order", work_order)
    group = {"group": "g", "group_size": 2}
    used = device.mutation("part_consumption", new_id("C"), "create", consumption(company, work_order), **group)
    wrong = device.mutation("work_order", work_order, "update", {"priority": "low"}, base=base, **group)
    results = device.push(used, wrong)
    assert [result["status"] for result in results] == ["parked", "parked"]
    assert company.admin.get(f"/v1/part-consumptions/{used['id']}").status_code == 404
    for result in results:
        assert status_of(reviewer, result["review_id"]) == "open"


def test_a_member_with_a_waiting_field_does_not_stop_the_others(company: Company) -> None:
    one, two, work_order, base = two_at_the_same_version(company)
    edit(one, work_order, base, {"resolution": "belt"})
    group = {"group": "g", "group_size": 2}
    resolved = {"resolution": "motor"}
    results = two.push(
        two.mutation("work_order", work_order, "update", resolved, base=base, was={"resolution": None}, **group),
        note(two, work_order, **group),
    )
    assert [result["status"] for result in results] == ["parked", "applied"]


# Time


def test_a_clock_ten_years_ahead_does_not_win(company: Company) -> None:
    one, two, work_order, base = two_at_the_same_version(company)
    edit(one, work_order, base, {"status_reason": "gate shut"})
    ahead = {"base": base, "was": {"status_reason": None}, "occurred_at": now(YEARS)}
    result = two.do("work_order", work_order, "update", {"status_reason": "from the future"}, **ahead)
    assert result["status"] == "parked", result
    assert result["decisions"][0]["kept"] == "waiting"
    assert company.admin.read("work-orders", work_order)["status_reason"] == "gate shut"


def test_a_clock_ten_years_behind_does_not_lose_unseen(company: Company) -> None:
    one, two, work_order, base = two_at_the_same_version(company)
    edit(one, work_order, base, {"status_reason": "gate shut"})
    behind = {"base": base, "was": {"status_reason": None}, "occurred_at": now(-YEARS)}
    result = two.do("work_order", work_order, "update", {"status_reason": "from the past"}, **behind)
    assert result["status"] == "parked", result


def test_a_wrong_clock_alone_harms_no_edit(company: Company, device: Device) -> None:
    work_order = company.assigned()
    device.pull()
    base = device.base("work_order", work_order)
    result = device.do("work_order", work_order, "update", {"status_reason": "x"}, base=base, occurred_at=now(YEARS))
    assert result["status"] == "applied"
    history = company.admin.history("work-orders", work_order)[0]
    assert history["occurred_at"] <= now(timedelta(minutes=5))


def test_the_later_of_two_honest_writers_wins(company: Company) -> None:
    one, two, work_order, base = two_at_the_same_version(company)
    late, early = now(), now(timedelta(seconds=-1))
    edit(one, work_order, base, {"status_reason": "late"}, occurred_at=late)
    result = edit(two, work_order, base, {"status_reason": "early"}, occurred_at=early)
    assert result["status"] in {"merged", "parked"}
    if result["status"] == "merged":
        assert result["decisions"][0]["kept"] == "current"
        assert company.admin.read("work-orders", work_order)["status_reason"] == "late"


# Reach


def test_who_may_no_longer_read_a_record_gets_no_copy_of_it(company: Company, device: Device) -> None:
    work_order = company.assigned()
    device.pull()
    base, held = device.base("work_order", work_order), now()
    company.server.office("dispatcher").change("work-orders", work_order, assignee_id=company.colleague)
    patch = {"resolution": "done before you took it away"}
    result = device.do("work_order", work_order, "update", patch, base=base, was={"resolution": None}, occurred_at=held)
    assert result["status"] in {"applied", "merged", "parked"}
    assert "record" not in result
    assert "clock" not in result


def test_a_fact_on_a_deleted_record_is_kept(company: Company, device: Device) -> None:
    work_order = company.assigned()
    device.pull()
    base = device.base("work_order", work_order)
    company.admin.remove("work-orders", work_order)
    result = edit(device, work_order, base, {"resolution": "x"})
    assert result["status"] in {"applied", "merged", "parked"}


# A newer peer


def test_fields_of_a_newer_peer_are_kept(company: Company, device: Device) -> None:
    work_order = company.assigned()
    device.pull()
    base = device.base("work_order", work_order)
    patch = {"title": "new", "colour_of_the_door": "green"}
    result = device.do("work_order", work_order, "update", patch, base=base, schema=2, hint={"a": [1]})
    assert result["status"] in {"applied", "merged"}, result
    device.pull()
    kept = in_wire_order(device.record("work_order", work_order)) + in_wire_order(
        company.admin.history("work-orders", work_order)
    )
    assert "green" in kept


# Who wins, and races


def test_an_edit_brings_back_what_was_deleted_meanwhile(company: Company, device: Device) -> None:
    task = company.admin.create("tasks", id=new_id("TASK"), work_order_id=company.assigned(), title="x")["id"]
    device.pull()
    base = device.base("task", task)
    company.admin.remove("tasks", task)
    result = device.do("task", task, "update", {"title": "y"}, base=base, was={"title": "x"})
    assert result["status"] == "merged"
    assert company.admin.read("tasks", task)["title"] == "y"
    device.pull()
    assert device.record("task", task)["data"]["title"] == "y"


def test_a_deletion_wins_over_an_edit_and_the_edit_is_kept(company: Company, reviewer: Api, device: Device) -> None:
    made = note(device, company.assigned())
    base = device.push(made)[0]["clock"]
    company.admin.remove("notes", made["id"])
    result = device.do("note", made["id"], "update", {"text": "later"}, base=base, was={"text": "x"})
    assert result["status"] in {"merged", "parked"}
    assert company.admin.get(f"/v1/notes/{made['id']}").status_code == 404
    kept = in_wire_order(company.admin.history("notes", made["id"]))
    if result["status"] == "parked":
        kept += in_wire_order(ok(reviewer.get(f"/v1/conflicts/{result['review_id']}")))
    assert "later" in kept


def test_a_push_sent_many_times_at_once_counts_once(company: Company, device: Device) -> None:
    work_order = company.assigned()
    device.pull()
    base = device.base("work_order", work_order)
    envelope = device.envelope(
        [
            device.mutation("work_order", work_order, "update", {"tags": {"$add": ["x"]}}, base=base),
            note(device, work_order),
        ]
    )
    with ThreadPoolExecutor(8) as pool:
        answers = [ok(one) for one in pool.map(lambda _: device.api.post("/v1/push", envelope), range(8))]
    for place in range(2):
        results = [answer["results"][place] for answer in answers]
        assert sorted(result["duplicate"] for result in results) == [False] + [True] * 7
        assert len({without_repetition(result) for result in results}) == 1
    assert len(company.admin.history("work-orders", work_order)) == 2


def test_devices_that_push_at_once_all_stand(company: Company) -> None:
    work_order = company.assigned()
    devices = [company.device() for _ in range(6)]
    for device in devices:
        device.pull()

    def push(device: Device) -> Json:
        base = device.base("work_order", work_order)
        return device.do("work_order", work_order, "update", {"tags": {"$add": [device.replica]}}, base=base)

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(push, devices))
    assert {result["status"] for result in results} <= {"applied", "merged"}
    assert len({result["version"] for result in results}) == 6
    assert set(company.admin.read("work-orders", work_order)["tags"]) == {device.replica for device in devices}
    for device in devices:
        device.pull()
    assert len({in_wire_order(device.record("work_order", work_order)["data"]) for device in devices}) == 1
