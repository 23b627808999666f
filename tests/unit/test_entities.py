"""The declarations: that they say what the contract fixes, and that a mistake in one shows at import."""

from __future__ import annotations

import dataclasses
import json
from decimal import Decimal
from typing import Any

import pytest

from sync import entities
from sync.entities import ENTITY_TYPES, Note, Part, WorkOrder
from sync.entity import (
    ADMIN,
    ANYONE,
    CONTROLLER,
    DISPATCHER,
    REVIEWER,
    TECHNICIAN,
    Contest,
    DeclarationError,
    EntityType,
    Field,
    Scope,
    StateMachine,
    Transition,
    check_references,
    choice,
    counter,
    decimal,
    reference,
    scope_paths,
    state,
    synced,
    text,
)
from sync.schema import SCHEMA_VERSION, schema_document

FIXED = {
    "technician": "name depot_id level van_id active",
    "location": "name kind parent_id depot_id assigned_to",
    "part": "number name class uom tracking criticality identifiers status",
    "work_order": "number title description customer_id site_id depot_id priority status assignee_id scheduled_start "
    "scheduled_end actual_start actual_end resolution meter_reading tags is_test",
    "task": "work_order_id title status answers",
    "note": "parent text author_id written_at",
    "toolkit_item": "location_id part_id lot serial ownership condition on_hand reserved available minimum maximum "
    "last_counted_at",
    "part_consumption": "work_order_id task_id part_id serial lot quantity uom location_id line_status occurred_at",
    "discrepancy": "location_id part_id serial counted expected reason status counted_at counted_by",
    "rma": "number type part_id serial quantity work_order_id from_location_id reason status diagnosis_as_found "
    "diagnosis_as_confirmed core_charge",
}
REQUIRED = {
    "technician": "name",
    "location": "name kind",
    "part": "number name",
    "work_order": "title",
    "task": "work_order_id title",
    "note": "parent text",
    "toolkit_item": "location_id part_id",
    "part_consumption": "work_order_id part_id quantity",
    "discrepancy": "location_id part_id counted",
    "rma": "type part_id",
}
MACHINES = ["work_order", "task", "discrepancy", "rma"]


def machine(entity: str) -> StateMachine:
    field = ENTITY_TYPES[entity].state_field
    assert field is not None
    assert field.states is not None
    return field.states


# -- what other programs rely on ----------------------------------------------------------------------------------


def test_the_ten_entities_are_declared_each_after_what_it_needs() -> None:
    assert list(ENTITY_TYPES) == list(FIXED)


@pytest.mark.parametrize("name", FIXED)
def test_an_entity_has_the_fixed_fields(name: str) -> None:
    assert set(FIXED[name].split()) <= ENTITY_TYPES[name].fields.keys()


@pytest.mark.parametrize("name", REQUIRED)
def test_few_fields_are_required(name: str) -> None:
    required = {field.name for field in ENTITY_TYPES[name].fields.values() if field.required}

    assert required == set(REQUIRED[name].split())


