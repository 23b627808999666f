"""The words to declare a synced entity with.

An entity is declared once, as a class under `@synced`; validation, schemas, OpenAPI, collections of the SDK and the
docs derive from that declaration. The class becomes a frozen dataclass, so a type checker knows its fields.

    @synced("note", scopes=("tech:{parent.assignee_id}",), fact=True)
    class Note:
        \"\"\"Something worth remembering about a job.\"\"\"

        id: str = ""
        text: str = text(max_length=4000, doc="what the next visitor should know")

A field without `default=` is required on create, and so a type checker demands it. `id` is no field: it names the
record. A field that is called like a word of Python is declared with a low line behind it (`class_`); everywhere else
it is `class`. A mistake in a declaration raises DeclarationError at import, not in the field.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, dataclass_transform

from sync.effects import Effects, Needs, no_effects, no_needs
from sync.policy import POLICIES

TECHNICIAN, DISPATCHER, CONTROLLER = "technician", "dispatcher", "inventory_controller"
REVIEWER, INTEGRATION, ADMIN = "reviewer", "integration", "admin"
OFFICE = (DISPATCHER, CONTROLLER, REVIEWER, INTEGRATION, ADMIN)
ANYONE = (TECHNICIAN, *OFFICE)

FieldType = Literal[
    "text", "integer", "decimal", "boolean", "moment", "date", "choice", "reference", "set", "log", "object"
]
OnDelete = Literal["delete_wins", "edit_resurrects", "review"]
ANY_ENTITY = "*"


class DeclarationError(Exception):
    """An entity's declaration contradicts itself."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A step of a state machine. by: the roles that may take it. fact: it reports something that happened."""

    source: str
    target: str
    by: tuple[str, ...]
    fact: bool = False


@dataclass(frozen=True, slots=True)
class Contest:
    """Two states that neither may silently beat the other.

    earlier_wins: `states[0]` stands without asking if it happened before the other by more than the skew bound.
    """

    states: tuple[str, str]
    earlier_wins: bool = False


@dataclass(frozen=True, slots=True)
class StateMachine:
    """States in rising precedence: of concurrent steps the one further right stands, unless the pair is contested."""

    precedence: tuple[str, ...]
    transitions: tuple[Transition, ...]
    contests: tuple[Contest, ...] = ()

    def step(self, source: str | None, target: str) -> Transition | None:
        """The transition from `source` to `target`, if the table has one. None: nobody wrote it, so it is the first."""
        source = source or self.precedence[0]
        return next((t for t in self.transitions if t.source == source and t.target == target), None)


@dataclass(frozen=True, slots=True)
class Field:
    """One declared field. written_by: roles that may write it at all; server: only the server does.

    owner: the system whose word counts under owner_wins. target: the entity that a reference names. default: what a
    record shows where nobody wrote the field. attribute: its name in the class. non_negative: below 0 it is a slip.
    """

    name: str
    type: FieldType
    policy: str
    required: bool = False
    choices: tuple[str, ...] = ()
    target: str | None = None
    owner: str | None = None
    fact: bool = False
    server: bool = False
    written_by: tuple[str, ...] = ANYONE
    max_length: int = 0
    non_negative: bool = False
    states: StateMachine | None = None
    default: Any = None
    attribute: str = ""
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Scope:
    """Who gets a record: `template` with `{field}` or `{reference.field}` in it, only if `path` has one of `values`."""

    template: str
    path: str | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EntityType:
    """One declared entity. shape: its class. plural: its name in URLs. fact: creating or changing it reports something.

    on_delete: what holds when a deletion and an edit did not know of each other. needs and effects: what its changes
    reach and cause (pure; see `sync.effects`).
    """

    name: str
    plural: str
    doc: str
    shape: type
    fields: Mapping[str, Field]
    scopes: tuple[Scope, ...]
    fact: bool = False
    on_delete: OnDelete = "review"
    created_by: tuple[str, ...] = ANYONE
    changed_by: tuple[str, ...] = ANYONE
    deleted_by: tuple[str, ...] = OFFICE
    needs: Needs = no_needs
    effects: Effects = no_effects

    @property
    def state_field(self) -> Field | None:
        """The field that runs through a state machine, if there is one."""
        return next((f for f in self.fields.values() if f.states), None)


ENTITY_TYPES: dict[str, EntityType] = {}

T = TypeVar("T")


