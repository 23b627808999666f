"""What waits for a person or for a record: who may see it, when it is applied, and with whose authority."""

from __future__ import annotations

from typing import Any

import pytest

from server.services.conflicts import resolve_case
from sync.clock import HUB
from sync.entity import REVIEWER
from sync.errors import NotFound
from sync.record import Key
from sync.store import Actor
from tests.support.hub import COMPANY, Hub, device, mutation

ADA, BEN = device("T-1"), device("T-2")
JUDGE = Actor("user", "user:judge", REVIEWER, "platform", ("*",))


def decide(hub: Hub, case_id: str | None, option: str = "incoming", values: Any = None, actor: Actor = JUDGE) -> Any:
    assert case_id
    return resolve_case(hub.store, actor, case_id, option, values, "because", None, hub.now)


@pytest.fixture
def hub() -> Hub:
    return Hub()


def consumption(n: int, id: str, **more: Any) -> dict[str, Any]:
    patch = {"work_order_id": "WO-1", "part_id": "P-1", "quantity": "1", **more.pop("patch", {})}
    return mutation(n, "create", "part_consumption", id, patch, **more)


def test_a_decision_applies_what_awaited_a_record_once(hub: Hub) -> None:
    entry = {"technician_id": "T-1", "kind": "work"}
    patch = {"title": "X", "assignee_id": "T-1"}
    got = hub.one(
        ADA, mutation(1, "update", "work_order", "WO-9", {"labour": {"$append": [entry]}}, {HUB: 5}, was={"labour": []})
    )
    assert got.status == "parked"
    decide(hub, got.review_id, "values", {**patch, "status": "assigned"})
    assert hub.data("work_order", "WO-9")["labour"] == [entry]


def test_corrected_values_are_not_followed_by_what_they_corrected(hub: Hub) -> None:
    got = hub.one(ADA, mutation(1, "update", "work_order", "WO-9", {"title": "sent"}, {HUB: 5}, was={"title": ""}))
    decide(hub, got.review_id, "values", {"title": "right", "assignee_id": "T-1"})
    assert hub.data("work_order", "WO-9")["title"] == "right"


def test_a_record_that_appears_does_not_split_a_group_that_waits(hub: Hub) -> None:
    more = {"group": "g", "group_size": 2}
    results = hub.push(
        ADA,
        mutation(1, "create", "note", "N-9", {"parent": {"entity": "work_order", "id": "WO-1"}, "text": "hi"}, **more),
        mutation(2, "update", "work_order", "WO-9", {"title": "sent"}, {HUB: 5}, was={"title": ""}, **more),
    ).results
    assert [r.status for r in results] == ["parked", "parked"]
    hub.office("create", "work_order", "WO-9", {"title": "t", "assignee_id": "T-1"})
    waiting = hub.store.state.waiting
    applied = hub.data("work_order", "WO-9")["title"] == "sent"
    noted = Key("note", "N-9") in hub.store.state.records
    assert applied == noted
    if not noted:
        assert len(waiting) == 2
        assert hub.case(results[0].review_id).status == "open"


def test_a_decision_about_one_mutation_lets_no_other_of_its_group_do_what_its_sender_may_not(hub: Hub) -> None:
    more = {"group": "g", "group_size": 3}
    results = hub.push(
        ADA,
        consumption(1, "C-1", patch={"part_id": "P-404"}, **more),
        mutation(
            2,
            "update",
            "work_order",
            "WO-2",
            {"assignee_id": "T-1"},
            hub.base("work_order", "WO-2"),
            was={"assignee_id": "T-2"},
            **more,
        ),
        mutation(3, "delete", "work_order", "WO-1", base=hub.base("work_order", "WO-1"), **more),
    ).results
    assert [r.status for r in results] == ["parked"] * 3
    decide(hub, results[0].review_id)
    assert hub.data("part_consumption", "C-1")["part_id"] == "P-404"
    assert hub.data("work_order", "WO-2")["assignee_id"] == "T-2"
    assert hub.record("work_order", "WO-1").deleted is None
    assert len(hub.store.state.waiting) == 2
    assert len(hub.open_cases()) == 2


