"""What a push is told, one status and code at a time, on the hub in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from server.services.conflicts import resolve_case
from sync.admit import Surroundings, hindrance
from sync.clock import HUB, Origin
from sync.effects import Effect
from sync.entities import ENTITY_TYPES
from sync.errors import GroupIncomplete, MutationGap, NotFound, ReplicaForked, SyncError
from sync.memory import MemoryHub
from sync.moments import format_moment
from sync.mutation import Result
from sync.policy import SKEW_BOUND_MS
from sync.record import Key, Record
from sync.validate import parse_mutation
from tests.support.hub import HOUR, MINUTE, MORNING, OFFICE, Hub, device, mutation

ADA, BEN = device("T-1"), device("T-2")
TABLET = device("T-1", "tablet")


@pytest.fixture
def hub() -> Hub:
    return Hub()


def code(result: Result) -> tuple[str, str | None]:
    return result.status, result.problem.code if result.problem else None


def consumption(n: int, id: str = "C-1", base: Any = None, **values: Any) -> dict[str, Any]:
    """A part that was used: a fact."""
    patch = {"work_order_id": "WO-1", "part_id": "P-1", "quantity": "1", **values}
    return mutation(n, "create", "part_consumption", id, patch, base)


# -- applied, merged, parked ---------------------------------------------------------------------------------------


def test_what_nobody_else_touched_is_applied_as_sent(hub: Hub) -> None:
    base = hub.base("work_order", "WO-1")
    result = hub.one(ADA, mutation(1, "update", "work_order", "WO-1", {"resolution": "New belt"}, base))

    assert code(result) == ("applied", None)
    assert result.version == base[HUB] + 1
    assert result.clock == {HUB: result.version, "r_T-1": 1}
    assert result.record is None, "the device had seen all of it"
    assert hub.data("work_order", "WO-1")["resolution"] == "New belt"


def test_two_devices_that_edit_different_fields_are_both_applied(hub: Hub) -> None:
    base = hub.base("work_order", "WO-1")
    first = hub.one(ADA, mutation(1, "update", "work_order", "WO-1", {"resolution": "New belt"}, base))
    second = hub.one(TABLET, mutation(1, "update", "work_order", "WO-1", {"meter_reading": "120.5"}, base))

    assert code(first) == code(second) == ("applied", None)
    assert second.record is not None, "it holds something that the second device has not seen"
    assert second.record["data"]["resolution"] == "New belt"
    assert second.record["version"] == second.version


def test_a_rule_that_decides_is_told_as_merged(hub: Hub) -> None:
    base = hub.base("work_order", "WO-1")
    hub.one(ADA, mutation(1, "update", "work_order", "WO-1", {"meter_reading": "120.5"}, base))
    result = hub.one(TABLET, mutation(1, "update", "work_order", "WO-1", {"meter_reading": "99"}, base))

    assert code(result) == ("merged", None)
    assert [(d.field, d.policy, d.kept) for d in result.decisions] == [("meter_reading", "largest", "current")]
    assert result.record is not None
    assert result.record["data"]["meter_reading"] == "120.5"


def test_a_conflict_waits_in_a_case_while_other_fields_are_applied(hub: Hub) -> None:
    base = hub.base("work_order", "WO-1")
    hub.one(ADA, mutation(1, "update", "work_order", "WO-1", {"resolution": "New belt"}, base))
    patch = {"resolution": "New pump", "failure_code": "F7"}
    result = hub.one(TABLET, mutation(1, "update", "work_order", "WO-1", patch, base, was={"resolution": None}))

    assert code(result) == ("parked", None)
    assert [(d.field, d.kept) for d in result.decisions] == [("resolution", "waiting")]
    case = hub.case(result.review_id)
    assert (case.type, case.status, case.fields) == ("field_conflict", "open", ("resolution",))
    assert case.current == {"resolution": "New belt"}
    assert case.incoming == {"resolution": "New pump"}
    assert hub.data("work_order", "WO-1")["failure_code"] == "F7"
    assert hub.data("work_order", "WO-1")["resolution"] == "New belt"


def test_a_correction_joins_the_case_and_replaces_what_was_sent_before(hub: Hub) -> None:
    base = hub.base("work_order", "WO-1")
    hub.one(ADA, mutation(1, "update", "work_order", "WO-1", {"resolution": "New belt"}, base))
    first = hub.one(TABLET, mutation(1, "update", "work_order", "WO-1", {"resolution": "New pump"}, base))
    own = {**base, "r_tablet": 1}
    again = hub.one(TABLET, mutation(2, "update", "work_order", "WO-1", {"resolution": "New valve"}, own))

    assert again.review_id == first.review_id
    assert hub.case(again.review_id).incoming == {"resolution": "New valve"}
    assert len(hub.open_cases()) == 1


def test_two_edits_of_one_push_join_one_case(hub: Hub) -> None:
    base = hub.base("work_order", "WO-1")
    hub.one(ADA, mutation(1, "update", "work_order", "WO-1", {"resolution": "New belt", "title": "Belt"}, base))
    results = hub.push(
        TABLET,
        mutation(1, "update", "work_order", "WO-1", {"resolution": "New pump", "title": "Pump"}, base),
        mutation(2, "update", "work_order", "WO-1", {"resolution": "New valve"}, {**base, "r_tablet": 1}),
    ).results
    (case,) = hub.open_cases()

    assert [r.review_id for r in results] == [case.id, case.id]
    assert case.fields == ("resolution", "title")
    assert case.incoming == {"resolution": "New valve", "title": "Pump"}
    assert case.current == {"resolution": "New belt", "title": "Belt"}


def test_what_a_newer_app_knows_is_kept(hub: Hub) -> None:
    base = hub.base("work_order", "WO-1")

    assert hub.one(ADA, mutation(1, "update", "work_order", "WO-1", {"colour": "red"}, base)).status == "applied"
    assert hub.one(TABLET, mutation(1, "update", "work_order", "WO-1", {"colour": "blue"}, base)).status == "parked"
    assert hub.data("work_order", "WO-1")["colour"] == "red"


def test_a_correction_that_agrees_closes_the_case(hub: Hub) -> None:
    base = hub.base("work_order", "WO-1")
    hub.one(ADA, mutation(1, "update", "work_order", "WO-1", {"resolution": "New belt"}, base))
    hub.one(TABLET, mutation(1, "update", "work_order", "WO-1", {"resolution": "New pump"}, base))
    own = {**base, "r_tablet": 1}
    agreed = hub.one(TABLET, mutation(2, "update", "work_order", "WO-1", {"resolution": "New belt"}, own))

    assert code(agreed) == ("applied", None)
    assert hub.open_cases() == []


def test_creating_what_exists_is_an_update_that_has_seen_nothing(hub: Hub) -> None:
    first = hub.one(ADA, consumption(1, reason="worn"))
    same = hub.one(TABLET, consumption(1, reason="worn"))
    other = hub.one(TABLET, consumption(2, base={"r_tablet": 1}, quantity="2"))

    assert code(first) == code(same) == ("applied", None)
    assert [d.field for d in other.decisions] == ["quantity"]
    assert code(other) == ("parked", None)


def test_a_fact_that_missed_a_reassignment_is_still_taken(hub: Hub) -> None:
    """The job went to Ben at nine; Ada had used a part at half past eight, and says so at ten."""
    hub.now = MORNING + HOUR
    hub.office("update", "work_order", "WO-1", {"assignee_id": "T-2"})
    hub.now = MORNING + 2 * HOUR
    early = {**consumption(1), "occurred_at": format_moment(MORNING + HOUR // 2)}
    late = {**consumption(2, "C-2"), "occurred_at": format_moment(MORNING + HOUR + HOUR // 2)}
    taken, parked = hub.push(ADA, early, late).results

    assert code(taken) == ("applied", None)
    assert (taken.version, taken.clock, taken.record) == (None, None, None), "it is no longer hers to read"
    assert code(parked) == ("parked", "unknown_work_order")


# -- rejected ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (mutation(1, "update", "spaceship", "X-1", {"a": 1}), "unknown_entity"),
        (mutation(1, "explode", "work_order", "WO-1"), "unknown_op"),
        (mutation(1, "update", "work_order", "no spaces!", {}), "invalid_id"),
        (mutation(1, "update", "work_order", "WO-1", {"title": 7}), "invalid_value"),
        (mutation(1, "create", "note", "N-9", {"text": "x"}), "missing_field"),
        (mutation(1, "update", "work_order", "WO-1", {"labour": []}), "operator_required"),
        (mutation(1, "update", "toolkit_item", "TI-1", {"on_hand": "5"}), "server_field"),
        (mutation(1, "update", "work_order", "WO-1", {"version": 5}), "server_field"),
        (mutation(1, "update", "work_order", "WO-1", {"priority": "high"}, {HUB: 1}), "not_permitted"),
        (mutation(1, "delete", "work_order", "WO-1", base={HUB: 1}), "not_permitted"),
        (mutation(1, "create", "work_order", "WO-9", {"title": "Mine"}), "not_permitted"),
        (mutation(1, "update", "work_order", "WO-9", {"title": "x"}), "unknown_record"),
        (mutation(1, "update", "task", "TK-1", {"work_order_id": "WO-9"}, {HUB: 1}), "unknown_work_order"),
        (mutation(1, "create", "part", "P-1", {"number": "9", "name": "x", "superseded_by": "P-9"}), "not_permitted"),
    ],
)
def test_what_cannot_be_read_or_may_not_be_done_is_rejected(hub: Hub, body: dict[str, Any], expected: str) -> None:
    before = dict(hub.store.state.records)
    result = hub.one(ADA, body)

    assert code(result) == ("rejected", expected)
    assert result.problem is not None
    assert result.problem.detail
    assert hub.store.state.records == before
    assert hub.store.state.ledger["r_T-1", 1].result == result, "it is stored whole all the same"


def test_a_rejected_mutation_does_not_block_its_successors(hub: Hub) -> None:
    base = hub.base("work_order", "WO-1")
    results = hub.push(
        ADA,
        mutation(1, "update", "work_order", "WO-1", {"priority": "high"}, base),
        mutation(2, "update", "work_order", "WO-1", {"resolution": "New belt"}, base),
    ).results

    assert [r.status for r in results] == ["rejected", "applied"]


def test_a_void_mutation_fills_its_number(hub: Hub) -> None:
    void = {"n": 1, "op": "void", "problem": {"code": "too_large", "detail": "A photo slipped in."}}
    result = hub.push(ADA, void, consumption(2)).results

    assert code(result[0]) == ("rejected", "too_large")
    assert code(result[1]) == ("applied", None)


# -- state machines ------------------------------------------------------------------------------------------------


def step(n: int, source: str | None, target: str, base: Any) -> dict[str, Any]:
    was = {} if source is None else {"was": {"status": source}}
    return mutation(n, "update", "work_order", "WO-1", {"status": target}, base, **was)


def test_a_day_of_work_is_applied_step_by_step(hub: Hub) -> None:
    base = hub.base("work_order", "WO-1")
    steps = ["assigned", "accepted", "en_route", "in_progress", "completed"]
    pushed = [step(n + 1, steps[n], steps[n + 1], {**base, "r_T-1": n}) for n in range(4)]

    assert [r.status for r in hub.push(ADA, *pushed).results] == ["applied"] * 4
    assert hub.data("work_order", "WO-1")["status"] == "completed"


def test_an_impossible_step_that_reports_work_waits_for_a_person(hub: Hub) -> None:
    result = hub.one(ADA, step(1, "draft", "completed", hub.base("work_order", "WO-1")))

    assert code(result) == ("parked", "impossible_transition")
    assert hub.case(result.review_id).type == "impossible_transition"
    assert hub.data("work_order", "WO-1")["status"] == "assigned"


def test_an_impossible_step_that_is_a_wish_is_rejected(hub: Hub) -> None:
    result = hub.one(ADA, step(1, "completed", "accepted", hub.base("work_order", "WO-1")))

    assert code(result) == ("rejected", "impossible_transition")


def test_a_step_that_belongs_to_others_is_rejected(hub: Hub) -> None:
    assert code(hub.one(ADA, step(1, "assigned", "cancelled", hub.base("work_order", "WO-1")))) == (
        "rejected",
        "not_permitted",
    )


def test_a_step_is_checked_from_what_the_device_showed(hub: Hub) -> None:
    """The office has cancelled meanwhile; the technician saw an order that was assigned, and drove there."""
    base = hub.base("work_order", "WO-1")
    hub.office("update", "work_order", "WO-1", {"status": "cancelled"})
    result = hub.one(ADA, step(1, "assigned", "en_route", base))

    assert code(result) == ("merged", None)
    assert hub.data("work_order", "WO-1")["status"] == "cancelled"


def test_without_was_the_history_tells_what_the_device_had_seen(hub: Hub) -> None:
    base = hub.base("work_order", "WO-1")
    hub.office("update", "work_order", "WO-1", {"status": "cancelled"})

    assert code(hub.one(ADA, step(1, None, "en_route", base))) == ("merged", None)


def test_where_nothing_tells_it_a_person_is_asked() -> None:
    """The history at the base is gone, and the device did not say what it had shown."""
    sent = parse_mutation(step(1, None, "en_route", {HUB: 1}))
    order = Record("work_order", "WO-1", 9, {"status": "assigned"})
    nothing: dict[Any, Any] = {}
    found = hindrance(sent, Surroundings(ADA, lambda key: order, nothing.get, nothing.get, {}))

    assert found is not None
    assert (found.problem.code, found.park) == ("unknown_step", True)


@pytest.mark.parametrize(("status", "expected"), [("reported", None), ("posted", "impossible_transition")])
def test_a_device_begins_a_record_at_its_beginning(hub: Hub, status: str, expected: str | None) -> None:
    count = {"location_id": "VAN-1", "part_id": "P-1", "counted": "3", "status": status}
    result = hub.one(ADA, mutation(1, "create", "discrepancy", "DI-1", count))

    assert code(result) == ("parked" if expected else "applied", expected)


def test_setting_the_state_that_was_shown_is_no_step(hub: Hub) -> None:
    assert hub.one(ADA, step(1, "assigned", "assigned", hub.base("work_order", "WO-1"))).status == "applied"


# -- facts are never refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"part_id": "P-9"}, "unknown_part"),
        ({"location_id": "VAN-9"}, "unknown_location"),
        ({"work_order_id": "WO-9"}, "unknown_work_order"),
        ({"work_order_id": "WO-2"}, "unknown_work_order"),
        ({"quantity": "0.5"}, "fraction_of_whole_unit"),
        ({"estimated_quantity": "1"}, "not_permitted"),
    ],
)
def test_a_fact_that_does_not_fit_is_parked_whole(hub: Hub, values: dict[str, Any], expected: str) -> None:
    result = hub.one(ADA, consumption(1, **values))

    assert code(result) == ("parked", expected)
    case = hub.case(result.review_id)
    assert case.fields == ()
    assert case.incoming == {"work_order_id": "WO-1", "part_id": "P-1", "quantity": "1", **values}
    assert [w.mutation.id for w in hub.store.state.waiting.values()] == ["C-1"]
    assert Key("part_consumption", "C-1") not in hub.store.state.records


def test_what_lies_out_of_reach_is_answered_as_if_it_did_not_exist(hub: Hub) -> None:
    hidden = hub.one(ADA, mutation(1, "update", "work_order", "WO-2", {"title": "x"}))
    missing = hub.one(TABLET, mutation(1, "update", "work_order", "WO-3", {"title": "x"}))

    assert hidden.problem is not None
    assert missing.problem is not None
    assert hidden.problem.detail == missing.problem.detail.replace("WO-3", "WO-2")
    assert replace(hidden, problem=None) == replace(missing, problem=None)


def test_a_fact_about_something_out_of_reach_waits_and_shows_nothing(hub: Hub) -> None:
    result = hub.one(ADA, mutation(1, "update", "work_order", "WO-2", {"resolution": "x"}))

    assert code(result) == ("parked", "unknown_record")
    assert (result.record, result.clock, result.version) == (None, None, None)


def test_nobody_takes_over_a_record_by_creating_it_again(hub: Hub) -> None:
    patch = {"work_order_id": "WO-1", "title": "Stolen"}
    hub.office("create", "task", "TK-2", {"work_order_id": "WO-2", "title": "Ben's"})

    assert code(hub.one(ADA, mutation(1, "create", "task", "TK-2", patch))) == ("rejected", "id_taken")
    assert hub.data("task", "TK-2")["title"] == "Ben's"


def test_a_new_record_has_to_lie_in_its_creators_reach(hub: Hub) -> None:
    result = hub.one(
        ADA, mutation(1, "create", "note", "N-9", {"parent": {"entity": "part", "id": "P-1"}, "text": "x"})
    )

    assert code(result) == ("parked", "out_of_reach")


def test_a_lost_device_is_heard_but_nothing_it_says_is_done(hub: Hub) -> None:
    hub.push(ADA)
    hub.store.state.replicas["r_T-1"] = replace(hub.store.state.replicas["r_T-1"], sealed=True)
    result = hub.one(ADA, mutation(1, "update", "work_order", "WO-1", {"title": "x"}, hub.base("work_order", "WO-1")))

    assert code(result) == ("parked", "device_lost")
    assert hub.data("work_order", "WO-1")["title"] == "Fix it"


# -- what waits for something else ---------------------------------------------------------------------------------


def test_what_follows_a_parked_creation_waits_in_the_same_case(hub: Hub) -> None:
    created = hub.one(ADA, consumption(1, part_id="P-9"))
    edited, about = hub.push(
        ADA,
        mutation(2, "update", "part_consumption", "C-1", {"reason": "worn"}, {"r_T-1": 1}),
        mutation(3, "create", "part_consumption", "C-2", {**consumption(1)["patch"], "removes_id": "C-1"}),
    ).results

    assert code(edited) == code(about) == ("parked", "blocked_by")
    assert edited.review_id == about.review_id == created.review_id
    assert len(hub.open_cases()) == 1


def test_a_second_creation_of_what_waits_joins_it(hub: Hub) -> None:
    created = hub.one(ADA, consumption(1, part_id="P-9"))
    again = hub.one(TABLET, consumption(1))

    assert code(again) == ("parked", "blocked_by")
    assert again.review_id == created.review_id


def test_what_follows_a_rejected_creation_is_kept_for_review(hub: Hub) -> None:
    created, edited = hub.push(
        ADA,
        mutation(1, "create", "work_order", "WO-9", {"title": "Mine"}),
        mutation(2, "update", "work_order", "WO-9", {"title": "My job"}, {"r_T-1": 1}),
    ).results

    assert code(created) == ("rejected", "not_permitted")
    assert code(edited) == ("parked", "blocked_by")
    assert hub.case(edited.review_id).type == "blocked"


def test_once_a_person_lets_it_pass_all_that_waited_is_applied_in_order(hub: Hub) -> None:
    created = hub.one(ADA, consumption(1, part_id="P-9"))
    hub.one(ADA, mutation(2, "update", "part_consumption", "C-1", {"reason": "worn"}, {"r_T-1": 1}))
    hub.one(ADA, mutation(3, "update", "part_consumption", "C-1", {"reason": "torn"}, {"r_T-1": 2}))
    resolve_case(hub.store, OFFICE, str(created.review_id), "incoming", None, "seen", None, hub.now)

    assert hub.data("part_consumption", "C-1")["reason"] == "torn"
    assert hub.record("part_consumption", "C-1").fields["reason"].case is None
    assert hub.store.state.waiting == {}
    assert hub.open_cases() == []


def test_what_the_hub_has_lost_waits_until_the_record_is_back(hub: Hub) -> None:
    """After a restore from a backup, Ada's edits come before the tablet offers the record again."""
    created = mutation(1, "create", "task", "TK-7", {"work_order_id": "WO-1", "title": "x"})
    backup = hub.store.backup()
    hub.one(TABLET, created)
    seen = hub.record("task", "TK-7").clock
    hub.store.restore(backup, epoch=1)
    early = hub.push(
        ADA,
        mutation(1, "update", "task", "TK-7", {"title": "First"}, seen, was={"title": "x"}),
        mutation(2, "update", "task", "TK-7", {"title": "Second"}, {**seen, "r_T-1": 1}, was={"title": "First"}),
    ).results

    assert [code(r) for r in early] == [("parked", "awaiting_record")] * 2
    assert early[0].review_id == early[1].review_id

    assert code(hub.one(TABLET, created)) == ("applied", None)
    assert hub.store.state.waiting == {}
    assert hub.open_cases() == []
    assert hub.data("task", "TK-7")["title"] == "Second", "she had seen the creation, so nothing is asked"


