"""Who gets a record: the scopes that its declaration's templates give it.

A template may follow references (`tech:{work_order_id.assignee_id}`), so a record's scopes can change when another
record does. `references` names the records on its paths; whoever stores records keeps those names to find the
dependants again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from sync.entities import ENTITY_TYPES
from sync.entity import ANY_ENTITY, EntityType, Field, template_paths
from sync.record import Key

Values = Callable[[Key], Mapping[str, Any] | None]
"""The values of a record, None if there is none."""


def scopes_of(entity: EntityType, id: str, data: Mapping[str, Any], values: Values) -> tuple[str, ...]:
    """The scopes of a record with these values, sorted. A template whose path leads nowhere gives none."""
    scopes = set()
    for scope in entity.scopes:
        if scope.path and _follow(entity, id, data, scope.path, values) not in scope.values:
            continue
        filled = scope.template
        for path in template_paths(scope.template):
            value = _follow(entity, id, data, path, values)
            filled = filled.replace(f"{{{path}}}", value) if isinstance(value, str) and value else ""
        if filled:
            scopes.add(filled)
    return tuple(sorted(scopes))


def references(entity: EntityType, data: Mapping[str, Any]) -> set[Key]:
    """The records that this one's scope paths pass through next."""
    targets = (target_of(entity.fields[name], data.get(name)) for name in path_references(entity.name))
    return {key for key in targets if key}


def target_of(field: Field, value: Any) -> Key | None:
    """The record that the value of a reference field names."""
    if field.target == ANY_ENTITY:
        return Key(value["entity"], value["id"]) if isinstance(value, Mapping) else None
    return Key(field.target or "", value) if isinstance(value, str) else None


@functools.cache
def path_references(name: str) -> tuple[str, ...]:
    """The reference fields of entity `name` that its scope paths start with."""
    paths = [
        path for scope in ENTITY_TYPES[name].scopes for path in (*template_paths(scope.template), scope.path or "")
    ]
    return tuple(sorted({path.partition(".")[0] for path in paths if "." in path}))


@functools.cache
def path_fields(name: str) -> frozenset[str]:
    """The fields of entity `name` whose change changes scopes, its own or those of records that refer to it."""
    own = {
        path.partition(".")[0]
        for s in ENTITY_TYPES[name].scopes
        for path in (*template_paths(s.template), s.path or "")
    }
    return passed_through(name) | (frozenset(own) & ENTITY_TYPES[name].fields.keys())


@functools.cache
def passed_through(name: str) -> frozenset[str]:
    """The fields of entity `name` from which records that refer to it may read their scopes."""
    paths = [p for e in ENTITY_TYPES.values() for s in e.scopes for p in (*template_paths(s.template), s.path or "")]
    return frozenset(step for path in paths for step in path.split(".")[1:]) & ENTITY_TYPES[name].fields.keys()


def _follow(entity: EntityType, id: str, data: Mapping[str, Any], path: str, values: Values) -> Any:
    first, _, rest = path.partition(".")
    if first == "id":
        return id
    if not rest:
        return data.get(first)
    target = target_of(entity.fields[first], data.get(first))
    found = values(target) if target else None
    if target is None or found is None or target.entity not in ENTITY_TYPES:
        return None
    onward = ENTITY_TYPES[target.entity]
    if rest.partition(".")[0] not in onward.fields:
        return None  # a note's parent may be of an entity without that field
    return _follow(onward, target.id, found, rest, values)
