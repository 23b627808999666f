"""The office's view of every declared entity: the same six endpoints for each, made from its declaration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from flask import Response, request

from server.api.context import actor, parts
from server.api.documents import AFTER, IF_MATCH, LIMIT, errors, query, sort
from server.api.etags import etag, wanted_version
from server.api.schemas import (
    HistoryPage,
    create_schema,
    field_shape,
    list_schema,
    patch_schema,
    record_schema,
)
from server.services.records import create_record, delete_record, update_record
from server.store.engine import retrying
from server.store.keyset import Window
from server.store.listing import Past, find_record, list_records, read_history, sortable_fields
from server.web.auth import ROLES, TECHNICIAN, allow, current_caller
from server.web.body import Blueprint, answer
from server.web.correlation import correlation_id
from server.web.paging import next_after, read_list_query
from sync.entities import ENTITY_TYPES
from sync.entity import EntityType, Field
from sync.errors import AlreadyExists, NotFound, PreconditionFailed, Unprocessable
from sync.moments import format_moment
from sync.record import Key, Record
from sync.values import is_decimal, moment_or_none

READERS = ROLES
"""A device may look at what lies in its scopes; it writes by pushing, never here."""


def writers(entity: EntityType) -> frozenset[str]:
    """Who may change some field of this entity at the office."""
    roles = {role for field in entity.fields.values() if not field.server for role in field.written_by}
    return frozenset(roles & _office())


def creators(entity: EntityType) -> frozenset[str]:
    """Who may create one at the office."""
    return frozenset(set(entity.created_by) & _office())


def deleters(entity: EntityType) -> frozenset[str]:
    """Who may delete one at the office."""
    return frozenset(set(entity.deleted_by) & _office())


def _office() -> set[str]:
    return set(ROLES - {TECHNICIAN})


def record_document(record: Record) -> dict[str, Any]:
    """A record as the office sees it."""
    return {
        "id": record.id,
        **record.data,
        "version": record.version,
        "clock": record.clock,
        "updated_at": format_moment(record.updated_at),
    }


def make_blueprint(entity: EntityType) -> Blueprint:
    """The endpoints of one entity."""
    blueprint = Blueprint(entity.plural, __name__, url_prefix=f"/v1/{entity.plural}", description=entity.doc)
    words = entity.name.replace("_", " ")
    sortable = sortable_fields(entity)
    filters = [query("id", "only the one with this id"), *(_filter(field) for field in entity.fields.values())]

    @blueprint.route("")
    @allow(*READERS)
    @blueprint.doc(summary=f"List: {words}", parameters=[*filters, sort(sortable), LIMIT, AFTER])
    @blueprint.response(200, list_schema(entity.name))
    @errors(blueprint, 400, 401, 403, 422)
    def index() -> Response:
        return _list(entity, sortable)

    @blueprint.route("", methods=["POST"])
    @allow(*creators(entity))
    @blueprint.doc(summary=f"Create: {words}")
    @blueprint.json_body(create_schema(entity.name))
    @blueprint.response(201, record_schema(entity.name), headers=_ETAG)
    @errors(blueprint, 400, 401, 403, 409, 413, 415, 422, 503)
    def create(body: Mapping[str, Any]) -> Response:
        return _create(entity, body)

    @blueprint.route("/<string:id>")
    @allow(*READERS)
    @blueprint.doc(summary=f"Show: {words}")
    @blueprint.response(200, record_schema(entity.name), headers=_ETAG)
    @errors(blueprint, 401, 403, 404)
    def show(id: str) -> Response:
        return _answer(_visible(Key(entity.name, id)))

    @blueprint.route("/<string:id>", methods=["PATCH"])
    @allow(*writers(entity))
    @blueprint.doc(summary=f"Change: {words}", parameters=[IF_MATCH])
    @blueprint.json_body(patch_schema(entity.name))
    @blueprint.response(200, record_schema(entity.name), headers=_ETAG)
    @errors(blueprint, 400, 401, 403, 404, 412, 413, 415, 422, 428, 503)
    def update(body: Mapping[str, Any], id: str) -> Response:
        return _update(Key(entity.name, id), body)

    @blueprint.route("/<string:id>", methods=["DELETE"])
    @allow(*deleters(entity))
    @blueprint.doc(summary=f"Delete: {words}", parameters=[IF_MATCH])
    @blueprint.response(204, description="It is gone")
    @errors(blueprint, 401, 403, 404, 412, 422, 428, 503)
    def delete(id: str) -> Response:
        return _delete(Key(entity.name, id))

    @blueprint.route("/<string:id>/history")
    @allow(*READERS)
    @blueprint.doc(summary=f"History: {words}", parameters=[LIMIT, AFTER])
    @blueprint.response(200, HistoryPage)
    @errors(blueprint, 400, 401, 403, 404, 422)
    def history(id: str) -> Response:
        return _history(Key(entity.name, id))

    for view, doc in (
        (index, f"What lies in reach and is not deleted, of this kind: {entity.doc}"),
        (create, "With an id made by the client. It is merged and fed to devices like their own work."),
        (show, "One record with its ETag."),
        (update, "Writes the fields given and leaves the others. 412 shows what stands now."),
        (delete, "Leaves a tombstone that devices are told of."),
        (history, "Who changed what, when and why, newest first."),
    ):
        view.__doc__ = doc
    return blueprint


_ETAG = {"ETag": {"description": "the version, for If-Match", "schema": {"type": "string"}}}


def _filter(field: Field) -> dict[str, Any]:
    shape = field_shape(field)
    kept = {name: part for name, part in shape.items() if name in ("enum", "type", "format")}
    if kept.get("type") in ("array", "object"):
        kept = {"type": "string"}
    return query(field.name, "only those with this value; empty: with none", kept)


# -- reading ------------------------------------------------------------------------------------------------------


def _list(entity: EntityType, sortable: list[str]) -> Response:
    here = parts()
    secret = here.keys.cursor_secret
    asked = read_list_query(request.args, secret=secret, sortable=sortable, filterable=["id", *entity.fields])
    _check_filters(entity, asked.filters)
    window = Window(asked.limit, asked.sort, asked.descending, asked.after)
    rows = list_records(here.engine, entity, current_caller().scopes, asked.filters, window)
    shown, more = rows[: asked.limit], len(rows) > asked.limit
    after = next_after(asked, shown[-1].sorted_by, shown[-1].record.id, secret=secret) if more else None
    return answer({"items": [record_document(row.record) for row in shown], "next": after})


def _check_filters(entity: EntityType, filters: Mapping[str, str]) -> None:
    """Refuses a value that the field's type does not have: the database would answer with an error of its own."""
    for name, wanted in filters.items():
        field = entity.fields.get(name)
        must_be = _must_be(field, wanted) if field and wanted else None
        if must_be:
            raise Unprocessable(errors=[{"path": name, "detail": f"must be {must_be}"}])