def test_what_waits_behind_a_creation_may_not_write_more_than_its_sender(hub: Hub) -> None:
    results = hub.push(
        ADA,
        consumption(1, "C-1", patch={"part_id": "P-404"}),
        mutation(
            2,
            "update",
            "part_consumption",
            "C-1",
            {"estimated_quantity": "5"},
            {"r_T-1": 1},
            was={"estimated_quantity": None},
        ),
        mutation(3, "update", "part_consumption", "C-1", {"quantity": "3"}, {"r_T-1": 2}, was={"quantity": "1"}),
    ).results
    decide(hub, results[0].review_id)
    data = hub.data("part_consumption", "C-1")
    assert data.get("estimated_quantity") is None


def test_a_creation_that_waits_is_nothing_to_another_technician(hub: Hub) -> None:
    parked = hub.one(ADA, consumption(1, "C-1", patch={"part_id": "P-404"}))

    def said(id: str, who: str) -> Any:
        r = hub.one(
            BEN,
            mutation(1, "update", "part_consumption", id, {"quantity": "9"}, {who: 1}, was={"quantity": "1"}),
            replica=who,
        )
        return r.status, r.problem and r.problem.code, r.review_id == parked.review_id

    assert said("C-1", "r_a") == said("C-2", "r_b")


def test_a_reference_to_what_waits_of_another_technician_leads_nowhere(hub: Hub) -> None:
    parked = hub.one(
        ADA, mutation(1, "create", "task", "TK-9", {"work_order_id": "WO-404", "title": "x", "answers": [{"a": 1}]})
    )
    assert parked.status == "parked", parked

    def said(id: str, who: str) -> Any:
        r = hub.one(BEN, consumption(1, "C-" + who, patch={"work_order_id": "WO-2", "task_id": id}), replica=who)
        return r.status, r.problem and r.problem.code, r.review_id == parked.review_id

    assert said("TK-9", "r_a") == said("TK-8", "r_b")


def test_two_technicians_who_await_one_record_do_not_share_a_case(hub: Hub) -> None:
    first = hub.one(ADA, mutation(1, "update", "work_order", "WO-9", {"title": "sent"}, {HUB: 5}, was={"title": ""}))
    second = hub.one(BEN, mutation(1, "update", "work_order", "WO-9", {"title": "ben"}, {HUB: 5}, was={"title": ""}))
    assert first.review_id != second.review_id


def test_a_record_out_of_reach_is_awaited_like_one_that_does_not_exist(hub: Hub) -> None:
    def said(id: str, who: str) -> Any:
        results = hub.push(
            ADA,
            mutation(1, "update", "work_order", id, {"title": "a"}, {HUB: 1}, was={"title": ""}),
            mutation(2, "update", "work_order", id, {"title": "b"}, {HUB: 1, who: 1}, was={"title": "a"}),
            replica=who,
        ).results
        return [r.status for r in results], len({r.review_id for r in results})

    assert said("WO-2", "r_a") == said("WO-404", "r_b")


def test_an_origin_of_another_technicians_replica_tells_nothing(hub: Hub) -> None:
    body = mutation(
        1, "update", "work_order", "WO-1", {"title": "mine"}, hub.base("work_order", "WO-1"), was={"title": "Fix it"}
    )
    hub.one(ADA, body, replica="r_ada")
    lied = hub.one(BEN, {**body, "origin": {"replica": "r_ada", "n": 1}}, replica="r_ben")
    assert not lied.duplicate
    assert lied.version is None


def test_nobody_can_answer_for_a_mutation_of_another_technician(hub: Hub) -> None:
    body = mutation(
        1, "update", "work_order", "WO-1", {"title": "mine"}, hub.base("work_order", "WO-1"), was={"title": "Fix it"}
    )
    hub.one(BEN, {**body, "origin": {"replica": "r_ada", "n": 1}}, replica="r_ben")
    hub.one(ADA, {**body, "origin": {"replica": "r_ada", "n": 1}}, replica="r_ada2")
    assert hub.data("work_order", "WO-1")["title"] == "mine"