def test_what_waited_may_not_do_more_than_what_did_not(hub: Hub) -> None:
    """A technician guesses the next order's number and sends what only the office may write."""
    hub.one(ADA, mutation(1, "update", "work_order", "WO-7", {"priority": "emergency"}, {HUB: 9}))
    hub.one(ADA, mutation(2, "update", "work_order", "WO-7", {"resolution": "x"}, {HUB: 9, "r_T-1": 1}))
    hub.office("create", "work_order", "WO-7", {"title": "New", "assignee_id": "T-1", "depot_id": "D-1"})

    assert hub.data("work_order", "WO-7")["priority"] == "normal"
    assert [w.mutation.n for w in hub.store.state.waiting.values()] == [1, 2]
    assert len(hub.open_cases()) == 1


def test_what_waited_goes_through_also_if_it_refers_to_other_records(hub: Hub) -> None:
    used = {"work_order_id": "WO-1", "part_id": "P-1", "quantity": "1", "uom": "ea"}
    backup = hub.store.backup()
    hub.one(TABLET, mutation(1, "create", "part_consumption", "C-7", used))
    seen = hub.record("part_consumption", "C-7").clock
    hub.store.restore(backup, epoch=1)
    hub.one(ADA, mutation(1, "update", "part_consumption", "C-7", {"location_id": "VAN-1"}, seen))
    hub.one(TABLET, mutation(1, "create", "part_consumption", "C-7", used))

    assert hub.data("part_consumption", "C-7")["location_id"] == "VAN-1"
    assert hub.open_cases() == []


