"""Review: the cases that wait for a person, what can be decided about them, and deciding."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import marshmallow as ma
from flask import Response, request

from server.api.context import actor, parts
from server.api.documents import AFTER, IF_MATCH, LIMIT, errors, query, sort
from server.api.etags import etag, wanted_tag
from server.api.schemas import ID, MOMENT, Declared, page_of
from server.services.conflicts import OPTIONS, case_etag, resolve_case
from server.store.engine import retrying
from server.store.keyset import Window
from server.store.listing import CASE_FILTERABLE, CASE_SORTABLE, Past, find_case, list_cases, read_history
from server.web.auth import AUDITOR, DISPATCHER, INVENTORY_CONTROLLER, REVIEWER, allow, current_caller
from server.web.body import Blueprint, Envelope, answer
from server.web.correlation import correlation_id
from server.web.paging import next_after, read_list_query
from sync.entities import ENTITY_TYPES
from sync.errors import NotFound
from sync.merge import RECORD
from sync.moments import format_moment
from sync.record import Record
from sync.store import Case

blueprint = Blueprint("conflicts", __name__, url_prefix="/v1/conflicts", description="What waits for a person")

DECIDERS: Final = (DISPATCHER, INVENTORY_CONTROLLER, REVIEWER)
TIMELINE: Final = 20  # versions looked at; a case is decided by what happened lately
_SHOWN_CHARS: Final = 120  # of a value in a sentence
_ETAG: Final = {
    "ETag": {"description": "the case and the version of its record, for If-Match", "schema": {"type": "string"}}
}


class CaseItem(ma.Schema):
    """A review case in a list."""

    id = ma.fields.String(required=True)
    type = ma.fields.String(required=True)
    status = ma.fields.String(required=True, metadata={"enum": ["open", "claimed", "resolved", "reopened"]})
    impact = ma.fields.Integer(required=True)
    entity = ma.fields.String(required=True)
    record_id = Declared(ID, required=True)
    fields_ = ma.fields.List(ma.fields.String(), data_key="fields", required=True)
    technician_id = ma.fields.String(required=True, allow_none=True)
    opened_at = Declared(MOMENT, required=True)
    claimed_by = ma.fields.String(required=True, allow_none=True)


class CaseField(ma.Schema):
    """One field of a case: what it showed, what stands and what was sent."""

    name = ma.fields.String(required=True)
    base = Declared({})
    current = Declared({})
    incoming = Declared({})
    policy = ma.fields.String(required=True, allow_none=True)


class CaseOption(ma.Schema):
    """Something that can be decided."""

    id = ma.fields.String(required=True, metadata={"enum": list(OPTIONS)})
    label = ma.fields.String(required=True)
    effects = ma.fields.List(ma.fields.String(), required=True)


class TimelineEvent(ma.Schema):
    """Something that happened, oldest first."""

    at = Declared(MOMENT, required=True)
    by = ma.fields.String(required=True, allow_none=True)
    what = ma.fields.String(required=True)


class CaseDetail(CaseItem):
    """A review case with all that helps to decide it."""

    fields_ = ma.fields.List(ma.fields.Nested(CaseField), data_key="fields", required=True)
    base = ma.fields.Dict(required=True)
    current = ma.fields.Dict(required=True)
    incoming = ma.fields.Dict(required=True)
    evidence = ma.fields.Dict(required=True)
    timeline = ma.fields.List(ma.fields.Nested(TimelineEvent), required=True)
    options = ma.fields.List(ma.fields.Nested(CaseOption), required=True)
    version = ma.fields.Integer(required=True, allow_none=True, metadata={"description": "the record's version"})
    resolution = ma.fields.Dict(required=True, allow_none=True)


class Resolution(Envelope):
    """What is decided."""

    option = ma.fields.String(required=True, validate=ma.validate.OneOf(OPTIONS))
    values = ma.fields.Dict(
        keys=ma.fields.String(), load_default=None, allow_none=True, metadata={"description": "for option `values`"}
    )
    reason = ma.fields.String(required=True, validate=ma.validate.Length(min=1, max=2000))


@blueprint.route("")
@allow(*DECIDERS, AUDITOR)
@blueprint.doc(
    summary="Review cases",
    parameters=[
        query("status", "only those in this status", {"enum": ["open", "claimed", "resolved", "reopened"]}),
        *(query(name, f"only those of this {name}") for name in CASE_FILTERABLE if name != "status"),
        sort(list(CASE_SORTABLE), "-impact"),
        LIMIT,
        AFTER,
    ],
)
@blueprint.response(200, page_of(CaseItem, "CasePage"))
@errors(blueprint, 400, 401, 403, 422)
def index() -> Response:
    """What waits, or waited, for a person; what most depends on comes first."""
    here = parts()
    secret = here.keys.cursor_secret
    asked = read_list_query(
        request.args, secret=secret, sortable=CASE_SORTABLE, filterable=CASE_FILTERABLE, default_sort="-impact"
    )
    window = Window(asked.limit, asked.sort, asked.descending, asked.after)
    rows = list_cases(here.engine, current_caller().scopes, asked.filters, window)
    shown, more = rows[: asked.limit], len(rows) > asked.limit
    after = next_after(asked, getattr(shown[-1], asked.sort), shown[-1].id, secret=secret) if more else None
    return answer({"items": [_item(case) for case in shown], "next": after})


@blueprint.route("/<string:case_id>")
@allow(*DECIDERS, AUDITOR)
@blueprint.doc(summary="One review case")
@blueprint.response(200, CaseDetail, headers=_ETAG)
@errors(blueprint, 401, 403, 404)
def show(case_id: str) -> Response:
    """The case with what can be decided and what would follow."""
    return _answer(case_id)


@blueprint.route("/<string:case_id>/resolution", methods=["POST"])
@allow(*DECIDERS)
@blueprint.doc(summary="Decide a review case", parameters=[IF_MATCH])
@blueprint.json_body(Resolution)
@blueprint.response(200, CaseDetail, headers=_ETAG)
@errors(blueprint, 400, 401, 403, 404, 409, 412, 413, 415, 422, 428, 503)
def resolve(decided: Mapping[str, Any], case_id: str) -> Response:
    """The decision is a write that follows all it has seen: it goes to every device, and no replay reopens it."""
    here, who, tag = parts(), actor(), wanted_tag()
    option, values, reason, call = decided["option"], decided["values"], decided["reason"], correlation_id()
    retrying(lambda: resolve_case(here.store, who, case_id, option, values, reason, tag, here.clock(), call))
    here.wake()
    return _answer(case_id)


def _answer(case_id: str) -> Response:
    found = find_case(parts().engine, current_caller().scopes, case_id)
    if found is None:
        raise NotFound
    case, record = found
    # A case about a record that did not exist yet is the whole office's; the record that appeared since may not be.
    shown = record if record and actor().sees(record.scopes) else None
    past = read_history(parts().engine, shown.key, None, TIMELINE) if shown else []
    return answer(_detail(case, shown, past), headers={"ETag": etag(case_etag(case, record))})


# -- as documents -------------------------------------------------------------------------------------------------


def _item(case: Case) -> dict[str, Any]:
    return {
        "id": case.id,
        "type": case.type,
        "status": case.status,
        "impact": case.impact,
        "entity": case.entity,
        "record_id": case.record_id,
        "fields": list(case.fields),
        "technician_id": case.technician_id,
        "opened_at": format_moment(case.opened_at),
        "claimed_by": case.claimed_by,
    }


def _detail(case: Case, record: Record | None, past: list[Past]) -> dict[str, Any]:
    current = dict(case.current)
    if record is not None and case.status != "resolved":
        current = {name: record.data.get(name) for name in case.current}
    names = [name for name in case.fields or case.incoming if name != RECORD]
    fields = ENTITY_TYPES[case.entity].fields
    return {
        **_item(case),
        "base": case.base,
        "current": current,
        "incoming": case.incoming,
        "fields": [
            {
                "name": name,
                "base": case.base.get(name),
                "current": current.get(name),
                "incoming": case.incoming.get(name),
                "policy": fields[name].policy if name in fields else None,
            }
            for name in names
        ],
        "evidence": case.evidence,
        "timeline": sorted(_timeline(case, past), key=lambda event: str(event["at"])),
        "options": options_of(case, current) if case.status != "resolved" else [],
        "version": record.version if record else None,
        "resolution": case.resolution,
    }


def _timeline(case: Case, past: list[Past]) -> Iterator[dict[str, Any]]:
    names = set(case.fields or case.incoming)
    for entry, recorded_at in past:
        changed = sorted(field["name"] for field in entry.fields if field["name"] in names and field["name"] != RECORD)
        if changed:
            what = f"{_listed(changed)} {'was' if len(changed) == 1 else 'were'} written (version {entry.version})"
            yield {"at": format_moment(entry.occurred_at or recorded_at), "by": entry.actor.get("id"), "what": what}
    if "occurred_at" in case.evidence:
        what = "it happened, by the sender's clock"
        yield {"at": case.evidence["occurred_at"], "by": case.evidence.get("sender"), "what": what}
    yield {"at": format_moment(case.opened_at), "by": None, "what": "the case was opened"}
    if case.resolution:
        resolution = case.resolution
        yield {"at": resolution.get("at"), "by": resolution.get("by"), "what": f"decided: {resolution.get('option')}"}


# -- what can be decided ------------------------------------------------------------------------------------------


def options_of(case: Case, current: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The options with labels and effects in a dispatcher's words."""
    what = f"{case.entity.replace('_', ' ')} {case.record_id}"
    who = case.technician_id or "the sender"
    if RECORD in case.incoming and case.incoming[RECORD] == "delete":
        return _of_deletion(case, what, who)
    if not case.fields:
        return _of_whole(case, what, who)
    names = [name for name in case.fields if name != RECORD]
    return [
        _option(
            "current",
            "Keep what stands now",
            [f"{_word(name)} of {what} stays {_shown(current.get(name))}." for name in names]
            + [f"What {who} sent stays in this case and in the history."],
        ),
        _option(
            "incoming",
            f"Take what {who} sent",
            [f"{_word(name)} of {what} becomes {_shown(case.incoming.get(name))}." for name in names] + [_SENT_OUT],
        ),
        _option(
            "values",
            "Write something else",
            [f"{_word(name)} of {what} becomes what you enter." for name in names] + [_SENT_OUT],
        ),
    ]