def test_one_origin_with_two_contents_is_two_mutations(hub: Hub) -> None:
    def told(n: int, text: str) -> dict[str, Any]:
        return mutation(
            n, "create", "note", f"N-{text}", {"parent": {"entity": "work_order", "id": "WO-1"}, "text": text}
        )

    hub.one(ADA, told(1, "x"), replica="r_0")
    results = hub.push(
        ADA,
        {**told(1, "x"), "origin": {"replica": "r_0", "n": 1}},
        {**told(2, "y"), "origin": {"replica": "r_0", "n": 1}},
        replica="r_1",
    ).results
    assert [r.duplicate for r in results] == [True, False]
    assert Key("note", "N-y") in hub.store.state.records


def test_what_stands_in_a_push_twice_takes_effect_once(hub: Hub) -> None:
    entry = {"technician_id": "T-1"}
    one = {
        "op": "update",
        "entity": "work_order",
        "id": "WO-1",
        "patch": {"labour": {"$append": [entry]}},
        "base": hub.base("work_order", "WO-1"),
        "origin": {"replica": "r_0", "n": 7},
    }
    hub.push(ADA, {"n": 1, **one}, {"n": 2, **one})
    assert hub.data("work_order", "WO-1")["labour"] == [entry]


def test_a_corrected_reference_puts_the_record_into_its_scopes(hub: Hub) -> None:
    got = hub.one(ADA, consumption(1, "C-1", patch={"work_order_id": "WO-404"}))
    decide(hub, got.review_id, "values", {"work_order_id": "WO-1"})
    assert "tech:T-1" in hub.record("part_consumption", "C-1").scopes


def test_a_parent_that_appears_late_takes_its_children_into_its_scopes(hub: Hub) -> None:
    got = hub.one(ADA, consumption(1, "C-1", patch={"work_order_id": "WO-9"}))
    decide(hub, got.review_id)
    hub.office("create", "work_order", "WO-9", {"title": "x", "assignee_id": "T-1", "depot_id": "D-1"})
    assert hub.record("part_consumption", "C-1").scopes == ("depot:D-1", "tech:T-1")


def conflict(hub: Hub) -> str:
    base = hub.base("work_order", "WO-1")
    patch = {"title": "A", "description": "A"}
    was = {"title": "Fix it", "description": None}
    hub.one(ADA, mutation(1, "update", "work_order", "WO-1", patch, base, was=was), replica="r_a")
    got = hub.one(
        ADA,
        mutation(1, "update", "work_order", "WO-1", {"title": "B", "description": "B"}, base, was=was),
        replica="r_b",
    )
    assert got.status == "parked"
    assert got.review_id
    return got.review_id


def test_a_decision_about_some_fields_leaves_none_waiting(hub: Hub) -> None:
    case_id = conflict(hub)
    decide(hub, case_id, "values", {"title": "C"})
    record = hub.record("work_order", "WO-1")
    assert record.data["title"] == "C"
    assert record.data["description"] == "A"
    assert all(state.case is None for state in record.fields.values())


def test_a_case_shows_both_sides_also_when_the_standing_one_goes_on(hub: Hub) -> None:
    base = hub.base("work_order", "WO-1")
    case_id = conflict(hub)
    got = hub.one(
        ADA,
        mutation(2, "update", "work_order", "WO-1", {"title": "A2"}, {**base, "r_a": 1}, was={"title": "A"}),
        replica="r_a",
    )
    assert got.review_id == case_id
    case = hub.case(case_id)
    assert hub.data("work_order", "WO-1")["title"] == "A2"
    assert case.current["title"] == "A2"
    assert case.incoming["title"] == "B"
    decide(hub, case_id, "current")
    assert hub.data("work_order", "WO-1")["title"] == "A2"


def test_a_contested_deletion_can_be_decided_with_values(hub: Hub) -> None:
    hub.one(ADA, consumption(1, "C-1"))
    base = hub.base("part_consumption", "C-1")
    counted = mutation(1, "update", "part_consumption", "C-1", {"quantity": "2"}, base, was={"quantity": "1"})
    hub.one(ADA, counted, replica="r_x")
    got = hub.one(ADA, mutation(1, "delete", "part_consumption", "C-1", base=base), replica="r_y")
    assert got.status == "parked"
    decide(hub, got.review_id, "values", {"quantity": "3"})
    assert hub.data("part_consumption", "C-1")["quantity"] == "3"
    assert hub.record("part_consumption", "C-1").deleted is None