def test_what_waits_is_not_applied_where_its_sender_cannot_reach(hub: Hub) -> None:
    hub.one(ADA, mutation(1, "update", "task", "TK-7", {"title": "Mine"}, {HUB: 99}))
    hub.office("create", "task", "TK-7", {"work_order_id": "WO-2", "title": "Ben's"})

    assert hub.data("task", "TK-7")["title"] == "Ben's"
    assert len(hub.open_cases()) == 1


def test_what_a_person_let_pass_late_was_not_seen_by_those_who_had_seen_later_work(hub: Hub) -> None:
    """Ada's second edit waits whole, her third is applied and pulled by the tablet. Then the second is let pass: the
    tablet's clock names her third, yet the tablet never saw the second."""
    hub.one(ADA, consumption(1))
    own = hub.base("part_consumption", "C-1", **{"r_T-1": 1})
    waits = hub.one(ADA, mutation(2, "update", "part_consumption", "C-1", {"part_id": "P-9", "lot": "L-2"}, own))
    hub.one(ADA, mutation(3, "update", "part_consumption", "C-1", {"reason": "worn"}, {**own, "r_T-1": 2}))
    pulled = hub.record("part_consumption", "C-1").clock
    hub.office("create", "part", "P-9", {"number": "900", "name": "Odd belt"})
    resolve_case(hub.store, OFFICE, str(waits.review_id), "incoming", None, "seen", None, hub.now)
    result = hub.one(TABLET, mutation(1, "update", "part_consumption", "C-1", {"lot": "L-1"}, pulled))

    assert code(waits) == ("parked", "unknown_part")
    assert pulled == {HUB: 2, "r_T-1": 3}
    assert [(d.field, d.kept) for d in result.decisions] == [("lot", "waiting")]


