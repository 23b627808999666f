"""Every policy is a function of the set of concurrent writes: it knows no order of arrival."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.clock import Dot, Origin
from sync.entity import Contest, Field, StateMachine, Transition
from sync.policy import POLICIES, SKEW_BOUND_MS, Verdict
from sync.record import MISSING, Write

MACHINE = StateMachine(
    precedence=("assigned", "in_progress", "cancelled", "incomplete", "completed"),
    transitions=(Transition("assigned", "in_progress", ("technician",)),),
    contests=(
        Contest(("completed", "cancelled"), earlier_wins=True),
        Contest(("in_progress", "cancelled")),
        Contest(("completed", "incomplete")),
    ),
)
FIELDS = {
    "owner_wins": Field("assignee_id", "text", "owner_wins", owner="fsm"),
    "last_writer": Field("phone", "text", "last_writer"),
    "device_wins": Field("serial", "text", "device_wins"),
    "largest": Field("meter", "decimal", "largest"),
    "smallest": Field("actual_start", "moment", "smallest"),
    "state_machine": Field("status", "choice", "state_machine", states=MACHINE),
    "merge3": Field("description", "text", "merge3"),
    "review": Field("quantity", "decimal", "review"),
}
COMMUTING = {"counter", "log", "add_wins_set"}
VALUES: dict[str, list[Any]] = {
    "largest": ["1.5", "1.50", "20", "-3", None],
    "smallest": ["2026-11-20T09:00:00Z", "2026-11-20T10:30:00+01:00", "2026-11-20T09:00:00.001Z", None],
    "state_machine": [*MACHINE.precedence, "unheard_of"],
    "merge3": ["a\nb\nc\n", "A\nb\nc\n", "a\nb\nC\n", "", None],
}


def decide(policy: str, writes: Sequence[Write]) -> Verdict:
    return POLICIES[policy](writes, FIELDS[policy])


def told(verdict: Verdict) -> tuple[Any, ...]:
    """All that a verdict says but for the version under which the winner was accepted."""
    return (verdict.value, verdict.winner and verdict.winner.origin, verdict.waits, verdict.why)


def writes_of(policy: str, min_size: int = 1, max_size: int = 4) -> st.SearchStrategy[list[Write]]:
    write = st.builds(
        Write,
        value=st.sampled_from(VALUES.get(policy, ["x", "y", "z", None])),
        dot=st.builds(Dot, st.integers(1, 99)),
        origin=st.builds(Origin, st.sampled_from(["r_a", "r_b", "r_c"]), st.integers(1, 3)),
        at=st.sampled_from([0, 1_000, SKEW_BOUND_MS, SKEW_BOUND_MS + 1, 10 * SKEW_BOUND_MS]),
        system=st.sampled_from(["device", "fsm", "erp"]),
        suspect=st.booleans(),
        was=st.sampled_from(["a\nb\nc\n", MISSING]),
    )
    return st.lists(write, min_size=min_size, max_size=max_size)


def a(value: Any, at: int = 0, system: str = "device", replica: str = "r_a", n: int = 1, **more: Any) -> Write:
    return Write(value, Dot(n, replica, n), Origin(replica, n), at, system, **more)


def b(value: Any, at: int = 0, system: str = "device", **more: Any) -> Write:
    return a(value, at, system, "r_b", 1, **more)


def test_every_policy_is_tested_here() -> None:
    assert FIELDS.keys() | COMMUTING == POLICIES.keys()


# -- laws of all policies ------------------------------------------------------------------------------------------

every_policy = pytest.mark.parametrize("policy", FIELDS)
quickly = settings(max_examples=40)  # for each of eight policies


@every_policy
@quickly
@given(data=st.data())
def test_the_order_of_arrival_does_not_matter(policy: str, data: st.DataObject) -> None:
    writes = data.draw(writes_of(policy))

    assert len({told(decide(policy, order)) for order in permutations(writes)}) == 1


@every_policy
@quickly
@given(data=st.data())
def test_a_write_that_comes_twice_counts_once(policy: str, data: st.DataObject) -> None:
    writes = data.draw(writes_of(policy))

    assert told(decide(policy, [*writes, *writes])) == told(decide(policy, list(dict.fromkeys(writes)) or writes))


@every_policy
@quickly
@given(data=st.data())
def test_versions_of_the_hub_do_not_matter(policy: str, data: st.DataObject) -> None:
    writes = data.draw(writes_of(policy))
    versions = data.draw(st.lists(st.integers(1, 99), min_size=len(writes), max_size=len(writes)))
    renumbered = [replace(w, dot=Dot(version)) for w, version in zip(writes, versions, strict=True)]

    assert told(decide(policy, renumbered)) == told(decide(policy, writes))


@every_policy
@quickly
@given(data=st.data())
def test_only_a_value_that_somebody_wrote_wins(policy: str, data: st.DataObject) -> None:
    writes = data.draw(writes_of(policy))
    verdict = decide(policy, writes)

    assert verdict.waits or verdict.winner in writes or policy == "merge3"
    assert verdict.winner is None or verdict.winner.value == verdict.value
    assert verdict.why


@every_policy
@quickly
@given(data=st.data())
def test_saying_what_stands_already_changes_nothing(policy: str, data: st.DataObject) -> None:
    """A value that a rule chose is not brought into question by one more person who wrote the same."""
    writes = data.draw(writes_of(policy))
    verdict = decide(policy, writes)
    if verdict.winner is None:
        return
    same = replace(data.draw(writes_of(policy, 1, 1))[0], value=verdict.value)

    assert decide(policy, [*writes, same]).value == verdict.value


@every_policy
@quickly
@given(data=st.data())
def test_a_rule_that_waits_names_no_value(policy: str, data: st.DataObject) -> None:
    verdict = decide(policy, data.draw(writes_of(policy)))

    assert verdict.waits == (verdict.winner is None and verdict.value is MISSING)


@pytest.mark.parametrize("policy", ["last_writer", "largest", "smallest", "device_wins", "owner_wins"])
def test_a_tie_ends_in_the_origin(policy: str) -> None:
    value = "2026-11-20T09:00:00Z" if policy == "smallest" else "1"
    first, second = a(value, n=2), replace(a(value, n=10), dot=Dot(1))
    verdict = decide(policy, [second, first])

    assert verdict.winner is (first if policy == "smallest" else second)


def test_two_copies_of_one_database_tie_in_the_value() -> None:
    """A phone that was restored to a second one: both call their next mutation by the same name."""
    one, two = a("x"), replace(a("y"), dot=Dot(9, "r_a", 1))

    assert decide("last_writer", [one, two]).value == decide("last_writer", [two, one]).value == "y"


# -- each policy by itself -----------------------------------------------------------------------------------------


def test_the_last_writer_stands() -> None:
    assert decide("last_writer", [a("early", 1), b("late", 2)]).value == "late"


@pytest.mark.parametrize("policy", ["last_writer", "device_wins", "owner_wins"])
def test_a_wrong_clock_decides_nothing(policy: str) -> None:
    assert decide(policy, [a("x", 1, suspect=True), b("y", 2)]).waits
    assert decide(policy, [a("x", 1), b("y", 2, suspect=True)]).waits
    assert decide(policy, [a("x", 1, suspect=True), b("y", 2, suspect=True)]).waits


@pytest.mark.parametrize("policy", ["last_writer", "device_wins", "owner_wins"])
def test_a_wrong_clock_does_not_matter_where_both_say_the_same(policy: str) -> None:
    assert decide(policy, [a("x", 1, suspect=True), b("x", 2)]).value == "x"


def test_a_wrong_clock_does_not_matter_where_times_do_not() -> None:
    assert decide("owner_wins", [a("x", 9, suspect=True), b("y", 2, "fsm")]).value == "y"
    assert decide("largest", [a("1", 9, suspect=True), b("2", 2)]).value == "2"
    assert decide("state_machine", [a("assigned", 9, suspect=True), b("in_progress", 2)]).value == "in_progress"


def test_the_owner_wins_whenever_it_wrote() -> None:
    assert decide("owner_wins", [a("device", 9), b("office", 1, "fsm")]).value == "office"
    assert decide("owner_wins", [a("office", 1, "fsm"), b("office too", 2, "fsm")]).value == "office too"
    assert decide("owner_wins", [a("device", 9), b("erp", 1, "erp")]).value == "device"


def test_what_was_seen_on_site_beats_the_office() -> None:
    assert decide("device_wins", [a("seen", 1), b("filed", 9, "fsm")]).value == "seen"
    assert decide("device_wins", [a("filed", 1, "erp"), b("filed too", 9, "fsm")]).value == "filed too"


def test_the_largest_reading_stands_as_a_number() -> None:
    assert decide("largest", [a("9"), b("10")]).value == "10"
    assert decide("largest", [a(None), b("-1")]).value == "-1"
    assert decide("largest", [a(3), b(20)]).value == 20
    assert decide("largest", [a(None), b(None)]).value is None


def test_the_smallest_moment_stands_whatever_its_offset() -> None:
    """Half past ten in Paris is before ten in London."""
    assert decide("smallest", [a("2026-11-20T10:00:00Z"), b("2026-11-20T10:30:00+01:00")]).value == (
        "2026-11-20T10:30:00+01:00"
    )
    assert decide("smallest", [a(None), b("2026-11-20T10:00:00Z")]).value == "2026-11-20T10:00:00Z"
    assert decide("smallest", [a(None), b(None)]).value is None


def test_the_state_further_along_stands() -> None:
    assert decide("state_machine", [a("in_progress", 9), b("completed", 1)]).value == "completed"
    assert decide("state_machine", [a("assigned"), b("unheard_of")]).value == "assigned"


def test_a_person_decides_between_contested_states() -> None:
    verdict = decide("state_machine", [a("in_progress", 0), b("cancelled", 10 * SKEW_BOUND_MS)])

    assert verdict.waits
    assert verdict.why == (
        "in_progress at 1970-01-01T00:00:00.000Z, cancelled at 1970-01-01T00:20:00.000Z: "
        "a person has to decide which holds"
    )


def test_work_that_was_done_before_the_cancellation_stands() -> None:
    assert decide("state_machine", [a("completed", 0), b("cancelled", SKEW_BOUND_MS + 1)]).value == "completed"


def test_a_close_call_between_work_and_cancellation_is_for_a_person() -> None:
    assert decide("state_machine", [a("completed", 0), b("cancelled", SKEW_BOUND_MS)]).waits
    assert decide("state_machine", [a("completed", 9 * SKEW_BOUND_MS), b("cancelled", 0)]).waits


def test_no_rule_believes_a_wrong_clock_about_work_and_cancellation() -> None:
    late = 10 * SKEW_BOUND_MS

    assert decide("state_machine", [a("completed", 0, suspect=True), b("cancelled", late)]).waits
    assert decide("state_machine", [a("completed", 0), b("cancelled", late, suspect=True)]).waits


def test_work_reported_a_second_time_was_still_done_before_the_cancellation() -> None:
    late = 10 * SKEW_BOUND_MS
    again = a("completed", late + 1, replica="r_c")

    assert decide("state_machine", [a("completed", 0), b("cancelled", late), again]).value == "completed"


def test_a_contest_that_is_won_does_not_hide_another_one() -> None:
    late = 10 * SKEW_BOUND_MS
    other = a("incomplete", 0, replica="r_c")

    assert decide("state_machine", [a("completed", 0), b("cancelled", late), other]).waits


def test_texts_changed_in_different_lines_are_combined() -> None:
    verdict = decide("merge3", [a("A\nb\nc\n", was="a\nb\nc\n"), b("a\nb\nC\n", was="a\nb\nc\n")])

    assert verdict.value == "A\nb\nC\n"
    assert verdict.winner is None
    assert not verdict.waits


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (a("A\nb\n", was="a\nb\n"), b("Z\nb\n", was="a\nb\n")),
        (a("A\nb\nc\n", was="a\nb\nc\n"), b("a\nb\nC\n", was="a\nb\n")),
        (a("A\nb\nc\n", was="a\nb\nc\n"), b("a\nb\nC\n")),
        (a("A\nb\nc\n", was="a\nb\nc\n"), b(None, was="a\nb\nc\n")),
        (a(1), b(2)),
    ],
    ids=["same line", "other ancestor", "no ancestor", "cleared", "not a text"],
)
def test_texts_that_cannot_be_combined_are_for_a_person(one: Write, two: Write) -> None:
    assert decide("merge3", [one, two]).waits


def test_a_field_under_review_is_for_a_person() -> None:
    assert decide("review", [a("1"), b("2")]).why == (
        "quantity was changed in two places at once; a person has to choose"
    )


@pytest.mark.parametrize("policy", sorted(COMMUTING))
def test_writes_that_commute_have_nothing_to_decide(policy: str) -> None:
    with pytest.raises(AssertionError, match="never in conflict"):
        POLICIES[policy]([a("1")], Field("tags", "set", policy))