def test_plurals_are_what_urls_say() -> None:
    assert [entity.plural for entity in ENTITY_TYPES.values()] == [
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


@pytest.mark.parametrize("entity", ENTITY_TYPES.values(), ids=ENTITY_TYPES)
def test_every_field_is_explained(entity: EntityType) -> None:
    assert [field.name for field in entity.fields.values() if not field.doc] == []


@pytest.mark.parametrize("entity", ENTITY_TYPES.values(), ids=ENTITY_TYPES)
def test_whoever_creates_a_record_may_write_its_required_fields(entity: EntityType) -> None:
    creators = set(entity.created_by) - {ADMIN}
    barred = {f.name: creators - set(f.written_by) for f in entity.fields.values() if f.required}

    assert {name: roles for name, roles in barred.items() if roles} == {}


def test_what_a_technician_reports_is_a_fact() -> None:
    facts = {name for name, field in ENTITY_TYPES["work_order"].fields.items() if field.fact}

    assert {"resolution", "meter_reading", "actual_start", "actual_end"} <= facts
    assert {name for name, entity in ENTITY_TYPES.items() if entity.fact} == {"note", "part_consumption", "discrepancy"}


def test_nobody_sets_the_quantities_of_a_shelf() -> None:
    server = {name for name, field in ENTITY_TYPES["toolkit_item"].fields.items() if field.server}

    assert server == {"on_hand", "reserved", "available", "last_counted_at"}


def test_a_technician_may_add_a_part_with_what_its_nameplate_says() -> None:
    part = ENTITY_TYPES["part"]
    writable = {name for name, field in part.fields.items() if TECHNICIAN in field.written_by}

    assert TECHNICIAN in part.created_by
    assert {"number", "name", "uom", "tracking", "identifiers"} <= writable
    assert not {"core_charge", "criticality", "superseded_by"} & writable


@pytest.mark.parametrize("name", ["priority", "assignee_id", "scheduled_start", "depot_id"])
def test_the_plan_belongs_to_dispatch(name: str) -> None:
    field = ENTITY_TYPES["work_order"].fields[name]

    assert (field.policy, field.owner) == ("owner_wins", "fsm")
    assert DISPATCHER in field.written_by
    assert TECHNICIAN not in field.written_by


def test_scopes_lead_to_the_technician_the_depot_or_everybody() -> None:
    templates = {scope.template for entity in ENTITY_TYPES.values() for scope in entity.scopes}

    assert {template.partition(":")[0] for template in templates} == {"tech", "stock", "catalog", "depot"}


@pytest.mark.parametrize("name", ["location", "toolkit_item"])
def test_only_warehouses_and_bins_are_stock_for_everybody(name: str) -> None:
    conditions = {s.template: s.values for s in ENTITY_TYPES[name].scopes if s.path}

    assert [values for values in conditions.values()] == [("warehouse", "bin")]
    assert all(template.startswith("stock:") for template in conditions)


# -- state machines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entity", MACHINES)
def test_every_state_can_be_reached(entity: str) -> None:
    field = ENTITY_TYPES[entity].state_field
    assert field is not None
    reached, found = set[str](), {field.default}
    while found:
        reached |= found
        found = {t.target for t in machine(entity).transitions if t.source in reached} - reached

    assert reached == set(machine(entity).precedence)


@pytest.mark.parametrize("entity", MACHINES)
def test_a_step_is_declared_once_and_by_roles_that_may_write_the_state(entity: str) -> None:
    field, steps = ENTITY_TYPES[entity].state_field, machine(entity).transitions
    assert field is not None

    assert len({(t.source, t.target) for t in steps}) == len(steps)
    assert {role for t in steps for role in t.by} <= set(field.written_by)


@pytest.mark.parametrize("entity", MACHINES)
def test_whether_a_state_is_a_report_depends_on_the_state_alone(entity: str) -> None:
    # A device that reports from an unforeseen state is heard as well, so the same target cannot be both.
    steps = machine(entity).transitions
    mixed = {t.target for t in steps if t.fact} & {t.target for t in steps if not t.fact}

    assert mixed <= {"in_transit"}  # there the desk approves afterwards what a technician had shipped


@pytest.mark.parametrize("target", ["en_route", "in_progress", "on_hold", "completed", "incomplete"])
def test_what_happens_on_site_is_a_fact_for_a_work_order(target: str) -> None:
    steps = [t for t in machine("work_order").transitions if t.target == target]

    assert steps
    assert all(t.fact for t in steps)


@pytest.mark.parametrize(
    ("source", "target", "role"),
    [
        ("draft", "ready", DISPATCHER),
        ("scheduled", "assigned", DISPATCHER),
        ("assigned", "ready", TECHNICIAN),
        ("assigned", "accepted", TECHNICIAN),
        ("in_progress", "completed", TECHNICIAN),
        ("completed", "in_progress", REVIEWER),
        ("completed", "closed", REVIEWER),
        ("in_progress", "cancelled", DISPATCHER),
    ],
)
def test_a_work_order_takes_its_step_by_the_role_that_is_due(source: str, target: str, role: str) -> None:
    step = machine("work_order").step(source, target)

    assert step is not None
    assert role in step.by


@pytest.mark.parametrize(
    ("source", "target"),
    [("closed", "in_progress"), ("closed", "cancelled"), ("completed", "cancelled"), ("draft", "completed")],
)
def test_a_work_order_does_not_take_a_step_that_makes_no_sense(source: str, target: str) -> None:
    assert machine("work_order").step(source, target) is None


@pytest.mark.parametrize("entity", MACHINES)
def test_a_record_whose_state_nobody_wrote_is_in_the_first_one(entity: str) -> None:
    field = ENTITY_TYPES[entity].state_field
    assert field is not None

    assert field.default == machine(entity).precedence[0]
    assert [machine(entity).step(None, t.target) for t in machine(entity).transitions if t.source == field.default] == [
        t for t in machine(entity).transitions if t.source == field.default
    ]


def test_precedence_rises_from_plan_over_work_to_outcome() -> None:
    order = "draft ready scheduled assigned accepted en_route on_hold in_progress cancelled incomplete completed closed"

    assert machine("work_order").precedence == tuple(order.split())


def test_an_earlier_completion_beats_a_cancellation_and_begun_work_is_asked_about() -> None:
    contests = {contest.states: contest.earlier_wins for contest in machine("work_order").contests}

    assert contests[("completed", "cancelled")]
    assert contests[("incomplete", "cancelled")]
    assert not contests[("in_progress", "cancelled")]
    assert not contests[("completed", "incomplete")]


def test_approval_of_a_count_is_not_the_technicians() -> None:
    approvals = [t for t in machine("discrepancy").transitions if t.target in ("approved", "rejected", "posted")]

    assert approvals
    assert not any(TECHNICIAN in t.by for t in approvals)


def test_a_parcel_that_was_rejected_can_still_be_on_its_way() -> None:
    step = machine("rma").step("rejected", "in_transit_unapproved")

    assert step is not None
    assert step.fact
    assert CONTROLLER in step.by


# -- the classes --------------------------------------------------------------------------------------------------


def test_a_record_is_a_frozen_value_with_its_defaults() -> None:
    order = WorkOrder(id="WO-1", title="Belt")

    assert (order.status, order.priority, order.tags, order.assignee_id) == ("draft", "normal", (), None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        order.title = "other"  # type: ignore[misc]  # that it is forbidden is the point


def test_a_field_named_by_a_word_of_python_is_called_as_the_contract_says() -> None:
    field = ENTITY_TYPES["part"].fields["class"]

    assert field.attribute == "class_"
    assert Part(number="1", name="Belt", class_="drives").class_ == "drives"


def test_all_classes_are_exported() -> None:
    shapes = {entity.shape for entity in ENTITY_TYPES.values()}

    assert {getattr(entities, name) for name in entities.__all__ if name != "ENTITY_TYPES"} == shapes
    assert ENTITY_TYPES["note"].shape is Note


# -- mistakes show at import --------------------------------------------------------------------------------------


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> dict[str, EntityType]:
    """The registry, to be filled without a trace."""
    registry = dict(ENTITY_TYPES)
    monkeypatch.setattr("sync.entity.ENTITY_TYPES", registry)
    return registry


def test_a_field_is_declared_with_a_word_for_its_type(declared: dict[str, EntityType]) -> None:
    @synced("thing", scopes=("catalog:all",), plural="things-of-all-sorts")
    class Thing:
        """A thing."""

        id: str = ""
        used: Decimal = counter(default=None, doc="how often")
        name: str = text(max_length=9)

    thing = declared["thing"]

    assert (thing.plural, thing.doc, thing.shape) == ("things-of-all-sorts", "A thing.", Thing)
    assert thing.fields["used"] == Field("used", "decimal", "counter", attribute="used", doc="how often")
    assert thing.fields["name"] == Field("name", "text", "merge3", required=True, max_length=9, attribute="name")
    assert thing.state_field is None


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        (lambda: text(policy="coin_toss"), "there is no policy coin_toss"),
        (lambda: text(owner="erp"), "owner_wins and owner go together"),
        (lambda: text(policy="owner_wins"), "and owner go together"),
        (lambda: text(policy="state_machine"), "declared with state"),
        (lambda: decimal(server=True), "cannot be required"),
        (lambda: text(written_by=("janitor",)), "unknown role"),
        (lambda: choice(("a",), default="b"), "not one of its choices"),
        (lambda: state(StateMachine(("a",), (Transition("a", "z", ANYONE),))), "outside the precedence"),
        (lambda: state(StateMachine(("a",), (), (Contest(("a", "z")),))), "contest names a state outside"),
        (lambda: "x", "declare it with a word"),
    ],
)
def test_a_mistaken_field_is_refused(declared: dict[str, EntityType], word: Any, complaint: str) -> None:
    shape = type("Thing", (), {"__doc__": "A thing.", "__annotations__": {"mistaken": "str"}, "mistaken": word()})

    with pytest.raises(DeclarationError, match=complaint):
        synced("thing", scopes=())(shape)