# -- groups --------------------------------------------------------------------------------------------------------


def test_a_group_goes_through_as_a_whole(hub: Hub) -> None:
    results = hub.push(
        ADA,
        {**consumption(1), "group": "g", "group_size": 2},
        {**consumption(2, "C-2"), "group": "g", "group_size": 2},
    ).results

    assert [r.status for r in results] == ["applied", "applied"]


def test_if_one_wish_of_a_group_is_rejected_all_are(hub: Hub) -> None:
    base = hub.base("task", "TK-1")
    results = hub.push(
        ADA,
        mutation(1, "update", "task", "TK-1", {"title": "x"}, base, group="g"),
        mutation(2, "update", "task", "TK-1", {"mandatory": True}, base, group="g"),
        mutation(3, "update", "task", "TK-1", {"title": "z"}, base),
    ).results

    assert [code(r) for r in results] == [
        ("rejected", "group_failed"),
        ("rejected", "not_permitted"),
        ("applied", None),
    ]
    assert hub.data("task", "TK-1")["title"] == "z"


def test_a_group_with_a_fact_is_parked_whole(hub: Hub) -> None:
    base = hub.base("task", "TK-1")
    results = hub.push(
        ADA,
        mutation(1, "update", "task", "TK-1", {"title": "x"}, base, group="g"),
        {**consumption(2, part_id="P-9"), "group": "g"},
        {**consumption(3, "C-2"), "group": "g"},
    ).results

    assert [code(r) for r in results] == [
        ("parked", "group_failed"),
        ("parked", "unknown_part"),
        ("parked", "group_failed"),
    ]
    assert len({r.review_id for r in results}) == len(hub.open_cases()) == 1
    assert hub.data("task", "TK-1")["title"] == "Look"


