"""What operators and auditors ask: is it alive, is it ready, how is it doing, who did what, which keys sign."""

from __future__ import annotations

from typing import Any, Final

import marshmallow as ma
from flask import Response, request

from server.api.context import parts
from server.api.documents import AFTER, LIMIT, errors, query, sort
from server.api.metrics import CONTENT_TYPE
from server.api.schemas import MOMENT, Declared, page_of
from server.store.enrolment import is_ready
from server.store.keyset import Window
from server.store.listing import AUDIT_FILTERABLE, list_audit
from server.web.auth import AUDITOR, allow, open_to_all
from server.web.body import Blueprint, answer
from server.web.paging import next_after, read_list_query
from sync.errors import SyncError
from sync.moments import format_moment

blueprint = Blueprint("operations", __name__, description="Health, figures, audit and keys")


class Health(ma.Schema):
    """The process answers."""

    status = ma.fields.String(required=True, metadata={"enum": ["ok"]})


class Readiness(ma.Schema):
    """What it depends on. Redis only wakes workers, so it is told and never makes the server unready."""

    database = ma.fields.String(required=True, metadata={"enum": ["ok", "down"]})
    migrations = ma.fields.String(required=True, metadata={"enum": ["ok", "pending", "unknown"]})
    redis = ma.fields.String(required=True, metadata={"enum": ["ok", "down", "unset"]})


class AuditEntry(ma.Schema):
    """Somebody did something."""

    id = ma.fields.Integer(required=True)
    at = Declared(MOMENT, required=True)
    actor = ma.fields.String(required=True)
    action = ma.fields.String(required=True)
    subject = ma.fields.String(required=True)
    detail = ma.fields.Dict(required=True)
    correlation_id = ma.fields.String(required=True, allow_none=True)


class KeySet(ma.Schema):
    """A JWK set (RFC 7517)."""

    keys = ma.fields.List(ma.fields.Dict(), required=True)


@blueprint.route("/healthz")
@open_to_all
@blueprint.doc(summary="Is the process alive?", security=[])
@blueprint.response(200, Health)
def healthz() -> Response:
    """Asks nothing of anything else: a database that is down is no reason to kill this process."""
    return answer({"status": "ok"})


@blueprint.route("/readyz")
@open_to_all
@blueprint.doc(summary="Can it serve?", security=[])
@blueprint.response(200, Readiness)
@blueprint.alt_response(503, schema=Readiness, description="The database does not answer or is not migrated")
def readyz() -> Response:
    """200 when the database answers and is migrated."""
    state = {**_database(), "redis": _redis()}
    ready = state["database"] == "ok" and state["migrations"] == "ok"
    return answer(state, 200 if ready else 503)


def _database() -> dict[str, str]:
    try:
        return {"database": "ok", "migrations": "ok" if is_ready(parts().engine) else "pending"}
    except SyncError:
        return {"database": "down", "migrations": "unknown"}


def _redis() -> str:
    asks = parts().redis
    if asks is None:
        return "unset"
    return "ok" if asks() else "down"


@blueprint.route("/metrics")
@open_to_all
@blueprint.doc(summary="Figures for Prometheus", security=[])
@blueprint.response(200, {"type": "string"}, content_type="text/plain")
def metrics() -> Response:
    """Counts and durations; no ids and no content."""
    return Response(parts().metrics.text(), content_type=CONTENT_TYPE)


@blueprint.route("/v1/jwks.json")
@open_to_all
@blueprint.doc(summary="The public keys of access tokens", security=[])
@blueprint.response(200, KeySet)
def jwks() -> Response:
    """All that are trusted, newest first."""
    return answer(parts().keys.jwks(), headers={"Cache-Control": "public, max-age=300"})


_SORTABLE: Final = ("id",)


@blueprint.route("/v1/audit")
@allow(AUDITOR)
@blueprint.doc(
    summary="Who did what",
    parameters=[
        *(query(name, f"only entries with this {name}") for name in AUDIT_FILTERABLE),
        sort(list(_SORTABLE), "-id"),
        LIMIT,
        AFTER,
    ],
)
@blueprint.response(200, page_of(AuditEntry, "AuditPage"))
@errors(blueprint, 400, 401, 403, 422)
def audit() -> Response:
    """Every office write, decision, enrolment, revocation and token of a client, and one entry for each push."""
    here = parts()
    secret = here.keys.cursor_secret
    asked = read_list_query(
        request.args, secret=secret, sortable=_SORTABLE, filterable=AUDIT_FILTERABLE, default_sort="-id"
    )
    window = Window(asked.limit, asked.sort, asked.descending, asked.after)
    rows = list_audit(here.engine, asked.filters, window)
    shown, more = rows[: asked.limit], len(rows) > asked.limit
    after = next_after(asked, shown[-1]["id"], str(shown[-1]["id"]), secret=secret) if more else None
    return answer({"items": [_entry(row) for row in shown], "next": after})


def _entry(row: Any) -> dict[str, Any]:
    return {**{str(name): value for name, value in row.items()}, "at": format_moment(row["at"])}
