"""The words to declare a synced entity with.

An entity is declared once, as a class under `@synced`; validation, schemas, OpenAPI, collections of the SDK and the docs
derive from that declaration. The class becomes a frozen dataclass, so a type checker knows its fields.

    @synced("note", scopes=("tech:{parent.assignee_id}",), fact=True)
    class Note:
        \"\"\"Something worth remembering about a job.\"\"\"
        text: str = text(max_length=4000, policy=MERGE3)

A mistake in a declaration raises DeclarationError at import, not in the field.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
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
        """The transition from `source` to `target`, if the table has one."""
        return next((t for t in self.transitions if t.source == source and t.target == target), None)


@dataclass(frozen=True, slots=True)
class Field:
    """One declared field. written_by: roles that may write it at all; server: only the server does.
    owner: the system whose word counts under owner_wins. whole: a decimal that counts whole units only where `uom` says so.
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
    states: StateMachine | None = None
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Scope:
    """Who gets a record: `template` with `{field}` or `{reference.field}` in it, only if `path` has one of `values`."""

    template: str
    path: str | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EntityType:
    """One declared entity. needs and effects: what its changes reach and cause (pure; see `sync.effects`)."""

    name: str
    plural: str
    doc: str
    shape: type
    fields: Mapping[str, Field]
    scopes: tuple[Scope, ...]
    fact: bool = False
    on_delete: OnDelete = "review"
    created_by: tuple[str, ...] = ANYONE
    deleted_by: tuple[str, ...] = OFFICE
    needs: Needs = no_needs
    effects: Effects = no_effects

    @property
    def state_field(self) -> Field | None:
        """The field that runs through a state machine, if there is one."""
        return next((f for f in self.fields.values() if f.states), None)


ENTITY_TYPES: dict[str, EntityType] = {}

T = TypeVar("T")


def _word(type_: FieldType, policy: str, doc: str, default: Any, **more: Any) -> Any:
    spec = {"type": type_, "policy": policy, "doc": doc, **more}
    if default is dataclasses.MISSING:
        return field(metadata={"synced": spec})
    return field(default=default, metadata={"synced": spec})


def text(
    *, max_length: int = 200, policy: str = "merge3", doc: str = "", default: Any = dataclasses.MISSING, **more: Any
) -> Any:
    """Text of at most `max_length` characters."""
    return _word("text", policy, doc, default, max_length=max_length, **more)


def integer(*, policy: str = "merge3", doc: str = "", default: Any = dataclasses.MISSING, **more: Any) -> Any:
    """A whole number below 2**53."""
    return _word("integer", policy, doc, default, **more)


def decimal(*, policy: str = "merge3", doc: str = "", default: Any = dataclasses.MISSING, **more: Any) -> Any:
    """An exact number, a string such as "2.500" on the wire."""
    return _word("decimal", policy, doc, default, **more)


def boolean(*, policy: str = "merge3", doc: str = "", default: Any = dataclasses.MISSING, **more: Any) -> Any:
    """True or false."""
    return _word("boolean", policy, doc, default, **more)


def moment(*, policy: str = "merge3", doc: str = "", default: Any = dataclasses.MISSING, **more: Any) -> Any:
    """A point in time, RFC 3339 with offset."""
    return _word("moment", policy, doc, default, **more)


def choice(
    choices: Iterable[str], *, policy: str = "merge3", doc: str = "", default: Any = dataclasses.MISSING, **more: Any
) -> Any:
    """One of `choices`."""
    return _word("choice", policy, doc, default, choices=tuple(choices), **more)


def state(machine: StateMachine, *, doc: str = "", default: Any = dataclasses.MISSING, **more: Any) -> Any:
    """The state of a state machine."""
    return _word("choice", "state_machine", doc, default, choices=machine.precedence, states=machine, **more)


def reference(
    target: str, *, policy: str = "merge3", doc: str = "", default: Any = dataclasses.MISSING, **more: Any
) -> Any:
    """The id of a record of entity `target`; with target "*", an object `{entity, id}`."""
    return _word("reference", policy, doc, default, target=target, **more)


def counter(*, doc: str = "", default: Any = dataclasses.MISSING, **more: Any) -> Any:
    """An exact number that devices add to (`{"$inc": "-2"}`)."""
    return _word("decimal", "counter", doc, default, **more)