def test_a_fact_in_a_group_with_something_unreadable_is_parked_in_a_case(hub: Hub) -> None:
    fact, unreadable = hub.push(
        ADA, {**consumption(1), "group": "g"}, mutation(2, "update", "spaceship", "X", {}, group="g")
    ).results

    assert code(fact) == ("parked", "group_failed")
    assert code(unreadable) == ("rejected", "unknown_entity")
    assert hub.case(fact.review_id).record_id == "C-1"


def test_a_field_that_waits_does_not_stop_the_rest_of_its_group(hub: Hub) -> None:
    base = hub.base("work_order", "WO-1")
    hub.one(TABLET, mutation(1, "update", "work_order", "WO-1", {"resolution": "New belt"}, base))
    results = hub.push(
        ADA,
        mutation(1, "update", "work_order", "WO-1", {"resolution": "New pump"}, base, group="g"),
        {**consumption(2), "group": "g"},
    ).results

    assert [code(r) for r in results] == [("parked", None), ("applied", None)]


@pytest.mark.parametrize(
    "groups",
    [
        [("g", 3), ("g", 3)],
        [("g", 2)],
        [("g", None), (None, None), ("g", None)],
    ],
    ids=["one is missing", "cut off", "not in a row"],
)
def test_a_part_of_a_group_is_sent_back(hub: Hub, groups: list[tuple[str | None, int | None]]) -> None:
    bodies = [
        {**consumption(n, f"C-{n}"), **{k: v for k, v in (("group", g), ("group_size", size)) if v is not None}}
        for n, (g, size) in enumerate(groups, 1)
    ]
    with pytest.raises(GroupIncomplete):
        hub.push(ADA, *bodies)

    assert hub.store.state.ledger == {}


