"""Laws of merging: whatever the order of arrival, the same is kept, the same is asked, and the same stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.clock import HUB, Clock, Dot, Origin, contains
from sync.entities import ENTITY_TYPES
from sync.entity import Contest, EntityType, Field, OnDelete, StateMachine
from sync.merge import RECORD, Merged, Stamp, merge, merge_delete, merge_patch
from sync.mutation import Mutation
from sync.policy import POLICIES, SKEW_BOUND_MS
from sync.record import MISSING, Record

MACHINE = StateMachine(
    precedence=("assigned", "in_progress", "cancelled", "completed"),
    transitions=(),
    contests=(Contest(("completed", "cancelled"), earlier_wins=True), Contest(("in_progress", "cancelled"))),
)
FIELDS = {
    "owned": Field("owned", "text", "owner_wins", owner="fsm"),
    "last": Field("last", "text", "last_writer"),
    "seen": Field("seen", "text", "device_wins"),
    "meter": Field("meter", "decimal", "largest"),
    "start": Field("start", "decimal", "smallest"),
    "status": Field("status", "choice", "state_machine", states=MACHINE),
    "notes": Field("notes", "text", "merge3"),
    "asked": Field("asked", "text", "review"),
    "used": Field("used", "decimal", "counter"),
    "labour": Field("labour", "log", "log"),
    "tags": Field("tags", "set", "add_wins_set"),
}
COMMUTING = ("used", "labour", "tags")
UNHEARD_OF = "from_a_newer_peer"
VALUES: dict[str, list[Any]] = {
    "meter": ["1", "2", "10"],
    "start": ["1", "2", "10"],
    "status": list(MACHINE.precedence),
    "notes": ["a\nb\nc\n", "A\nb\nc\n", "a\nb\nC\n", "a\nX\nc\n", None],
    "used": [{"$inc": "1"}, {"$inc": "-2.5"}],
    "labour": [{"$append": ["x"]}, {"$append": ["y", "z"]}],
    "tags": [{"$add": ["p"]}, {"$remove": ["p"]}, {"$add": ["q"], "$remove": ["p"]}, ["p"], []],
}
NAMES = [*FIELDS, UNHEARD_OF]
HOUR = 3_600_000


def job(on_delete: OnDelete = "review") -> EntityType:
    return EntityType("job", "jobs", "A job.", object, FIELDS, (), on_delete=on_delete)


@dataclass(frozen=True)
class Sent:
    """One captured mutation, as it would arrive."""

    replica: str
    n: int
    patch: dict[str, Any]
    base: Clock
    was: dict[str, Any]
    at: int
    system: str = "device"
    suspect: bool = False

    def arrive(self, record: Record, entity: EntityType | None = None) -> Merged:
        return merge_patch(entity or job(), record, self.patch, self.base, self.was, self.stamp(record))

    def stamp(self, record: Record) -> Stamp:
        dot = Dot(record.version + 1, self.replica, self.n)
        origin = Origin(self.replica, self.n)
        return Stamp(dot, origin, self.at, self.system, self.suspect, f"case of {self.replica} {self.n}")


@dataclass
class History:
    """A record that everybody could have pulled, and what each replica then did without knowing of the others."""

    start: Record
    sent: dict[str, list[Sent]] = field(default_factory=dict)

    def arrive(self, order: Sequence[str]) -> list[Merged]:
        """All of it, each replica's in its own order; `order` says whose turn it is."""
        queues, steps, record = {name: list(sent) for name, sent in self.sent.items()}, [], self.start
        for replica in order:
            steps.append(queues[replica].pop(0).arrive(record))
            record = steps[-1].record
        return steps

    @property
    def turns(self) -> list[str]:
        return [replica for replica, sent in self.sent.items() for _ in sent]


patches = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: st.sampled_from(VALUES.get(name, ["x", "y", "z"])) for name in names})
)