_REQUIRED: Any = dataclasses.MISSING


def _word(type_: FieldType, policy: str, doc: str, default: Any, more: dict[str, Any]) -> Any:
    return field(default=default, metadata={"synced": {"type": type_, "policy": policy, "doc": doc, **more}})


def text(*, max_length: int = 200, policy: str = "merge3", doc: str = "", default: Any = _REQUIRED, **more: Any) -> Any:
    """Text of at most `max_length` characters."""
    return _word("text", policy, doc, default, {"max_length": max_length, **more})


def integer(*, policy: str = "merge3", doc: str = "", default: Any = _REQUIRED, **more: Any) -> Any:
    """A whole number below 2**53."""
    return _word("integer", policy, doc, default, more)


def decimal(*, policy: str = "merge3", doc: str = "", default: Any = _REQUIRED, **more: Any) -> Any:
    """An exact number, a string such as "2.500" on the wire."""
    return _word("decimal", policy, doc, default, more)


def boolean(*, policy: str = "merge3", doc: str = "", default: Any = _REQUIRED, **more: Any) -> Any:
    """True or false."""
    return _word("boolean", policy, doc, default, more)


def moment(*, policy: str = "merge3", doc: str = "", default: Any = _REQUIRED, **more: Any) -> Any:
    """A point in time, RFC 3339 with offset on the wire."""
    return _word("moment", policy, doc, default, more)


def day(*, policy: str = "merge3", doc: str = "", default: Any = _REQUIRED, **more: Any) -> Any:
    """A calendar date, "2026-11-20" on the wire."""
    return _word("date", policy, doc, default, more)


def choice(
    choices: Iterable[str], *, policy: str = "merge3", doc: str = "", default: Any = _REQUIRED, **more: Any
) -> Any:
    """One of `choices`."""
    return _word("choice", policy, doc, default, {"choices": tuple(choices), **more})


def state(machine: StateMachine, *, doc: str = "", default: Any = _REQUIRED, **more: Any) -> Any:
    """The state of a state machine."""
    reports = any(step.fact for step in machine.transitions)
    known = {"choices": machine.precedence, "states": machine, "fact": reports}
    return _word("choice", "state_machine", doc, default, {**known, **more})


def reference(target: str, *, policy: str = "merge3", doc: str = "", default: Any = _REQUIRED, **more: Any) -> Any:
    """The id of a record of entity `target`; with target "*", an object `{entity, id}`."""
    return _word("reference", policy, doc, default, {"target": target, **more})


def counter(*, doc: str = "", default: Any = _REQUIRED, **more: Any) -> Any:
    """An exact number that devices add to (`{"$inc": "-2"}`)."""
    return _word("decimal", "counter", doc, default, more)


def log(*, doc: str = "", default: Any = _REQUIRED, **more: Any) -> Any:
    """Entries that are only ever appended (`{"$append": […]}`)."""
    return _word("log", "log", doc, default, more)


def tags(*, doc: str = "", default: Any = _REQUIRED, **more: Any) -> Any:
    """A set of short texts; of an addition and a concurrent removal the addition stands."""
    return _word("set", "add_wins_set", doc, default, more)


def obj(*, policy: str = "merge3", doc: str = "", default: Any = _REQUIRED, **more: Any) -> Any:
    """Any JSON object, merged as one value."""
    return _word("object", policy, doc, default, more)


@dataclass_transform(
    frozen_default=True,
    kw_only_default=True,
    field_specifiers=(text, integer, decimal, boolean, moment, day, choice, state, reference, counter, log, tags, obj),
)
def synced(
    name: str,
    *,
    scopes: Iterable[str | Scope],
    plural: str | None = None,
    fact: bool = False,
    on_delete: OnDelete = "review",
    created_by: tuple[str, ...] = ANYONE,
    changed_by: tuple[str, ...] = ANYONE,
    deleted_by: tuple[str, ...] = OFFICE,
    needs: Needs = no_needs,
    effects: Effects = no_effects,
) -> Callable[[type[T]], type[T]]:
    """Declare an entity; `EntityType` says what the arguments mean. Raises DeclarationError if they do not fit."""

    def declare(cls: type[T]) -> type[T]:
        doc = " ".join((cls.__doc__ or "").split())  # before dataclass() writes one of its own
        shape = dataclass(frozen=True, kw_only=True)(cls)
        declared = dataclasses.fields(shape)  # type: ignore[arg-type]  # the line above made it a dataclass
        fields = {spec.name: spec for spec in (_field(f) for f in declared if f.name != "id")}
        entity = EntityType(
            name=name,
            plural=plural or name.replace("_", "-") + "s",
            doc=doc,
            shape=shape,
            fields=fields,
            scopes=tuple(s if isinstance(s, Scope) else Scope(s) for s in scopes),
            fact=fact,
            on_delete=on_delete,
            created_by=created_by,
            changed_by=changed_by,
            deleted_by=deleted_by,
            needs=needs,
            effects=effects,
        )
        _check(entity)
        ENTITY_TYPES[name] = entity
        return shape

    return declare


