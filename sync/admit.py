"""May this mutation take place? Everything that is checked before merging, one question a function.

A *fact* reports something that happened and is never refused: what does not fit is parked for a person. An *intent*
may be rejected. Something outside the caller's reach is treated in every answer as if it did not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sync.clock import HUB, contains
from sync.entities import ENTITY_TYPES
from sync.entity import ADMIN, TECHNICIAN, EntityType, Field
from sync.mutation import Mutation, Problem
from sync.record import MISSING, Key, Record
from sync.scopes import target_of
from sync.store import Actor
from sync.validate import fraction_of_whole_unit


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Why a mutation cannot simply be merged. park: keep it whole for a person although it may be an intent.

    type: of the review case, if one opens. case_id: the open case it belongs to, if there is one.
    """

    problem: Problem
    park: bool = False
    type: str = ""
    case_id: str | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the checks may look at.

    find: a record that this caller can reach, None otherwise. blocked: the open case in which a record's creation
    waits; awaiting: the one in which changes wait for a record to appear. was: what a patched field showed at capture,
    MISSING if that is not known.
    """

    actor: Actor
    find: Callable[[Key], Record | None]
    blocked: Callable[[Key], str | None]
    awaiting: Callable[[Key], str | None]
    was: Mapping[str, Any]


def is_fact(mutation: Mutation) -> bool:
    """Does it report something physical? Facts are never refused."""
    entity = ENTITY_TYPES[mutation.entity]
    if mutation.op == "delete":
        return False
    if entity.fact:
        return True
    return any(_is_fact_field(entity.fields.get(name), mutation, value) for name, value in mutation.patch.items())


def _is_fact_field(field: Field | None, mutation: Mutation, value: Any) -> bool:
    if field is None:
        return False
    if field.states and isinstance(value, str):
        source = (mutation.was or {}).get(field.name)
        step = field.states.step(source if isinstance(source, str) else None, value)
        # From wherever it came: a technician who says "completed" reports work, even if the table has no such step.
        return step.fact if step else any(t.fact and t.target == value for t in field.states.transitions)
    return field.fact


def hindrance(mutation: Mutation, around: Surroundings) -> Hindrance | None:
    """The first thing in the way of `mutation`, None if it can be merged."""
    entity = ENTITY_TYPES[mutation.entity]
    record = around.find(mutation.key)
    if record is None and mutation.op != "create":
        return _absent(mutation, around)
    if record is None and (case := around.blocked(mutation.key)):
        return Hindrance(
            Problem("blocked_by", "An earlier creation of this record waits for review."), True, "blocked", case
        )
    if record is not None and record.deleted and mutation.op != "delete":
        gone = _deleted(entity, mutation, record)
        if gone:
            return gone
    return (
        _forbidden(entity, mutation, around.actor, record)
        or _dangling(entity, mutation, around)
        or _impossible(entity, mutation, around)
        or _fraction(entity, mutation, record)
    )


def id_taken() -> Hindrance:
    """A creation under the id of a record that its sender cannot reach."""
    return Hindrance(Problem("id_taken", "This id cannot be used for a new record."), type="id_taken")


def _absent(mutation: Mutation, around: Surroundings) -> Hindrance:
    case = around.blocked(mutation.key)
    if case:
        return Hindrance(
            Problem("blocked_by", "The record's creation waits for review; this follows when that is decided."),
            True,
            "blocked",
            case,
        )
    if mutation.base.get(HUB):
        detail = "The server does not have this record now. The change is kept and applied if the record appears."
        return Hindrance(Problem("awaiting_record", detail), True, "awaiting_record", around.awaiting(mutation.key))
    if mutation.base:
        return Hindrance(
            Problem("blocked_by", "The record's creation was not accepted; the change is kept for review."),
            True,
            "blocked",
        )
    return Hindrance(
        Problem("unknown_record", f"There is no {mutation.entity} {mutation.id} that you can see."),
        type="unknown_record",
    )


def _deleted(entity: EntityType, mutation: Mutation, record: Record) -> Hindrance | None:
    assert record.deleted is not None
    problem = Problem("record_deleted", "The record was deleted.")
    if contains(mutation.base, record.deleted):
        return Hindrance(problem, type="record_deleted")
    if entity.on_delete == "review" or (entity.on_delete == "delete_wins" and is_fact(mutation)):
        return Hindrance(problem, True, "delete_conflict")
    return None


def _forbidden(entity: EntityType, mutation: Mutation, actor: Actor, record: Record | None) -> Hindrance | None:
    if mutation.op == "delete":
        return None if _may(actor, entity.deleted_by) else _not_yours(f"{actor.role} may not delete a {entity.name}.")
    if record is None and not _may(actor, entity.created_by):
        return _not_yours(f"{actor.role} may not create a {entity.name}.")
    if record is not None and not _may(actor, entity.changed_by):
        return _not_yours(f"{actor.role} may not change a {entity.name}; propose it in a note.")
    for name in mutation.patch:
        field = entity.fields.get(name)
        if field and not _may(actor, field.written_by):
            return _not_yours(f"{actor.role} may not write {entity.name}.{name}.")
    return None


def _may(actor: Actor, roles: tuple[str, ...]) -> bool:
    return actor.role == ADMIN or actor.role in roles


def _not_yours(detail: str) -> Hindrance:
    return Hindrance(Problem("not_permitted", detail), type="not_permitted")


def _dangling(entity: EntityType, mutation: Mutation, around: Surroundings) -> Hindrance | None:
    for name, value in mutation.patch.items():
        field = entity.fields.get(name)
        target = target_of(field, value) if field and field.type == "reference" else None
        if target is None or target == mutation.key or around.find(target) is not None:
            continue
        if case := around.blocked(target):
            return Hindrance(
                Problem("blocked_by", f"It refers to {target.entity} {target.id}, which waits for review."),
                True,
                "blocked",
                case,
            )
        return Hindrance(
            Problem(f"unknown_{target.entity}", f"There is no {target.entity} {target.id} that you can see."),
            type="unknown_reference",
        )
    return None


def _impossible(entity: EntityType, mutation: Mutation, around: Surroundings) -> Hindrance | None:
    """A step is checked from what the device showed, never from the server's state."""
    field = entity.state_field
    if field is None or field.states is None or field.name not in mutation.patch:
        return None
    target, source = mutation.patch[field.name], around.was.get(field.name, MISSING)
    if mutation.op == "create":
        return _premature(entity, field, target, around)
    if source == target:
        return None
    if source is MISSING:
        return Hindrance(
            Problem("unknown_step", f"It is not known from which state it went to {target}."),
            True,
            "impossible_transition",
        )
    step = field.states.step(source, target)
    if step is None:
        return Hindrance(
            Problem("impossible_transition", f"{entity.name} cannot go from {source} to {target}."),
            type="impossible_transition",
        )
    if not _may(around.actor, step.by):
        return Hindrance(
            Problem("not_permitted", f"{around.actor.role} may not take {entity.name} from {source} to {target}."),
            type="not_permitted",
        )
    return None


def _premature(entity: EntityType, field: Field, target: Any, around: Surroundings) -> Hindrance | None:
    """On site a record begins at its beginning, or one step on; the office may enter what is long under way."""
    step = field.states.step(None, target) if field.states else None
    if around.actor.role != TECHNICIAN or target == field.default or (step and TECHNICIAN in step.by):
        return None
    return Hindrance(
        Problem("impossible_transition", f"A new {entity.name} cannot be {target}."), type="impossible_transition"
    )


def _fraction(entity: EntityType, mutation: Mutation, record: Record | None) -> Hindrance | None:
    problem = fraction_of_whole_unit(entity, {**(record.data if record else {}), **mutation.patch})
    return Hindrance(problem, True, problem.code) if problem else None