@st.composite
def histories(draw: st.DrawFn) -> History:
    versions = [Record("job", "J-1", 0, {})]
    for _ in range(draw(st.integers(0, 3))):
        earlier = Sent("r_old", len(versions), draw(patches), versions[-1].clock, {}, 0)
        versions.append(earlier.arrive(versions[-1]).record)
    history = History(versions[-1])
    for replica in draw(st.sampled_from([["r_a", "r_b"], ["r_a", "r_b", "r_c"]])):
        history.sent[replica] = []
        shown: dict[str, Any] = {}
        pulled, at = 0, 0
        for n in range(1, draw(st.integers(1, 3)) + 1):
            pulled = draw(st.integers(pulled, len(versions) - 1))
            at = draw(st.sampled_from([at + 1, at + SKEW_BOUND_MS, at + HOUR]))
            patch = draw(patches)
            own = {replica: n - 1} if n > 1 else {}
            was = {name: shown.get(name, versions[pulled].data.get(name)) for name in patch}
            system = draw(st.sampled_from(["device", "fsm"]))
            base = {**versions[pulled].clock, **own}
            history.sent[replica].append(Sent(replica, n, patch, base, was, at, system, draw(st.booleans())))
            shown |= {name: value for name, value in patch.items() if name not in COMMUTING}
    return history


def kept_beside(record: Record, name: str) -> list[tuple[Any, ...]]:
    """The writes of a field that nobody has seen, without the versions under which they were accepted."""
    state = record.fields[name]
    named = sorted((dot.replica or "", dot.n) for dot in state.dots)
    elements = [(element, sorted((d.replica or "", d.n) for d in dots)) for element, dots in state.elements]
    writes = [(w.origin, w.value, w.at, w.system, w.suspect, w.was) for w in state.writes]
    return [*writes, *named, *state.keys, *elements]


def decided(record: Record, name: str) -> tuple[Any, ...]:
    """What the policy says of the writes kept beside a field, and the value that stands if nobody is asked."""
    spec, state = FIELDS.get(name, Field(name, "object", "merge3")), record.fields[name]
    if name in COMMUTING or len({str(w.value) for w in state.writes}) == 1:
        return (record.data[name],)
    verdict = POLICIES[spec.policy](state.writes, spec)
    return (verdict.waits, verdict.why, None if verdict.waits else (verdict.value, record.data[name]))


@settings(max_examples=300)
@given(histories(), st.data())
def test_the_order_of_arrival_does_not_matter(history: History, data: st.DataObject) -> None:
    one = history.arrive(history.turns)[-1].record
    other = history.arrive(data.draw(st.permutations(history.turns)))[-1].record

    for name in one.fields:
        assert kept_beside(one, name) == kept_beside(other, name)
        assert decided(one, name) == decided(other, name)


@settings(max_examples=150)
@given(histories(), st.data())
def test_a_value_that_a_rule_decided_is_the_one_that_stands(history: History, data: st.DataObject) -> None:
    record = history.arrive(data.draw(st.permutations(history.turns)))[-1].record

    for name in record.fields.keys() - set(COMMUTING):
        outcome = decided(record, name)
        if len(outcome) == 3 and outcome[2]:
            assert outcome[2][0] == outcome[2][1]


@settings(max_examples=150)
@given(histories(), st.data())
def test_no_write_is_lost_unless_somebody_who_had_seen_it_wrote_again(history: History, data: st.DataObject) -> None:
    order = data.draw(st.permutations(history.turns))
    record = history.arrive(order)[-1].record

    for sent in (one for replica in history.sent.values() for one in replica):
        for name, value in sent.patch.items():
            later = [o for o in history.sent[sent.replica] if o.n > sent.n and name in o.patch]
            if not later and name not in COMMUTING:
                assert any(w.origin == (sent.replica, sent.n) and w.value == value for w in record.fields[name].writes)