def test_what_a_person_lets_pass_follows_what_the_record_shows(hub: Hub) -> None:
    hub.one(ADA, consumption(1, "C-1"), replica="r_a")
    base = hub.base("part_consumption", "C-1")
    got = hub.one(
        ADA,
        mutation(
            2,
            "update",
            "part_consumption",
            "C-1",
            {"quantity": "5", "location_id": "L-404"},
            base,
            was={"quantity": "1", "location_id": None},
        ),
        replica="r_a",
    )
    assert got.status == "parked"
    hub.one(
        ADA,
        mutation(1, "update", "part_consumption", "C-1", {"quantity": "7"}, base, was={"quantity": "1"}),
        replica="r_b",
    )
    decide(hub, got.review_id)
    record = hub.record("part_consumption", "C-1")
    waits = record.fields["quantity"].case
    assert (waits is None and record.data["quantity"] == "5") or hub.case(waits).status == "open"


def test_what_is_let_pass_into_a_conflict_keeps_its_case_open() -> None:
    hub = Hub()
    hub.store.restore(hub.store.backup(), 7)
    hub.one(ADA, mutation(1, "update", "work_order", "WO-9", {"title": "sent"}, {HUB: 5}, was={"title": "lost"}))
    hub.office("create", "work_order", "WO-9", {"title": "anew", "assignee_id": "T-1"})
    waits = hub.record("work_order", "WO-9").fields["title"].case
    assert waits
    assert hub.case(waits).status == "open"


TWO_DEPOTS = {
    **COMPANY,
    ("location", "D-2"): {"name": "Depot 2", "kind": "warehouse", "depot_id": "D-2"},
}


def test_a_case_goes_where_its_record_goes() -> None:
    hub = Hub(TWO_DEPOTS)
    case_id = conflict(hub)
    hub.office("update", "work_order", "WO-1", {"depot_id": "D-2"})
    one, two = (Actor("user", f"user:{d}", REVIEWER, "platform", (f"depot:{d}",)) for d in ("D-1", "D-2"))
    with pytest.raises(NotFound):
        decide(hub, case_id, actor=one)
    decide(hub, case_id, actor=two)


def test_what_waited_for_a_record_may_refer_to_another(hub: Hub) -> None:
    hub.office("create", "location", "VAN-2", {"name": "v", "kind": "van", "depot_id": "D-1", "assigned_to": "T-1"})
    got = hub.one(
        ADA,
        mutation(1, "update", "rma", "R-9", {"from_location_id": "VAN-2"}, {HUB: 5}, was={"from_location_id": None}),
    )
    assert got.status == "parked"
    hub.office("create", "rma", "R-9", {"type": "standard_repair", "part_id": "P-1", "work_order_id": "WO-1"})
    assert hub.data("rma", "R-9").get("from_location_id") == "VAN-2"


def test_what_a_case_shows_is_told_by_number_not_by_a_claimed_origin(hub: Hub) -> None:
    lie = {"group": "g", "group_size": 2, "origin": {"replica": "r_0", "n": 1}}
    note = {"parent": {"entity": "work_order", "id": "WO-1"}, "text": "x"}
    hub.one(ADA, mutation(1, "create", "note", "N-2", note))
    base = hub.base("note", "N-2", **{"r_T-1": 1})
    results = hub.push(
        ADA,
        mutation(2, "update", "note", "N-2", {"parent": {"entity": "work_order", "id": "WO-404"}}, base, **lie),
        mutation(3, "delete", "note", "N-2", base=base, **lie),
    ).results
    assert [r.status for r in results] == ["parked", "parked"]
    decide(hub, results[0].review_id)

    assert hub.record("note", "N-2").deleted is None
    assert [w.name for w in hub.store.state.waiting.values()] == [("r_T-1", 3)]
    assert len(hub.open_cases()) == 1
