"""What goes over the wire, as marshmallow schemas: those of records are made from the entity declarations.

The schemas of records describe and name; whether a value fits its declaration is asked in one place, `sync.validate`,
for office and devices alike. So every declared field is passed on as it came, and carries its OpenAPI fragment with it.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import marshmallow as ma

from server.web.body import Envelope
from sync.entities import ENTITY_TYPES
from sync.entity import ANY_ENTITY, EntityType, Field

ID: Final = {"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,64}$"}
MOMENT: Final = {"type": "string", "format": "date-time"}
DECIMAL: Final = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}
CLOCK: Final = {
    "type": "object",
    "additionalProperties": {"type": "integer"},
    "description": "hub: the version; and the last n of each replica whose value stands",
}


class Declared(ma.fields.Raw):
    """A value that is passed on unchanged; `shape` is its fragment of the OpenAPI document."""

    def __init__(self, shape: dict[str, Any], *, nullable: bool = False, **options: Any) -> None:
        """nullable: null clears the field."""
        if nullable and "type" in shape:
            shape = {**shape, "type": [shape["type"], "null"]}
        if nullable and "enum" in shape:
            shape = {**shape, "enum": [*shape["enum"], None]}
        super().__init__(metadata=shape, **options)
        # The fragment says itself where null is allowed; apispec would add it a second time, and where it is not.
        self.allow_none = False

    def _validate_missing(self, value: Any) -> None:
        if value is not None:  # null is a value like any other; `sync.validate` knows where it may stand
            super()._validate_missing(value)


def field_shape(field: Field) -> dict[str, Any]:
    """The OpenAPI fragment of a declared field's value."""
    shape = _shape_of_type(field)
    if field.max_length:
        shape["maxLength"] = field.max_length
    if field.choices:
        shape["enum"] = list(field.choices)
    if field.server:
        shape["readOnly"] = True
    return {**shape, "description": _described(field)}