_MOST_DIGITS: Final = 64  # stored ones have 19; PostgreSQL ends at 131,072, and beyond it is an error of its own


def _must_be(field: Field, wanted: str) -> str | None:
    match field.type:
        case "decimal" | "integer" if not is_decimal(wanted) or len(wanted) > _MOST_DIGITS:
            return "a number"
        case "moment" if moment_or_none(wanted) is None:
            return "a time with offset, such as 2026-11-20T10:15:00+01:00"
        case "boolean" if wanted not in ("true", "false"):
            return "true or false"
        case "object":
            return "empty: records can only be filtered by whether they have one"
        case "reference" if field.target == "*" and not re.fullmatch(r"[a-z_]+:[A-Za-z0-9_.:-]+", wanted):
            return "entity:id"
        case _:
            return None


def _visible(key: Key) -> Record:
    record = find_record(parts().engine, current_caller().scopes, key)
    if record is None or record.deleted:
        raise NotFound
    return record


def _history(key: Key) -> Response:
    here = parts()
    # A deleted record still has its history: that is what it is for.
    if find_record(here.engine, current_caller().scopes, key) is None:
        raise NotFound
    secret = here.keys.cursor_secret
    asked = read_list_query(request.args, secret=secret, sortable=["version"], default_sort="-version")
    before = int(str(asked.after[0])) if asked.after else None
    rows = read_history(here.engine, key, before, asked.limit)
    shown, more = rows[: asked.limit], len(rows) > asked.limit
    after = next_after(asked, shown[-1].entry.version, key.id, secret=secret) if more else None
    return answer({"items": [_past_document(past) for past in shown], "next": after})


_KINDS: Final = {"user": "office"}


def _past_document(past: Past) -> dict[str, Any]:
    entry = past.entry
    return {
        "version": entry.version,
        "recorded_at": format_moment(past.recorded_at),
        "occurred_at": format_moment(entry.occurred_at) if entry.occurred_at is not None else None,
        "actor": {**entry.actor, "kind": _KINDS.get(entry.actor["kind"], entry.actor["kind"])},
        "fields": [dict(field) for field in entry.fields],
        "review_id": entry.review_id,
    }


# -- writing ------------------------------------------------------------------------------------------------------


def _create(entity: EntityType, body: Mapping[str, Any]) -> Response:
    here = parts()
    values = dict(body)
    id = values.pop("id")
    if not isinstance(id, str) or not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", id, re.ASCII):
        raise Unprocessable(errors=[{"path": "id", "detail": "1 to 64 of A-Z a-z 0-9 _ . : -"}])
    key, who, call = Key(entity.name, id), actor(), correlation_id()
    record = _writing(lambda: create_record(here.store, who, key, values, here.clock(), call))
    here.wake()
    response = _answer(record, 201)
    response.headers["Location"] = f"/v1/{entity.plural}/{id}"
    return response


def _update(key: Key, values: Mapping[str, Any]) -> Response:
    here, who, version, call = parts(), actor(), wanted_version(), correlation_id()
    _visible(key)  # before anything else is said about it
    record = _writing(lambda: update_record(here.store, who, key, values, version, here.clock(), call))
    here.wake()
    return _answer(record)


def _delete(key: Key) -> Response:
    here, who, version, call = parts(), actor(), wanted_version(), correlation_id()
    _visible(key)
    _writing(lambda: delete_record(here.store, who, key, version, here.clock(), call))
    here.wake()
    return Response(status=204)


def _writing(work: Callable[[], Any]) -> Any:
    """An office write; `current` is shown as the office sees records."""
    try:
        return retrying(work)
    except (AlreadyExists, PreconditionFailed) as error:
        raise type(error)(error.detail, **{**error.extras, "current": _as_office(error.extras["current"])}) from error


def _as_office(current: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": current["id"],
        **current["data"],
        **{name: current[name] for name in ("version", "clock", "updated_at")},
    }


def _answer(record: Record, status: int = 200) -> Response:
    return answer(record_document(record), status, {"ETag": etag(record.version)})


blueprints = [make_blueprint(entity) for entity in ENTITY_TYPES.values()]