# -- numbers, replay and forks -------------------------------------------------------------------------------------


def test_a_replay_gets_the_same_answer_and_changes_nothing(hub: Hub) -> None:
    base = hub.base("work_order", "WO-1")
    hub.one(TABLET, mutation(1, "update", "work_order", "WO-1", {"resolution": "New belt"}, base))
    bodies = [
        mutation(1, "update", "work_order", "WO-1", {"resolution": "New pump"}, base),
        consumption(2, part_id="P-9"),
        mutation(3, "update", "work_order", "WO-1", {"priority": "low"}, base),
    ]
    first = hub.push(ADA, *bodies)
    state = hub.store.state.copy()
    hub.now += HOUR
    again = hub.push(ADA, *bodies)

    assert [r.status for r in first.results] == ["parked", "parked", "rejected"]
    assert again.results == [replace(r, duplicate=True, record=None) for r in first.results]
    assert (again.last_n, again.committed_seq) == (first.last_n, first.committed_seq)
    assert hub.store.state == state


def test_a_push_may_overlap_what_is_known(hub: Hub) -> None:
    hub.one(ADA, consumption(1))
    result = hub.push(ADA, consumption(1), consumption(2, "C-2"))

    assert [(r.n, r.duplicate) for r in result.results] == [(1, True), (2, False)]
    assert result.last_n == 2


def test_an_empty_push_says_where_the_replica_stands(hub: Hub) -> None:
    assert hub.push(ADA).last_n == 0
    hub.one(ADA, consumption(1))
    assert hub.push(ADA).last_n == 1


def test_a_gap_names_the_number_that_is_expected(hub: Hub) -> None:
    hub.one(ADA, consumption(1))
    with pytest.raises(MutationGap) as gap:
        hub.push(ADA, consumption(3, "C-3"))
    assert gap.value.extras == {"expected": 2}

    with pytest.raises(MutationGap) as hole:
        hub.push(ADA, consumption(2, "C-2"), consumption(4, "C-4"))
    assert hole.value.extras == {"expected": 3}
    assert hub.push(ADA).last_n == 1, "nothing of it was applied"


def test_a_copied_phone_is_told_where_it_parts_from_the_other(hub: Hub) -> None:
    hub.push(ADA, consumption(1), consumption(2, "C-2"))
    with pytest.raises(ReplicaForked) as forked:
        hub.push(ADA, consumption(1), consumption(2, "C-2", reason="another"), consumption(3, "C-3"))

    assert forked.value.extras["forked_at"] == 2
    assert [(r.n, r.status, r.duplicate) for r in forked.value.extras["results"]] == [(1, "applied", True)]
    assert hub.push(ADA).last_n == 2


def test_work_that_comes_again_under_another_name_is_known(hub: Hub) -> None:
    first = hub.one(ADA, consumption(1))
    renamed = {**consumption(1), "origin": {"replica": "r_T-1", "n": 1}}
    again = hub.push(ADA, renamed, consumption(2, "C-2"), replica="r_new").results

    assert again[0] == replace(first, duplicate=True, record=None)
    assert code(again[1]) == ("applied", None)
    assert hub.record("part_consumption", "C-1").version == 1


def test_other_work_under_a_known_name_is_not_mistaken_for_it(hub: Hub) -> None:
    hub.one(ADA, consumption(1))
    other = {**consumption(1, "C-5"), "origin": {"replica": "r_T-1", "n": 1}}

    assert hub.one(ADA, other, replica="r_copy").duplicate is False
    assert hub.data("part_consumption", "C-5")["quantity"] == "1"


def test_a_replica_of_somebody_else_does_not_exist(hub: Hub) -> None:
    hub.one(ADA, consumption(1), replica="r_shared")
    with pytest.raises(NotFound):
        hub.push(BEN, consumption(2, "C-2"), replica="r_shared")

    assert hub.one(TABLET, consumption(2, "C-2"), replica="r_shared").status == "applied"


@pytest.mark.parametrize("moment", ["before_commit", "after_commit"])
def test_a_push_whose_answer_is_lost_is_safe_to_send_again(hub: Hub, moment: str) -> None:
    armed = [True]

    def fail(name: str) -> None:
        if name == moment and armed:
            armed.clear()
            raise ConnectionError

    state, hub.store = hub.store.state, MemoryHub(fail)
    hub.store.state = state
    with pytest.raises(ConnectionError):
        hub.one(ADA, consumption(1))
    again = hub.one(ADA, consumption(1))

    assert again.duplicate == (moment == "after_commit")
    assert hub.record("part_consumption", "C-1").version == 1


# -- deletion ------------------------------------------------------------------------------------------------------


def test_an_edit_that_knew_of_the_deletion_is_refused(hub: Hub) -> None:
    hub.office("delete", "task", "TK-1")
    base = hub.base("task", "TK-1")

    assert code(hub.one(ADA, mutation(1, "update", "task", "TK-1", {"title": "x"}, base))) == (
        "rejected",
        "record_deleted",
    )