@settings(max_examples=150)
@given(histories(), st.data())
def test_the_clock_names_the_record_and_each_standing_value_once(history: History, data: st.DataObject) -> None:
    for step in history.arrive(data.draw(st.permutations(history.turns))):
        record = step.record
        stamps = [state.standing for state in record.fields.values()]

        assert record.clock[HUB] == record.version
        assert len(record.clock) <= len(record.fields) + 1
        assert record.clock.keys() - {HUB} == {dot.replica for dot in stamps if dot.replica}
        assert all(record.clock[dot.replica] >= dot.n for dot in stamps if dot.replica)
        assert all(dot.version <= record.version for dot in stamps)


@settings(max_examples=150)
@given(histories(), st.data())
def test_a_replica_named_by_a_value_sent_just_that_value(history: History, data: st.DataObject) -> None:
    record = history.arrive(data.draw(st.permutations(history.turns)))[-1].record

    for name, state in record.fields.items():
        if state.standing.replica in history.sent:
            sent = history.sent[state.standing.replica][state.standing.n - 1]
            assert sent.patch[name] == record.data[name]


@settings(max_examples=200)
@given(histories(), st.data())
def test_setting_the_value_that_stands_is_never_a_conflict(history: History, data: st.DataObject) -> None:
    record = history.arrive(data.draw(st.permutations(history.turns)))[-1].record
    names = sorted(record.fields.keys() - set(COMMUTING))
    name = data.draw(st.sampled_from(names or [""]))
    base = data.draw(
        st.sampled_from([{}, history.start.clock, record.clock, *(s[-1].base for s in history.sent.values())])
    )
    if not name or (contains(base, record.fields[name].standing) and record.unseen(base)):
        return  # then it takes the place of what stands, and meets the others at its own time
    again = Sent("r_z", 1, {name: record.data[name]}, base, {}, data.draw(st.sampled_from([0, 10 * HOUR])))

    merged = again.arrive(record)

    assert merged.record.data[name] == record.data[name]
    assert merged.decisions == ()
    assert merged.opened == merged.joined == ()


@settings(max_examples=150)
@given(histories())
def test_whoever_has_seen_everything_is_never_in_conflict(history: History) -> None:
    record = history.arrive(history.turns)[-1].record
    patch = {name: "new" for name in record.fields if name not in COMMUTING}

    merged = Sent("r_z", 1, patch, record.clock, {}, 0).arrive(record)

    assert merged.decisions == ()
    assert {merged.record.data[name] for name in patch} <= {"new"}
    assert all(len(merged.record.fields[name].writes) == 1 for name in patch)
    assert not any(state.case for state in merged.record.fields.values())


@settings(max_examples=150)
@given(histories(), st.data())
def test_a_case_is_open_exactly_while_one_of_its_fields_waits(history: History, data: st.DataObject) -> None:
    open_cases: set[str] = set()
    for step in history.arrive(data.draw(st.permutations(history.turns))):
        opened = {step.record.fields[name].case or "" for name in step.opened}
        assert set(step.joined) <= open_cases
        open_cases = (open_cases | opened) - set(step.closed)
        assert open_cases == {state.case for state in step.record.fields.values() if state.case}


# -- one story for each law ----------------------------------------------------------------------------------------


def first(patch: dict[str, Any]) -> Record:
    return Sent("r_old", 1, patch, {}, {}, 0).arrive(Record("job", "J-1", 0, {})).record


def by(replica: str, patch: dict[str, Any], base: Clock, n: int = 1, at: int = 0, **more: Any) -> Sent:
    return Sent(replica, n, patch, base, more.pop("was", {}), at, **more)


def test_two_offline_edits_of_different_fields_both_survive() -> None:
    start = first({"last": "x", "meter": "1"})
    merged = by("r_b", {"last": "y"}, start.clock).arrive(by("r_a", {"meter": "2"}, start.clock).arrive(start).record)

    assert merged.decisions == ()
    assert merged.record.data == {"last": "y", "meter": "2"}