@pytest.mark.parametrize(
    ("name", "doc", "scopes", "complaint"),
    [
        ("note", "A note.", (), "declared twice"),
        ("thing", "", (), "no docstring"),
        ("thing", "A thing.", ("tech:{nobody}",), "names no field nobody"),
        ("thing", "A thing.", (Scope("catalog:all", "nobody.kind", ("a",)),), "names no field nobody"),
    ],
)
def test_a_mistaken_entity_is_refused(
    declared: dict[str, EntityType], name: str, doc: str, scopes: tuple[str | Scope, ...], complaint: str
) -> None:
    with pytest.raises(DeclarationError, match=complaint):
        synced(name, scopes=scopes)(type("Thing", (), {"__doc__": doc}))


@pytest.mark.parametrize(
    ("target", "scope", "complaint"),
    [
        ("nobody", "depot:{id}", "refers to nobody"),
        ("work_order", "tech:{label.assignee_id}", "label in the scope path"),
        ("work_order", "tech:{other.nothing}", "ends in no field"),
        ("work_order", "tech:{other.nothing.name}", "nothing in the scope path"),
        ("task", "tech:{other.work_order_id.assignee_id.name}", "more than two references"),
    ],
)
def test_what_leads_nowhere_is_refused(
    declared: dict[str, EntityType], target: str, scope: str, complaint: str
) -> None:
    @synced("thing", scopes=(scope,))
    class Thing:
        """A thing."""

        other: str = reference(target)
        label: str = text()

    with pytest.raises(DeclarationError, match=complaint):
        check_references()