def _field(declared: dataclasses.Field[Any]) -> Field:
    spec = declared.metadata.get("synced")
    if spec is None:
        raise DeclarationError(f"{declared.name}: declare it with a word of sync.entity, such as text()")
    required = declared.default is _REQUIRED
    return Field(
        name=declared.name.removesuffix("_"),
        attribute=declared.name,
        required=required,
        default=None if required else declared.default,
        **spec,
    )


def _check(entity: EntityType) -> None:
    """What would otherwise go wrong on a device in a cellar."""
    if entity.name in ENTITY_TYPES:
        raise DeclarationError(f"{entity.name} is declared twice")
    if not entity.doc:
        raise DeclarationError(f"{entity.name} has no docstring")
    for spec in entity.fields.values():
        for mistake in _mistakes(spec):
            raise DeclarationError(f"{entity.name}.{spec.name}: {mistake}")
    for scope in entity.scopes:
        for path in scope_paths(scope):
            first = path.partition(".")[0]
            if first != "id" and first not in entity.fields:
                raise DeclarationError(f"{entity.name}: scope {scope.template} names no field {first}")


def _mistakes(spec: Field) -> Iterator[str]:
    if spec.policy not in POLICIES:
        yield f"there is no policy {spec.policy}"
    if (spec.policy == "owner_wins") != (spec.owner is not None):
        yield "owner_wins and owner go together"
    if (spec.policy == "state_machine") != (spec.states is not None):
        yield "state_machine is declared with state()"
    if spec.required and spec.server:
        yield "nobody can send what only the server writes, so it cannot be required"
    if not set(spec.written_by) <= set(ANYONE):
        yield "written_by names an unknown role"
    if spec.type == "choice" and spec.default is not None and spec.default not in spec.choices:
        yield f"{spec.default} is not one of its choices"
    if spec.states:
        steps = {name for step in spec.states.transitions for name in (step.source, step.target)}
        contested = {name for contest in spec.states.contests for name in contest.states}
        if not steps | contested <= set(spec.choices):
            yield "a transition or contest names a state outside the precedence"


def template_paths(template: str) -> list[str]:
    """The paths in braces of a scope template."""
    return re.findall(r"{([a-z_.]+)}", template)


def scope_paths(scope: Scope) -> list[str]:
    """Every path that decides about a scope."""
    return [*template_paths(scope.template), *([scope.path] if scope.path else [])]


def check_references() -> None:
    """References and scope paths lead somewhere. Raises DeclarationError; called once all entities are imported."""
    for entity in ENTITY_TYPES.values():
        for spec in entity.fields.values():
            if spec.type == "reference" and spec.target != ANY_ENTITY and spec.target not in ENTITY_TYPES:
                raise DeclarationError(f"{entity.name}.{spec.name} refers to {spec.target}, which is not declared")
    for entity in ENTITY_TYPES.values():
        for path in (path for scope in entity.scopes for path in scope_paths(scope)):
            _check_path(entity, path)


def _check_path(entity: EntityType, path: str) -> None:
    """At most two references: the statement that moves dependants to other scopes follows no more."""
    *references, last = path.split(".")
    if len(references) > 2:
        raise DeclarationError(f"{entity.name}: the scope path {path} follows more than two references")
    here = entity
    for step in references:
        spec = here.fields.get(step)
        if spec is None or spec.type != "reference":
            raise DeclarationError(f"{entity.name}: {step} in the scope path {path} is no reference")
        if spec.target == ANY_ENTITY:
            return  # whether the path goes on depends on the record
        here = ENTITY_TYPES[spec.target or ""]
    if last != "id" and last not in here.fields:
        raise DeclarationError(f"{entity.name}: the scope path {path} ends in no field of {here.name}")