def test_a_device_that_edits_twice_before_it_pulls_is_in_no_conflict_with_itself() -> None:
    start = first({"asked": "x"})
    once = by("r_a", {"asked": "y"}, start.clock).arrive(start).record
    twice = by("r_a", {"asked": "z"}, {**start.clock, "r_a": 1}, n=2).arrive(once)

    assert twice.decisions == ()
    assert twice.record.data["asked"] == "z"


def test_a_third_writer_meets_what_lost_before() -> None:
    """The value that lost stays beside the field, so a rule decides over all three and not over pairs."""
    start = first({"owned": "x"})
    record = by("r_a", {"owned": "device"}, start.clock, at=1).arrive(start).record
    record = by("r_b", {"owned": "office"}, start.clock, at=2, system="fsm").arrive(record).record
    # Whoever replaces the office's word has not seen the device's.
    third = by("r_c", {"owned": "erp"}, {HUB: 1, "r_b": 1}, at=0, system="erp").arrive(record)

    assert third.record.data["owned"] == "device"
    assert [d.kept for d in third.decisions] == ["current"]


def test_a_later_edit_of_the_same_device_takes_the_place_of_the_one_in_question() -> None:
    start = first({"asked": "x"})
    record = by("r_a", {"asked": "a"}, start.clock).arrive(start).record
    waiting = by("r_b", {"asked": "b"}, start.clock).arrive(record)
    again = by("r_b", {"asked": "b, corrected"}, {**start.clock, "r_b": 1}, n=2).arrive(waiting.record)

    assert waiting.opened == ("asked",)
    assert again.opened == ()
    assert again.joined == ("case of r_b 1",)
    assert [w.value for w in again.record.fields["asked"].writes] == ["a", "b, corrected"]
    assert again.record.data["asked"] == "a"


def test_the_value_in_question_stands_until_its_own_writer_replaces_it() -> None:
    start = first({"asked": "x"})
    record = by("r_a", {"asked": "a"}, start.clock).arrive(start).record
    record = by("r_b", {"asked": "b"}, start.clock).arrive(record).record
    again = by("r_a", {"asked": "a, corrected"}, {**start.clock, "r_a": 1}, n=2).arrive(record)

    assert again.record.data["asked"] == "a, corrected"
    assert again.record.clock == {HUB: 4, "r_a": 2}


def test_agreeing_with_the_other_side_closes_the_question() -> None:
    start = first({"asked": "x"})
    record = by("r_a", {"asked": "a"}, start.clock).arrive(start).record
    record = by("r_b", {"asked": "b"}, start.clock).arrive(record).record
    agreed = by("r_b", {"asked": "a"}, {**start.clock, "r_b": 1}, n=2).arrive(record)

    assert agreed.closed == ("case of r_b 1",)
    assert agreed.decisions == ()
    assert agreed.record.data["asked"] == "a"


def test_agreeing_with_the_side_that_did_not_stand_changes_the_value() -> None:
    start = first({"asked": "x"})
    record = by("r_a", {"asked": "a"}, start.clock).arrive(start).record
    record = by("r_b", {"asked": "b"}, start.clock).arrive(record).record
    agreed = by("r_a", {"asked": "b"}, {**start.clock, "r_a": 1}, n=2).arrive(record)

    assert agreed.record.data["asked"] == "b"
    assert agreed.record.fields["asked"].standing == Dot(4, "r_a", 2)


def test_a_combined_text_is_named_by_the_hub_alone() -> None:
    start = first({"notes": "a\nb\nc\n"})
    shown = {"notes": "a\nb\nc\n"}
    record = by("r_a", {"notes": "A\nb\nc\n"}, start.clock, was=shown).arrive(start).record
    merged = by("r_b", {"notes": "a\nb\nC\n"}, start.clock, was=shown).arrive(record)

    assert merged.record.data["notes"] == "A\nb\nC\n"
    assert merged.record.clock == {HUB: 3}
    assert [d.kept for d in merged.decisions] == ["combined"]