def log(*, doc: str = "", default: Any = (), **more: Any) -> Any:
    """Entries that are only ever appended (`{"$append": […]}`)."""
    return _word("log", "log", doc, default, **more)


def tags(*, doc: str = "", default: Any = (), **more: Any) -> Any:
    """A set of short texts; of an addition and a concurrent removal the addition stands."""
    return _word("set", "add_wins_set", doc, default, **more)


def obj(*, policy: str = "merge3", doc: str = "", default: Any = dataclasses.MISSING, **more: Any) -> Any:
    """Any JSON object, merged as one value."""
    return _word("object", policy, doc, default, **more)


@dataclass_transform(
    frozen_default=True,
    kw_only_default=True,
    field_specifiers=(text, integer, decimal, boolean, moment, choice, state, reference, counter, log, tags, obj),
)
def synced(
    name: str,
    *,
    scopes: Iterable[str | Scope],
    plural: str | None = None,
    fact: bool = False,
    on_delete: OnDelete = "review",
    created_by: tuple[str, ...] = ANYONE,
    deleted_by: tuple[str, ...] = OFFICE,
    needs: Needs = no_needs,
    effects: Effects = no_effects,
) -> Callable[[type[T]], type[T]]:
    """Declare an entity. plural: the kebab-case name in URLs. Raises DeclarationError if the parts do not fit together."""

    def declare(cls: type[T]) -> type[T]:
        shape = dataclass(frozen=True, kw_only=True)(cls)
        fields = {f.name: _field(f) for f in dataclasses.fields(shape) if f.name != "id"}  # type: ignore[arg-type]  # the decorator made it one
        entity = EntityType(
            name=name,
            plural=plural or name.replace("_", "-") + "s",
            doc=" ".join((cls.__doc__ or "").split()),
            shape=shape,
            fields=fields,
            scopes=tuple(s if isinstance(s, Scope) else Scope(s) for s in scopes),
            fact=fact,
            on_delete=on_delete,
            created_by=created_by,
            deleted_by=deleted_by,
            needs=needs,
            effects=effects,
        )
        _check(entity)
        ENTITY_TYPES[name] = entity
        return shape

    return declare


def _field(declared: dataclasses.Field[Any]) -> Field:
    spec = dict(declared.metadata.get("synced", {}))
    if not spec:
        raise DeclarationError(f"{declared.name}: declare it with a word of sync.entity, such as text()")
    return Field(name=declared.name, required=declared.default is dataclasses.MISSING, **spec)


def _check(entity: EntityType) -> None:
    """What would otherwise go wrong on a device in a cellar."""
    if entity.name in ENTITY_TYPES:
        raise DeclarationError(f"{entity.name} is declared twice")
    if not entity.doc:
        raise DeclarationError(f"{entity.name} has no docstring")
    for spec in entity.fields.values():
        where = f"{entity.name}.{spec.name}"
        if spec.policy not in POLICIES:
            raise DeclarationError(f"{where}: there is no policy {spec.policy}")
        if (spec.policy == "owner_wins") != (spec.owner is not None):
            raise DeclarationError(f"{where}: owner_wins and owner go together")
        if (spec.policy == "state_machine") != (spec.states is not None):
            raise DeclarationError(f"{where}: state_machine is declared with state()")
        if spec.states and {t.source for t in spec.states.transitions} | {
            t.target for t in spec.states.transitions
        } > set(spec.choices):
            raise DeclarationError(f"{where}: a transition names a state outside the precedence")
    for scope in entity.scopes:
        for path in [*template_paths(scope.template), *([scope.path] if scope.path else [])]:
            first = path.partition(".")[0]
            if first != "id" and first not in entity.fields:
                raise DeclarationError(f"{entity.name}: scope {scope.template} names no field {first}")


def template_paths(template: str) -> list[str]:
    """The paths in braces of a scope template."""
    return re.findall(r"{([a-z_.]+)}", template)


def check_references() -> None:
    """Every reference names a declared entity. Raises DeclarationError; called once all entities are imported."""
    for entity in ENTITY_TYPES.values():
        for spec in entity.fields.values():
            if spec.type == "reference" and spec.target != ANY_ENTITY and spec.target not in ENTITY_TYPES:
                raise DeclarationError(f"{entity.name}.{spec.name} refers to {spec.target}, which is not declared")