def _shape_of_type(field: Field) -> dict[str, Any]:
    match field.type:
        case "integer" | "boolean" | "object":
            return {"type": field.type}
        case "decimal":
            return dict(DECIMAL)
        case "moment":
            return dict(MOMENT)
        case "date":
            return {"type": "string", "format": "date"}
        case "set":
            return {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
        case "log":
            return {"type": "array", "items": {}}
        case "reference" if field.target == ANY_ENTITY:
            return {"type": "object", "properties": {"entity": {"type": "string"}, "id": ID}}
        case "reference":
            return dict(ID)
        case _:
            return {"type": "string"}


def _described(field: Field) -> str:
    target = f" (id of a {field.target})" if field.target and field.target != ANY_ENTITY else ""
    return f"{field.doc}{target}"


def operator_shape(field: Field) -> dict[str, Any]:
    """What a PATCH may send for a field: its value, or the operation that its policy asks for."""
    shape = field_shape(field)
    plain = {name: part for name, part in shape.items() if name not in ("description", "readOnly")}
    match field.policy:
        case "counter":
            operation = _operation({"$inc": plain})
        case "log":
            operation = _operation({"$append": plain})
        case "add_wins_set":
            operation = {"anyOf": [plain, _operation({"$add": plain, "$remove": plain}, required=())]}
        case _:
            return shape
    return {**operation, "description": shape["description"]}


def _operation(parts: dict[str, Any], required: tuple[str, ...] | None = None) -> dict[str, Any]:
    names = list(parts) if required is None else list(required)
    shape = {"type": "object", "properties": parts, "additionalProperties": False}
    return {**shape, "required": names} if names else shape


# -- records ------------------------------------------------------------------------------------------------------


def _class_name(entity: EntityType) -> str:
    return "".join(part.capitalize() for part in entity.name.split("_"))


@functools.cache
def record_schema(name: str) -> type[ma.Schema]:
    """A record in the office's answers: its fields beside id, version, clock and updated_at."""
    entity = _entity(name)
    fields: dict[str, Any] = {
        "id": Declared(ID, required=True),
        "version": ma.fields.Integer(required=True),
        "clock": Declared(CLOCK, required=True),
        "updated_at": Declared(MOMENT, required=True),
    }
    fields |= {n: Declared(field_shape(f), nullable=True) for n, f in entity.fields.items()}
    return ma.Schema.from_dict(fields, name=_class_name(entity))


@functools.cache
def create_schema(name: str) -> type[ma.Schema]:
    """The body of a POST: a client-made id and the fields."""
    entity = _entity(name)
    fields: dict[str, Any] = {"id": Declared(ID, required=True)}
    # Which fields are required stands in the document only: `sync.validate` says it with the same words as to devices.
    fields |= {n: Declared(field_shape(f), nullable=not f.required) for n, f in entity.fields.items()}
    return ma.Schema.from_dict(fields, name=f"{_class_name(entity)}Create")


@functools.cache
def patch_schema(name: str) -> type[ma.Schema]:
    """The body of a PATCH: the fields to change."""
    entity = _entity(name)
    fields: dict[str, Any] = {n: Declared(operator_shape(f), nullable=not f.required) for n, f in entity.fields.items()}
    return ma.Schema.from_dict(fields, name=f"{_class_name(entity)}Patch")


@functools.cache
def list_schema(name: str) -> type[ma.Schema]:
    """A page of records."""
    return page_of(record_schema(name), f"{_class_name(_entity(name))}Page")


def page_of(item: type[ma.Schema], name: str) -> type[ma.Schema]:
    """`{"items": […], "next": …}`."""
    fields: dict[str, Any] = {
        "items": ma.fields.List(ma.fields.Nested(item), required=True),
        "next": ma.fields.String(
            required=True, allow_none=True, metadata={"description": "give it as `after` for the next page"}
        ),
    }
    return ma.Schema.from_dict(fields, name=name)


def _entity(name: str) -> EntityType:
    return ENTITY_TYPES[name]


class HistoryField(ma.Schema):
    """What one version did to one field."""

    name = ma.fields.String(required=True)
    before = Declared({})
    after = Declared({})
    sent = Declared({})
    policy = ma.fields.String(allow_none=True)
    kept = ma.fields.String(allow_none=True)
    why = ma.fields.String(allow_none=True)


class HistoryActor(ma.Schema):
    """Who wrote it."""

    kind = ma.fields.String(required=True, metadata={"enum": ["device", "office", "system"]})
    id = ma.fields.String(required=True)
    replica = ma.fields.String(allow_none=True)
    n = ma.fields.Integer(allow_none=True)


class HistoryItem(ma.Schema):
    """One version of a record."""

    version = ma.fields.Integer(required=True)
    recorded_at = Declared(MOMENT, required=True)
    occurred_at = Declared(MOMENT, nullable=True)
    actor = ma.fields.Nested(HistoryActor, required=True)
    fields_ = ma.fields.List(ma.fields.Nested(HistoryField), data_key="fields", required=True)
    review_id = ma.fields.String(allow_none=True)


HistoryPage = page_of(HistoryItem, "HistoryPage")


# -- push and pull ------------------------------------------------------------------------------------------------


class OriginSchema(ma.Schema):
    """The first name of a mutation that was renumbered."""

    replica = Declared(ID, required=True)
    n = ma.fields.Integer(required=True)


class MutationSchema(Envelope):
    """One thing that somebody did, fixed when it was captured."""

    n = ma.fields.Integer(required=True)
    entity = ma.fields.String()
    id = Declared(ID)
    op = ma.fields.String(metadata={"enum": ["create", "update", "delete", "void"]})
    patch = ma.fields.Dict()
    was = ma.fields.Dict()
    base = Declared(CLOCK)
    seen = ma.fields.Integer()
    occurred_at = Declared(MOMENT)
    schema = ma.fields.Integer()
    group = ma.fields.String()
    group_size = ma.fields.Integer()
    origin = ma.fields.Nested(OriginSchema)


class PushSchema(Envelope):
    """Mutations of one replica, in the order of their n."""

    replica = Declared(ID, required=True)
    schema = ma.fields.Integer()
    sent_at = Declared(MOMENT)
    mutations = ma.fields.List(ma.fields.Nested(MutationSchema), required=True, metadata={"maxItems": 500})


class DecisionSchema(ma.Schema):
    """What became of one field that somebody else had written too."""

    field = ma.fields.String(required=True)
    policy = ma.fields.String(required=True)
    kept = ma.fields.String(required=True, metadata={"enum": ["incoming", "current", "combined", "waiting"]})
    why = ma.fields.String(required=True)


class ReasonSchema(ma.Schema):
    """Why a mutation did not go through as sent."""

    code = ma.fields.String(required=True)
    detail = ma.fields.String(required=True)


class WireRecord(ma.Schema):
    """A record as devices hold it."""

    entity = ma.fields.String(required=True)
    id = Declared(ID, required=True)
    version = ma.fields.Integer(required=True)
    clock = Declared(CLOCK, required=True)
    data = ma.fields.Dict(required=True)
    updated_at = Declared(MOMENT, required=True)
    deleted = ma.fields.Boolean()


class ResultSchema(ma.Schema):
    """The answer to one mutation."""

    n = ma.fields.Integer(required=True)
    status = ma.fields.String(required=True, metadata={"enum": ["applied", "merged", "parked", "rejected"]})
    duplicate = ma.fields.Boolean(required=True)
    version = ma.fields.Integer()
    clock = Declared(CLOCK)
    decisions = ma.fields.List(ma.fields.Nested(DecisionSchema))
    review_id = ma.fields.String()
    problem = ma.fields.Nested(ReasonSchema)
    record = ma.fields.Nested(WireRecord)


class PushResultSchema(ma.Schema):
    """One result per mutation, in order."""

    results = ma.fields.List(ma.fields.Nested(ResultSchema), required=True)
    last_n = ma.fields.Integer(required=True)
    committed_seq = ma.fields.Integer(required=True)


class ChangeSchema(ma.Schema):
    """One row of the feed."""

    seq = ma.fields.Integer(required=True)
    op = ma.fields.String(required=True, metadata={"enum": ["put", "delete", "evict"]})
    scope = ma.fields.String(required=True)
    entity = ma.fields.String(required=True)
    id = Declared(ID, required=True)
    version = ma.fields.Integer()
    clock = Declared(CLOCK)
    data = ma.fields.Dict()


class ScopeTallySchema(ma.Schema):
    """What a device should hold of one scope."""

    scope = ma.fields.String(required=True)
    count = ma.fields.Integer(required=True)
    checksum = ma.fields.String(required=True, metadata={"pattern": "^[0-9a-f]{16}$"})


class PageSchema(ma.Schema):
    """A piece of the feed."""

    changes = ma.fields.List(ma.fields.Nested(ChangeSchema), required=True)
    cursor = ma.fields.String(required=True)
    more = ma.fields.Boolean(required=True)
    as_of = ma.fields.Integer(required=True)
    scopes = ma.fields.List(ma.fields.Nested(ScopeTallySchema), required=True)
    server_time = Declared(MOMENT, required=True)
    last_n = ma.fields.Integer(required=True)
    durable_n = ma.fields.Integer(required=True)


class ExchangeSchema(Envelope):
    """A push and a pull in one round trip."""

    push = ma.fields.Nested(PushSchema, allow_none=True)
    cursor = ma.fields.String(allow_none=True)
    limit = ma.fields.Integer(metadata={"minimum": 1, "maximum": 5000})
    replica = Declared(ID)


class ExchangeResultSchema(ma.Schema):
    """Both answers. If the push was committed and the pull failed, `pull` is `{"problem": …}`."""

    push = ma.fields.Nested(PushResultSchema, allow_none=True, required=True)
    pull = Declared(
        {
            "oneOf": [
                {"$ref": "#/components/schemas/Page"},
                {
                    "type": "object",
                    "required": ["problem"],
                    "properties": {"problem": {"$ref": "#/components/schemas/Problem"}},
                },
            ]
        },
        required=True,
    )