def test_an_edit_that_did_not_know_brings_a_task_back(hub: Hub) -> None:
    base = hub.base("task", "TK-1")
    hub.office("delete", "task", "TK-1")
    result = hub.one(ADA, mutation(1, "update", "task", "TK-1", {"title": "x"}, base))

    assert code(result) == ("merged", None)
    assert [(d.policy, d.kept) for d in result.decisions] == [("edit_resurrects", "incoming")]
    assert hub.record("task", "TK-1").deleted is None


@pytest.mark.parametrize(
    ("entity", "id", "patch"), [("work_order", "WO-1", {"title": "x"}), ("note", "N-1", {"text": "x"})]
)
def test_an_edit_or_fact_on_what_was_deleted_waits(hub: Hub, entity: str, id: str, patch: dict[str, Any]) -> None:
    base = hub.base(entity, id)
    hub.office("delete", entity, id)
    result = hub.one(ADA, mutation(1, "update", entity, id, patch, base))

    assert code(result) == ("parked", "record_deleted")
    assert hub.case(result.review_id).type == "delete_conflict"
    assert hub.record(entity, id).deleted


def test_deleting_what_is_deleted_is_applied(hub: Hub) -> None:
    hub.one(ADA, consumption(1))
    base = hub.base("part_consumption", "C-1")
    hub.office("delete", "part_consumption", "C-1")
    result = hub.one(ADA, mutation(2, "delete", "part_consumption", "C-1", base=base))

    assert code(result) == ("applied", None)
    assert result.version == 2


def test_a_deletion_that_missed_an_edit_waits(hub: Hub) -> None:
    hub.one(ADA, consumption(1))
    base = hub.base("part_consumption", "C-1")
    hub.office("update", "part_consumption", "C-1", {"reason": "checked"})
    result = hub.one(ADA, mutation(2, "delete", "part_consumption", "C-1", base=base))

    assert code(result) == ("parked", None)
    assert hub.case(result.review_id).incoming == {"*": "delete"}
    assert hub.record("part_consumption", "C-1").deleted is None


# -- clocks --------------------------------------------------------------------------------------------------------


def happened(hub: Hub, at: int, n: int = 1, actor: Any = ADA, **more: Any) -> int:
    """The time that the hub gives to a value that was said to be written at `at`."""
    body = consumption(n, f"C-{actor.name}-{n}".replace(":", "-"), reason="x")
    hub.one(actor, {**body, "occurred_at": format_moment(at), **more})
    return hub.record("part_consumption", body["id"]).fields["reason"].writes[0].at