def test_the_conditions_path_of_a_scope_counts_too() -> None:
    assert scope_paths(Scope("stock:{a.b}", "c.d", ("x",))) == ["a.b", "c.d"]
    assert scope_paths(Scope("catalog:all")) == []


# -- the same as data ---------------------------------------------------------------------------------------------


def test_the_schema_tells_every_declaration() -> None:
    document = schema_document()

    assert document["schema"] == SCHEMA_VERSION == 1
    assert document["entities"].keys() == ENTITY_TYPES.keys()
    for name, entity in ENTITY_TYPES.items():
        assert list(document["entities"][name]["fields"]) == list(entity.fields)
        assert ("states" in document["entities"][name]) == (name in MACHINES)


def test_the_schema_of_a_work_order_has_the_shape_of_the_contract() -> None:
    order = schema_document()["entities"]["work_order"]

    assert (order["plural"], order["fact"], order["on_delete"]) == ("work-orders", False, "review")
    assert "technician" in order["changed_by"]
    assert "technician" not in order["created_by"] + order["deleted_by"]
    assert order["scopes"] == ["tech:{assignee_id}", "depot:{depot_id}"]
    assert order["fields"]["assignee_id"] == {
        "type": "reference",
        "target": "technician",
        "required": False,
        "policy": "owner_wins",
        "owner": "fsm",
        "fact": False,
        "written_by": ["dispatcher", "integration", "admin"],
        "server": False,
        "doc": "the technician whose device gets it",
    }
    assert order["fields"]["title"]["max_length"] == 200
    assert order["fields"]["priority"]["choices"] == ["low", "normal", "high", "emergency"]
    assert order["states"]["field"] == "status"
    assert {"from": "in_progress", "to": "completed", "by": ["technician"], "fact": True} in order["states"][
        "transitions"
    ]


def test_the_schema_is_the_same_json_every_time() -> None:
    assert json.dumps(schema_document()) == json.dumps(schema_document())
