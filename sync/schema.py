"""The entity declarations as data, for clients that are not written in Python: `GET /v1/schema`."""

from __future__ import annotations

from typing import Any

from sync.entities import ENTITY_TYPES
from sync.entity import EntityType, Field

SCHEMA_VERSION = 1
"""Rises when a declaration changes in a way that older mutations have to be converted for."""


def schema_document() -> dict[str, Any]:
    """Every entity with its fields, scopes and states, always in the same order, so that its hash can be an ETag."""
    return {"schema": SCHEMA_VERSION, "entities": {name: _entity(e) for name, e in sorted(ENTITY_TYPES.items())}}


def _entity(entity: EntityType) -> dict[str, Any]:
    described: dict[str, Any] = {
        "plural": entity.plural,
        "doc": entity.doc,
        "fact": entity.fact,
        "on_delete": entity.on_delete,
        "created_by": list(entity.created_by),
        "changed_by": list(entity.changed_by),
        "deleted_by": list(entity.deleted_by),
        "scopes": [scope.template for scope in entity.scopes],
        "fields": {name: _field(spec) for name, spec in entity.fields.items()},
    }
    field = entity.state_field
    if field and field.states:
        steps = field.states.transitions
        described["states"] = {
            "field": field.name,
            "transitions": [{"from": s.source, "to": s.target, "by": list(s.by), "fact": s.fact} for s in steps],
        }
    return described


def _field(spec: Field) -> dict[str, Any]:
    described: dict[str, Any] = {"type": spec.type}
    if spec.choices:
        described["choices"] = list(spec.choices)
    if spec.target:
        described["target"] = spec.target
    if spec.max_length:
        described["max_length"] = spec.max_length
    return described | {
        "required": spec.required,
        "policy": spec.policy,
        "owner": spec.owner,
        "fact": spec.fact,
        "written_by": list(spec.written_by),
        "server": spec.server,
        "doc": spec.doc,
    }