def test_a_second_edit_on_top_of_a_pending_one_is_merged_as_one_change() -> None:
    """Its `was` is the device's own text, which the hub's side never saw."""
    start = first({"notes": "a\nb\nc\n"})
    record = by("r_a", {"notes": "A\nb\nc\n"}, start.clock, was={"notes": "a\nb\nc\n"}).arrive(start).record
    record = by("r_b", {"notes": "a\nb\nC\n"}, start.clock, was={"notes": "a\nb\nc\n"}).arrive(record).record
    second = by("r_a", {"notes": "AA\nb\nc\n"}, {**start.clock, "r_a": 1}, n=2, was={"notes": "A\nb\nc\n"})

    assert second.arrive(record).record.data["notes"] == "AA\nb\nC\n"


def test_two_first_texts_are_for_a_person() -> None:
    start = first({"meter": "1"})
    record = by("r_a", {"notes": "one\n"}, start.clock, was={"notes": None}).arrive(start).record
    merged = by("r_b", {"notes": "two\n"}, start.clock, was={"notes": None}).arrive(record)

    assert merged.waits
    assert record.fields["notes"].writes[0].was == ""


def test_one_and_true_are_two_values() -> None:
    start = first({UNHEARD_OF: 0})
    record = by("r_a", {UNHEARD_OF: 1}, start.clock).arrive(start).record

    assert by("r_b", {UNHEARD_OF: True}, start.clock).arrive(record).waits


# -- counters, logs and sets ---------------------------------------------------------------------------------------


def test_increments_add_up_whoever_comes_first() -> None:
    start = first({"used": "5"})
    one, two = by("r_a", {"used": {"$inc": "-2.50"}}, start.clock), by("r_b", {"used": {"$inc": "1"}}, start.clock)

    assert one.arrive(two.arrive(start).record).record.data["used"] == "3.50"
    assert two.arrive(one.arrive(start).record).record.data["used"] == "3.50"


def test_a_counter_that_is_created_twice_counts_both() -> None:
    start = first({"used": None})

    assert start.data["used"] == "0"
    assert by("r_a", {"used": "4"}, {}).arrive(first({"used": "5"})).record.data["used"] == "9"


def test_long_sums_lose_no_digit() -> None:
    start = first({"used": "9999999999999999999"})
    merged = by("r_a", {"used": {"$inc": "0.000000001"}}, start.clock).arrive(start)

    assert Decimal(merged.record.data["used"]) == Decimal("9999999999999999999.000000001")


def test_log_entries_stand_in_the_order_in_which_they_happened() -> None:
    start = first({"labour": ["start"]})
    late = by("r_a", {"labour": {"$append": ["noon", "one"]}}, start.clock, at=2)
    early = by("r_b", {"labour": {"$append": ["morning"]}}, start.clock, at=1)

    assert early.arrive(late.arrive(start).record).record.data["labour"] == ["start", "morning", "noon", "one"]


def test_a_log_may_be_created_empty() -> None:
    assert first({"labour": None}).data["labour"] == []
    assert first({"labour": []}).data["labour"] == []


def test_of_an_addition_and_a_concurrent_removal_the_addition_stands() -> None:
    start = first({"tags": ["urgent"]})
    add, remove = (
        by("r_a", {"tags": {"$add": ["urgent"]}}, start.clock),
        by("r_b", {"tags": {"$remove": ["urgent"]}}, start.clock),
    )

    assert add.arrive(remove.arrive(start).record).record.data["tags"] == ["urgent"]
    assert remove.arrive(add.arrive(start).record).record.data["tags"] == ["urgent"]


def test_an_element_that_was_seen_goes_when_it_is_removed() -> None:
    start = first({"tags": ["p", "q"]})

    assert by("r_a", {"tags": {"$remove": ["p", "never there"]}}, start.clock).arrive(start).record.data["tags"] == [
        "q"
    ]