_SENT_OUT: Final = "Every device that holds the record gets it with its next sync."


def _of_deletion(case: Case, what: str, who: str) -> list[dict[str, Any]]:
    return [
        _option(
            "current", "Keep the record", [f"{what} stays as it is.", f"The deletion by {who} is not carried out."]
        ),
        _option("incoming", "Delete the record", [f"{what} is deleted.", "It disappears from every device."]),
        _option("values", "Keep the record, with changes", [f"{what} gets the values you enter.", _SENT_OUT]),
    ]


def _of_whole(case: Case, what: str, who: str) -> list[dict[str, Any]]:
    writes = [f"{_word(name)} of {what} becomes {_shown(value)}." for name, value in case.incoming.items()]
    return [
        _option(
            "current",
            "Do not apply it",
            [f"{what} is not changed.", f"What {who} sent stays in this case, and with it what waits for it."],
        ),
        _option("incoming", "Apply it as it was sent", [*writes, "What waits for it is applied after it.", _SENT_OUT]),
        _option(
            "values",
            "Apply it with corrections",
            [f"{what} gets what {who} sent, with the values you enter in their place.", _SENT_OUT],
        ),
    ]


def _option(id: str, label: str, effects: list[str]) -> dict[str, Any]:
    return {"id": id, "label": label, "effects": effects}


def _word(name: str) -> str:
    return name.removesuffix("_id").replace("_", " ").capitalize()


def _listed(names: list[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names)


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "empty"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return f"“{text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + '…'}”"