def test_an_honest_time_is_kept(hub: Hub) -> None:
    hub.now = MORNING + HOUR

    assert happened(hub, MORNING + HOUR // 2) == MORNING + HOUR // 2


def test_nothing_happens_after_it_is_received(hub: Hub) -> None:
    assert happened(hub, hub.now + MINUTE) == hub.now


def test_nothing_happens_before_what_it_had_seen(hub: Hub) -> None:
    seen = hub.store.state.head

    assert happened(hub, MORNING - MINUTE, seen=seen) == MORNING
    assert happened(hub, MORNING - HOUR, actor=TABLET) == MORNING - HOUR, "it had seen nothing"


def test_nothing_happens_before_the_replicas_own_work_before_it(hub: Hub) -> None:
    hub.now = MORNING + HOUR
    first = happened(hub, MORNING + 30 * MINUTE)

    assert happened(hub, MORNING + 29 * MINUTE, n=2) == first


@pytest.mark.parametrize("wrong", [MORNING - SKEW_BOUND_MS - 1, MORNING + HOUR + SKEW_BOUND_MS + 1])
def test_no_rule_decides_by_a_clock_that_is_certainly_wrong(hub: Hub, wrong: int) -> None:
    base = hub.base("work_order", "WO-1")
    hub.now = MORNING + HOUR
    hub.one(TABLET, mutation(1, "update", "work_order", "WO-1", {"failure_code": "F1"}, base))
    late = mutation(1, "update", "work_order", "WO-1", {"failure_code": "F2"}, base, occurred_at=format_moment(wrong))
    result = hub.one(ADA, {**late, "seen": hub.store.state.head - 1})

    assert code(result) == ("parked", None)
    assert hub.case(result.review_id).type == "clock_suspect"


def test_a_wrong_clock_does_not_move_later_honest_work(hub: Hub) -> None:
    hub.now = MORNING + HOUR
    happened(hub, MORNING + 9 * HOUR)

    assert happened(hub, MORNING + MINUTE, n=2) == MORNING + MINUTE


def test_what_was_seen_before_a_restore_is_no_position_of_the_restored_feed(hub: Hub) -> None:
    """Ada worked at nine and had seen all there was. At ten the hub was restored, others went on; she comes at noon."""
    backup = hub.store.backup()
    hub.push(TABLET, *(consumption(n, f"C-{n}") for n in range(1, 9)))
    hub.now, nine, seen = MORNING + HOUR, MORNING + HOUR, hub.store.state.head
    hub.now = MORNING + 2 * HOUR
    hub.store.restore(backup, epoch=1)
    hub.one(TABLET, consumption(1))
    hub.now = MORNING + 4 * HOUR

    assert happened(hub, nine, seen=seen) == nine
    assert hub.record("part_consumption", "C-device-T-1-1").fields["reason"].writes[0].suspect is False


def test_work_without_a_time_happened_when_it_came(hub: Hub) -> None:
    hub.one(ADA, consumption(1, reason="x"))

    assert hub.record("part_consumption", "C-1").fields["reason"].writes[0].at == hub.now


# -- what a change causes ------------------------------------------------------------------------------------------


@pytest.fixture
def counted(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every note is counted on the shelf of the van."""

    def needs(id: str, patch: Any) -> list[Key]:
        return [Key("toolkit_item", "TI-1")]

    def effects(before: Record | None, after: Record, origin: Origin, view: Any) -> list[Effect]:
        shelf = view(Key("toolkit_item", "TI-1"))
        count = int(shelf.data.get("on_hand", 0)) if shelf else 0
        patch = {"on_hand": str(count + 1), "location_id": "VAN-1", "part_id": "P-1"}
        return [Effect(Key("toolkit_item", "TI-1"), patch)]

    monkeypatch.setitem(ENTITY_TYPES, "note", replace(ENTITY_TYPES["note"], needs=needs, effects=effects))


@pytest.mark.usefixtures("counted")
def test_each_mutation_sees_what_those_before_it_caused(hub: Hub) -> None:
    about = {"parent": {"entity": "work_order", "id": "WO-1"}, "text": "x"}
    results = hub.push(ADA, *(mutation(n, "create", "note", f"N-{n}{n}", about) for n in (1, 2, 3))).results
    shelf = hub.record("toolkit_item", "TI-1")

    assert [r.n for r in results] == [1, 2, 3], "what was caused has no answer of its own"
    assert (shelf.data["on_hand"], shelf.version) == ("3", 3)
    assert shelf.clock == {HUB: 3}, "what an effect derives is named by the hub alone"
    assert [e.actor["n"] for e in hub.store.state.history[shelf.key]] == [None] * 3


@pytest.mark.usefixtures("counted")
def test_a_group_that_fails_causes_nothing(hub: Hub) -> None:
    about = {"parent": {"entity": "work_order", "id": "WO-1"}, "text": "x"}
    hub.push(
        ADA, mutation(1, "create", "note", "N-11", about, group="g"), {**consumption(2, part_id="P-9"), "group": "g"}
    )

    assert Key("toolkit_item", "TI-1") not in hub.store.state.records
    assert Key("note", "N-11") not in hub.store.state.records


# -- what is written beside the record -----------------------------------------------------------------------------


def test_history_keeps_what_was_sent_and_what_became_of_it(hub: Hub) -> None:
    base = hub.base("work_order", "WO-1")
    hub.one(ADA, mutation(1, "update", "work_order", "WO-1", {"meter_reading": "5"}, base))
    hub.one(TABLET, mutation(1, "update", "work_order", "WO-1", {"meter_reading": "3"}, base))
    entry = hub.store.state.history[Key("work_order", "WO-1")][-1]

    assert entry.actor == {"kind": "device", "id": "device:tablet", "replica": "r_tablet", "n": 1}
    assert [(f["before"], f["after"], f["sent"], f["kept"]) for f in entry.fields] == [("5", "5", "3", "current")]


def test_a_deletion_stands_in_the_history(hub: Hub) -> None:
    hub.office("delete", "task", "TK-1")
    (change,) = hub.store.state.history[Key("task", "TK-1")][-1].fields

    assert (change["name"], change["after"]) == ("*", True)


@pytest.mark.parametrize(("priority", "impact"), [("normal", 20), ("high", 40), ("emergency", 60)])
def test_urgent_work_weighs_more_in_the_queue(hub: Hub, priority: str, impact: int) -> None:
    hub.office("update", "work_order", "WO-1", {"priority": priority})
    base = hub.base("work_order", "WO-1")
    hub.one(ADA, mutation(1, "update", "work_order", "WO-1", {"resolution": "a"}, base))
    result = hub.one(TABLET, mutation(1, "update", "work_order", "WO-1", {"resolution": "b"}, base))

    assert hub.case(result.review_id).impact == impact


def test_errors_say_what_to_do() -> None:
    assert "Send" in MutationGap().detail
    assert SyncError("other words").detail == "other words"


def test_a_case_tells_of_every_field_why_it_waits(hub: Hub) -> None:
    both = {"resolution": "a", "description": "b"}
    hub.one(TABLET, mutation(1, "update", "work_order", "WO-1", both, {HUB: 1}, was=dict.fromkeys(both)))
    theirs = {"resolution": "c", "description": "d"}
    opened = hub.one(ADA, mutation(1, "update", "work_order", "WO-1", theirs, {HUB: 1}, was=dict.fromkeys(both)))
    again = {"resolution": "e"}
    hub.one(ADA, mutation(2, "update", "work_order", "WO-1", again, {HUB: 1, "r_T-1": 1}, was={"resolution": "c"}))

    case = hub.case(opened.review_id)
    assert case.incoming == {"resolution": "e", "description": "d"}
    assert case.evidence["why"].keys() == {"resolution", "description"}


def test_whoever_lost_a_job_is_not_told_what_it_holds_by_now(hub: Hub) -> None:
    hub.one(
        TABLET, mutation(1, "update", "work_order", "WO-1", {"resolution": "a"}, {HUB: 1}, was={"resolution": None})
    )
    captured = format_moment(hub.now)
    hub.now += HOUR
    hub.office("update", "work_order", "WO-1", {"assignee_id": "T-2"})
    late = {"occurred_at": captured, "was": {"resolution": None}}

    result = hub.one(ADA, mutation(1, "update", "work_order", "WO-1", {"resolution": "b"}, {HUB: 1}, **late))

    assert code(result) == ("parked", None)
    assert (result.record, result.version, result.clock) == (None, None, None)
    assert [(d.field, d.kept, d.why) for d in result.decisions] == [("resolution", "waiting", "")]