def test_a_plain_set_takes_out_only_what_its_writer_had_seen() -> None:
    start = first({"tags": ["old"]})
    record = by("r_a", {"tags": {"$add": ["unseen"]}}, start.clock).arrive(start).record
    merged = by("r_b", {"tags": ["new"]}, start.clock).arrive(record)

    assert merged.record.data["tags"] == ["new", "unseen"]
    assert by("r_c", {"tags": None}, merged.record.clock).arrive(merged.record).record.data["tags"] == []


# -- deletion ------------------------------------------------------------------------------------------------------


def delete(record: Record, base: Clock, on_delete: OnDelete = "review") -> Merged:
    return merge_delete(job(on_delete), record, base, by("r_d", {}, base).stamp(record))


def test_a_deletion_that_has_seen_everything_just_happens() -> None:
    record = first({"last": "x"})
    gone = delete(record, record.clock)

    assert gone.decisions == ()
    assert gone.record.deleted == Dot(2, "r_d", 1)
    assert gone.record.clock == {HUB: 2, "r_old": 1, "r_d": 1}
    assert gone.record.data == record.data


def test_deleting_what_is_deleted_changes_nothing() -> None:
    gone = delete(first({"last": "x"}), {HUB: 1}).record

    assert delete(gone, {}) == Merged(gone)


@pytest.mark.parametrize("patch", [{"last": "y"}, {"used": {"$inc": "1"}}, {"tags": {"$add": ["p"]}}])
def test_a_deletion_that_missed_an_edit_follows_the_rule_of_the_entity(patch: dict[str, Any]) -> None:
    start = first({"last": "x"})
    edited = by("r_a", patch, start.clock).arrive(start).record

    assert delete(edited, start.clock, "delete_wins").record.deleted
    assert delete(edited, start.clock, "edit_resurrects").record.deleted is None
    asked = delete(edited, start.clock, "review")
    assert asked.record is edited
    assert asked.opened == (RECORD,)
    assert asked.waits


EDITS = {  # entity: what its rule is, and an edit that is no fact
    "task": {"title": "Check the belt"},
    "work_order": {"title": "Check the belt"},
    "note": {"text": "The belt is worn"},
}


@pytest.mark.parametrize("entity", EDITS)
def test_deletion_and_edit_end_the_same_in_both_orders(entity: str) -> None:
    """Under `review` the one that came first stands until a person decides; sync.admit holds the second one back."""
    patch, rule = EDITS[entity], ENTITY_TYPES[entity].on_delete
    (name,) = patch
    start = by("r_old", {name: "x"}, {}).arrive(Record(entity, "X-1", 0, {}), ENTITY_TYPES[entity]).record

    def arrive(record: Record, replica: str, op: Any) -> Merged:
        sent = by(replica, patch if op == "update" else {}, start.clock)
        mutation = Mutation(1, entity, "X-1", op, sent.patch, start.clock)
        return merge(record, mutation, {}, sent.stamp(record))

    edit_last = arrive(arrive(start, "r_d", "delete").record, "r_a", "update")
    edit_first = arrive(arrive(start, "r_a", "update").record, "r_d", "delete")

    if rule == "review":
        assert edit_first.waits
        assert edit_first.record.deleted is None
    else:
        assert (edit_last.record.deleted is None) == (edit_first.record.deleted is None) == (rule == "edit_resurrects")
        assert edit_last.record.data == edit_first.record.data
        assert [d.policy for d in edit_last.decisions] == [d.policy for d in edit_first.decisions] == [rule]
        assert {w.value for w in edit_last.record.fields[name].writes} == set(patch.values())


def test_a_write_says_what_it_is_missing() -> None:
    assert repr(MISSING) == "MISSING"
    assert replace(first({"last": "x"}), deleted=None).key == ("job", "J-1")
