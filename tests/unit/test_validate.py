"""What can be read, what cannot, and that nothing a device sends can do more than fail by itself."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.entities import ENTITY_TYPES
from sync.entity import Field
from sync.errors import CaptureRefused, Unprocessable
from sync.moments import format_moment
from sync.mutation import Problem
from sync.validate import FieldProblem, check_capture, check_values, fraction_of_whole_unit, parse_mutation
from sync.values import MAX_DEPTH
from tests.unit.strategies import JSON, mutations

UPDATE = {"n": 1, "entity": "work_order", "id": "WO-1", "op": "update", "patch": {}}
CREATE = {"n": 1, "entity": "task", "id": "T-1", "op": "create", "patch": {"work_order_id": "WO-1", "title": "belt"}}
TAKE = {"work_order_id": "WO-1", "part_id": "P-1", "quantity": "2"}


def fault(**changed: Any) -> str | None:
    """The code of what is wrong with UPDATE after these changes."""
    found = parse_mutation({**UPDATE, **changed}).fault
    return found.code if found else None


def value_fault(entity: str, name: str, value: Any, op: str = "update") -> str | None:
    found = check_values(ENTITY_TYPES[entity], op, {name: value})  # type: ignore[arg-type]  # a table of texts
    return next((problem.code for problem in found if problem.path == name), None)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


# -- a whole mutation ---------------------------------------------------------------------------------------------


def test_every_part_of_a_mutation_is_read() -> None:
    raw = {
        "n": 41,
        "entity": "work_order",
        "id": "WO-1",
        "op": "update",
        "patch": {"status": "in_progress"},
        "was": {"status": "en_route"},
        "base": {"hub": 12, "r_9f": 40},
        "seen": 90100,
        "occurred_at": "2026-11-20T10:11:12.123+01:00",
        "group": "g7",
        "group_size": 2,
        "origin": {"replica": "r_old", "n": 7},
    }

    mutation = parse_mutation(raw)

    assert mutation.fault is None
    assert (mutation.n, mutation.entity, mutation.id, mutation.op) == (41, "work_order", "WO-1", "update")
    assert (mutation.patch, mutation.was) == ({"status": "in_progress"}, {"status": "en_route"})
    assert (mutation.base, mutation.seen) == ({"hub": 12, "r_9f": 40}, 90100)
    assert format_moment(mutation.occurred_at or 0) == "2026-11-20T09:11:12.123Z"
    assert (mutation.group, mutation.group_size, mutation.origin) == ("g7", 2, ("r_old", 7))
    assert mutation.body is raw


def test_what_may_be_left_out_has_a_neutral_value() -> None:
    mutation = parse_mutation(UPDATE)

    assert mutation.fault is None
    assert (mutation.base, mutation.was, mutation.seen, mutation.occurred_at) == ({}, None, None, None)
    assert (mutation.group, mutation.group_size, mutation.origin) == (None, None, None)


@pytest.mark.parametrize("raw", [None, 1, "x", [], [UPDATE]])
def test_what_is_no_object_spoils_the_envelope(raw: object) -> None:
    with pytest.raises(Unprocessable):
        parse_mutation(raw)


@pytest.mark.parametrize("n", [None, 0, -1, 1.0, "1", True, 2**53])
def test_a_mutation_without_a_usable_n_spoils_the_envelope(n: object) -> None:
    with pytest.raises(Unprocessable):
        parse_mutation({**UPDATE, "n": n})


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"entity": "spaceship"}, "unknown_entity"),
        ({"entity": None}, "unknown_entity"),
        ({"entity": ["work_order"]}, "unknown_entity"),
        ({"op": "upsert"}, "unknown_op"),
        ({"op": {}}, "unknown_op"),
        ({"id": ""}, "invalid_id"),
        ({"id": "a" * 65}, "invalid_id"),
        ({"id": "a b"}, "invalid_id"),
        ({"id": "WO-1\n"}, "invalid_id"),
        ({"id": 1}, "invalid_id"),
        ({"patch": None}, "invalid_mutation"),
        ({"patch": []}, "invalid_mutation"),
        ({"op": "delete", "patch": "all"}, "invalid_mutation"),
        ({"base": []}, "invalid_mutation"),
        ({"base": {"hub": -1}}, "invalid_mutation"),
        ({"base": {"hub": True}}, "invalid_mutation"),
        ({"base": {"hub": "3"}}, "invalid_mutation"),
        ({"base": {"no id": 3}}, "invalid_mutation"),
        ({"was": []}, "invalid_mutation"),
        ({"seen": -1}, "invalid_mutation"),
        ({"seen": 1.5}, "invalid_mutation"),
        ({"occurred_at": "yesterday"}, "invalid_mutation"),
        ({"occurred_at": "2026-11-20T10:15:00"}, "invalid_mutation"),
        ({"occurred_at": 1_700_000_000}, "invalid_mutation"),
        ({"group": 7}, "invalid_mutation"),
        ({"group_size": 0}, "invalid_mutation"),
        ({"group_size": 501}, "invalid_mutation"),
        ({"origin": "r_1"}, "invalid_mutation"),
        ({"origin": {"replica": "r_1"}}, "invalid_mutation"),
        ({"origin": {"replica": "r_1", "n": 0}}, "invalid_mutation"),
        ({"patch": {"priority": "whenever"}}, "invalid_value"),
        ({"patch": {"from_a_newer_app": 2**53}}, "invalid_value"),
        ({"patch": {"from_a_newer_app": float("inf")}}, "invalid_value"),
        ({"patch": {"from_a_newer_app": {1: 2}}}, "invalid_value"),
        ({"patch": {"from_a_newer_app": b"x"}}, "invalid_value"),
        ({"patch": {"title": "a\x00b"}}, "invalid_value"),
        ({"patch": {"title": "a\ud800b"}}, "invalid_value"),
        ({"patch": {"a\x00b": 1}}, "invalid_value"),
        ({"patch": {"*": 1}}, "invalid_value"),
        ({"was": {"title": "a\x00b"}}, "invalid_value"),
        ({"patch": {"version": 4}}, "server_field"),
        ({"entity": "toolkit_item", "patch": {"on_hand": "3"}}, "server_field"),
        ({"patch": {"labour": []}}, "operator_required"),
        ({"op": "create"}, "missing_field"),
        ({"patch": {"title": None}}, "missing_field"),
    ],
    ids=repr,
)
def test_what_cannot_be_read_is_the_fault_of_that_mutation_alone(changed: dict[str, Any], code: str) -> None:
    assert fault(**changed) == code


@pytest.mark.parametrize("changed", [{"entity": "no such\x00"}, {"id": 5}, {"op": "x"}, {"seen": "y"}], ids=repr)
def test_an_unreadable_mutation_still_says_what_orders_it(changed: dict[str, Any]) -> None:
    order = {"n": 3, "group": "g", "group_size": 2, "origin": {"replica": "r", "n": 9}}

    mutation = parse_mutation({**UPDATE, **order, **changed})

    assert mutation.fault is not None
    assert (mutation.n, mutation.group, mutation.group_size, mutation.origin) == (3, "g", 2, ("r", 9))


def test_an_unreadable_name_is_not_repeated() -> None:
    assert parse_mutation({**UPDATE, "entity": "a\x00", "id": "b\x00"}).key == ("", "")


def test_a_field_of_a_newer_app_is_kept() -> None:
    patch = {"colour": {"any": ["thing"]}, "title": "Belt"}

    mutation = parse_mutation({**UPDATE, "patch": patch})

    assert (mutation.fault, mutation.patch) == (None, patch)


def test_a_deletion_writes_no_field() -> None:
    mutation = parse_mutation({**UPDATE, "op": "delete", "patch": {"title": 5}})

    assert (mutation.fault, mutation.patch) == (None, {})


def test_a_void_tells_why_its_number_has_no_mutation() -> None:
    void = {"n": 4, "entity": "spaceship", "id": "", "op": "void", "problem": {"code": "too_large", "detail": "9 MiB"}}

    assert parse_mutation(void).fault == Problem("too_large", "9 MiB")


@pytest.mark.parametrize("problem", [None, {}, {"code": 1, "detail": ""}, {"code": "a b", "detail": ""}, {"code": "x"}])
def test_a_void_without_a_reason_is_a_fault_of_its_own(problem: object) -> None:
    assert fault(op="void", problem=problem) == "invalid_mutation"


def test_nesting_may_fill_what_the_envelope_leaves() -> None:
    # The mutation, its patch and the innermost number are levels too.
    assert fault(patch={"new": nested(MAX_DEPTH - 2)}) is None
    assert fault(patch={"new": nested(MAX_DEPTH - 1)}) == "invalid_value"


@given(
    st.fixed_dictionaries(
        {"n": JSON | st.integers(1, 9)},
        optional=dict.fromkeys(
            [
                "entity",
                "id",
                "op",
                "patch",
                "base",
                "was",
                "seen",
                "occurred_at",
                "group",
                "group_size",
                "origin",
                "problem",
            ],
            JSON,
        ),
    )
    | JSON
)
def test_whatever_arrives_only_the_envelope_can_be_refused(raw: object) -> None:
    try:
        mutation = parse_mutation(raw)
    except Unprocessable:
        return

    assert mutation.n >= 1
    assert mutation.fault is not None or mutation.entity in ENTITY_TYPES


@given(mutations(), st.data())
def test_one_wrong_value_never_raises(raw: dict[str, Any], data: st.DataObject) -> None:
    names = sorted(ENTITY_TYPES[raw["entity"]].fields)
    patch = {**raw.get("patch", {}), data.draw(st.sampled_from(names)): data.draw(JSON)}

    mutation = parse_mutation({**raw, "patch": patch})

    assert mutation.fault is None or mutation.fault.code


@given(mutations())
def test_what_the_declarations_allow_is_read(raw: dict[str, Any]) -> None:
    assert parse_mutation(json.loads(json.dumps(raw))).fault is None


# -- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entity", "name", "good", "bad"),
    [
        ("work_order", "title", ["", "Belt", "ü" * 200], ["x" * 201, 5, ["x"]]),
        ("work_order", "description", ["x" * 20_000, None], ["x" * 20_001]),
        ("task", "position", [0, -3, 2**53 - 1, None], [2**53, -(2**53), 1.0, "1", True]),
        ("part", "shelf_life_days", [0, 30], [-1]),
        (
            "work_order",
            "meter_reading",
            ["120.5", "-3", "0", "9" * 19, None],
            ["9" * 20, "1e3", ".5", "5.", "", " 1", "١", 1, 1.5, "NaN"],
        ),
        ("part_consumption", "quantity", ["0", "-0", "2.500"], ["-1", "-0.001", {"$inc": "1"}]),
        ("work_order", "is_test", [True, False, None], [0, "true"]),
        ("work_order", "actual_start", ["2026-11-20T10:15:00Z", None], ["2026-11-20", "2026-02-30T10:15:00Z", 5]),
        ("rma", "core_due_on", ["2026-02-28", None], ["2026-02-30", "20260228", "0001-01-01", 5]),
        ("work_order", "priority", ["low", None], ["LOW", 1, ["low"], {}]),
        ("work_order", "status", ["completed"], ["done", None]),
        ("work_order", "assignee_id", ["T-104", None], ["", "a b", {"id": "x"}, 5]),
        (
            "note",
            "parent",
            [{"entity": "rma", "id": "R-1"}],
            ["R-1", {"entity": "rma"}, {"entity": "rma", "id": 1}, []],
        ),
        (
            "work_order",
            "tags",
            [[], ["a"], {"$add": ["a"]}, {"$add": ["a"], "$remove": []}, None],
            [
                "a",
                [1],
                [""],
                ["a", "a"],
                ["x" * 65],
                [str(n) for n in range(201)],
                {},
                {"$set": []},
                {"$add": "a"},
                {"$inc": "1"},
            ],
        ),
        (
            "task",
            "answers",
            [{"$append": []}, {"$append": [{"question": "q"}, "free text"]}],
            [
                {"$append": [1]},
                {"$append": ["x" * 4001]},
                {"$append": "x"},
                {"$append": [], "$add": []},
                {"$append": None},
                {},
            ],
        ),
        ("part", "identifiers", [{}, {"oem": "X-1"}, None], ["X-1", [], {"$inc": "1"}]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_value_fits_its_type(entity: str, name: str, good: list[Any], bad: list[Any]) -> None:
    assert [value_fault(entity, name, value) for value in good] == [None] * len(good)
    assert [value_fault(entity, name, value) for value in bad] == ["invalid_value"] * len(bad)


def test_a_log_begins_with_a_plain_list_and_then_only_grows() -> None:
    assert value_fault("task", "answers", ["ok"], op="create") is None
    assert value_fault("task", "answers", None, op="create") is None
    assert value_fault("task", "answers", {"$append": ["ok"]}, op="create") is None
    assert value_fault("task", "answers", ["ok"]) == "operator_required"
    assert value_fault("task", "answers", None) == "operator_required"


def test_a_counter_begins_with_a_plain_number_and_is_then_only_added_to() -> None:
    fields = {"used": Field("used", "decimal", "counter")}
    entity = replace(ENTITY_TYPES["note"], name="meter", fields=fields)

    def code(op: Any, value: Any) -> list[str]:
        return [problem.code for problem in check_values(entity, op, {"used": value})]

    assert code("create", "5") == code("create", None) == code("update", {"$inc": "-2"}) == []
    assert code("update", "5") == code("update", None) == ["operator_required"]
    assert code("update", {"$inc": 2}) == code("update", {"$append": []}) == code("create", "many") == ["invalid_value"]


def test_office_values_are_told_wrong_all_at_once() -> None:
    found = check_values(ENTITY_TYPES["task"], "create", {"title": 5, "status": "done", "id": "T-1"})

    assert [(problem.path, problem.code) for problem in found] == [
        ("title", "invalid_value"),
        ("status", "invalid_value"),
        ("id", "server_field"),
        ("work_order_id", "missing_field"),
    ]


def test_an_update_need_not_hold_the_required_fields() -> None:
    assert check_values(ENTITY_TYPES["task"], "update", {"status": "open"}) == []


def test_office_values_that_cannot_be_stored_are_named_in_plain_letters() -> None:
    found = check_values(ENTITY_TYPES["task"], "update", {"a\x00": 1, "title": "\ud800"})

    assert [problem.path for problem in found] == ["a\\x00", "title"]
    assert all(isinstance(problem, FieldProblem) and problem.code == "invalid_value" for problem in found)


# -- whole units, and what the device says before "saved" ----------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "parked"),
    [
        ({"quantity": "2.5", "uom": "ea"}, True),
        ({"quantity": "2.5", "uom": "PCS"}, True),
        ({"quantity": "2.5"}, True),
        ({"quantity": "2.5", "uom": None}, True),
        ({"quantity": "2.000", "uom": "ea"}, False),
        ({"quantity": "2.5", "uom": "m"}, False),
        ({"quantity": None, "uom": "ea"}, False),
        ({"uom": "ea"}, False),
    ],
    ids=repr,
)
def test_a_fraction_of_a_whole_unit_is_noticed(data: dict[str, Any], parked: bool) -> None:
    problem = fraction_of_whole_unit(ENTITY_TYPES["part_consumption"], data)

    assert (problem is not None and problem.code == "fraction_of_whole_unit") == parked


def test_an_entity_without_a_unit_may_hold_any_quantity() -> None:
    assert fraction_of_whole_unit(ENTITY_TYPES["rma"], {"quantity": "0.5"}) is None


def test_a_fraction_can_be_read_so_that_the_hub_can_park_it() -> None:
    raw = {**CREATE, "entity": "part_consumption", "patch": {**TAKE, "quantity": "2.5"}}

    assert parse_mutation(raw).fault is None


def test_a_good_mutation_is_captured() -> None:
    assert check_capture(CREATE) == parse_mutation(CREATE)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ({**UPDATE, "n": 0}, "invalid_mutation"),
        ({**UPDATE, "patch": {"title": "\x00"}}, "invalid_value"),
        ({**UPDATE, "patch": {"new": nested(MAX_DEPTH)}}, "invalid_value"),
        ({**CREATE, "patch": {}}, "missing_field"),
        ({**CREATE, "entity": "part_consumption", "patch": {**TAKE, "quantity": "2.5"}}, "fraction_of_whole_unit"),
        ({**UPDATE, "entity": "part_consumption", "patch": {"quantity": "2.5", "uom": "ea"}}, "fraction_of_whole_unit"),
    ],
)
def test_what_no_server_could_take_is_refused_before_it_is_saved(raw: object, code: str) -> None:
    with pytest.raises(CaptureRefused) as refused:
        check_capture(raw)

    assert refused.value.extras["problem"]["code"] == code


def test_a_quantity_whose_unit_stands_in_the_record_is_captured() -> None:
    assert check_capture({**UPDATE, "entity": "part_consumption", "patch": {"quantity": "2.5"}}).fault is None
