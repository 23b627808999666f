"""Enrolment codes, devices and tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import marshmallow as ma
from flask import Response, request

from server.api.context import actor, parts
from server.api.documents import AFTER, LIMIT, errors, query, sort
from server.api.schemas import MOMENT, Declared, page_of
from server.services import devices
from server.services.sightings import Sighting
from server.store.enrolment import FILTERABLE, SORTABLE, device_scopes, find_device, list_devices
from server.store.keyset import Window
from server.web.auth import DISPATCHER, OFFICE_ROLES, allow, current_caller, open_to_all
from server.web.body import Blueprint, Envelope, answer
from server.web.correlation import correlation_id
from server.web.paging import next_after, read_list_query
from sync.errors import InvalidGrant, NotFound, Unprocessable
from sync.moments import format_moment

blueprint = Blueprint("devices", __name__, url_prefix="/v1", description="Enrolment, devices and tokens")

_ID: Final = ma.validate.Regexp(r"\A[A-Za-z0-9_.:-]{1,64}\Z", error="1 to 64 of A-Z a-z 0-9 _ . : -")
_MAX_KEY_CHARS: Final = 2_000


def _text(most: int, **options: Any) -> ma.fields.String:
    return ma.fields.String(validate=ma.validate.Length(min=1, max=most), **options)


class CodeRequest(Envelope):
    """For whom a code is made."""

    technician_id = ma.fields.String(required=True, validate=_ID)
    note = _text(500, load_default=None, allow_none=True)


class CodeAnswer(ma.Schema):
    """A code, shown once."""

    code = ma.fields.String(required=True)
    expires_at = Declared(MOMENT, required=True)


class Enrolment(Envelope):
    """A device that joins with a code."""

    code = _text(64, required=True)
    name = _text(200, required=True)
    platform = _text(64, required=True)
    app_version = _text(64, required=True)
    public_key = ma.fields.Raw(
        load_default=None,
        allow_none=True,
        metadata={"type": ["string", "object"], "description": "the device's own key: PEM, or a JWK"},
    )


class TokenAnswer(ma.Schema):
    """What a device or integration signs in with from now on."""

    access_token = ma.fields.String(required=True)
    expires_in = ma.fields.Integer(required=True, metadata={"description": "seconds"})
    refresh_token = ma.fields.String(metadata={"description": "for devices only"})
    token_type = ma.fields.String(required=True, metadata={"enum": ["Bearer"]})


class EnrolmentAnswer(TokenAnswer):
    """The new device."""

    device_id = ma.fields.String(required=True)
    technician_id = ma.fields.String(required=True)
    scopes = ma.fields.List(ma.fields.String(), required=True)
    feed_epoch = ma.fields.Integer(required=True)


class TokenRequest(Envelope):
    """A refresh token, or the id and secret of an integration."""

    grant_type = ma.fields.String(required=True, validate=ma.validate.OneOf(["refresh_token", "client_credentials"]))
    refresh_token = ma.fields.String(validate=ma.validate.Length(max=4096))
    client_id = ma.fields.String(validate=ma.validate.Length(max=64))
    client_secret = ma.fields.String(validate=ma.validate.Length(max=256))


class Revocation(Envelope):
    """Why a device is shut out."""

    reason = ma.fields.String(required=True, validate=ma.validate.OneOf(["retired", "lost"]))


class DeviceAnswer(ma.Schema):
    """A device and how it is doing."""

    id = ma.fields.String(required=True)
    name = ma.fields.String(required=True)
    technician_id = ma.fields.String(required=True)
    platform = ma.fields.String(required=True)
    app_version = ma.fields.String(required=True)
    scopes = ma.fields.List(ma.fields.String(), required=True)
    enrolled_at = Declared(MOMENT, required=True)
    last_seen = Declared(MOMENT, nullable=True, required=True)
    last_pull = Declared(MOMENT, nullable=True, required=True)
    last_push = Declared(MOMENT, nullable=True, required=True)
    cursor_lag = ma.fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "feed positions between what it read and the last change in its scopes"},
    )
    pending_age_s = ma.fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "seconds that the oldest of its work has waited for a person; null if none waits"},
    )
    parked_count = ma.fields.Integer(required=True, metadata={"description": "open review cases that it brought up"})
    clock_skew_ms = ma.fields.Integer(
        required=True, allow_none=True, metadata={"description": "how far its clock ran ahead at the last push"}
    )
    revoked = ma.fields.String(required=True, allow_none=True, metadata={"enum": ["retired", "lost", None]})
    revoked_at = Declared(MOMENT, nullable=True, required=True)


# -- enrolling ----------------------------------------------------------------------------------------------------


@blueprint.route("/enrolment-codes", methods=["POST"])
@allow(DISPATCHER)
@blueprint.doc(summary="Make a code for one device of a technician")
@blueprint.json_body(CodeRequest)
@blueprint.response(201, CodeAnswer)
@errors(blueprint, 400, 401, 403, 413, 415, 422)
def create_code(wanted: Mapping[str, Any]) -> Response:
    """The code is shown this once, works once, and for 15 minutes."""
    code, expires_at = devices.create_code(
        parts().desk, actor(), wanted["technician_id"], wanted["note"], correlation_id()
    )
    return answer({"code": code, "expires_at": format_moment(expires_at)}, 201)


@blueprint.route("/devices", methods=["POST"])
@open_to_all
@blueprint.doc(summary="Enrol a device with a code", security=[])
@blueprint.json_body(Enrolment)
@blueprint.response(201, EnrolmentAnswer)
@errors(blueprint, 400, 413, 415, 422, 429)
def enrol(wanted: Mapping[str, Any]) -> Response:
    """A device of the technician that the code was made for, with its tokens."""
    here, address = parts(), request.remote_addr or ""
    here.enrolment_failures.check(address, here.clock())
    try:
        made = devices.enrol(
            here.desk,
            wanted["code"],
            name=wanted["name"],
            platform=wanted["platform"],
            app_version=wanted["app_version"],
            public_key=_public_key(wanted["public_key"]),
            correlation_id=correlation_id(),
        )
    except InvalidGrant:
        here.enrolment_failures.failed(address, here.clock())
        raise
    document = {
        "device_id": made.device_id,
        "technician_id": made.technician_id,
        "scopes": made.scopes,
        **_token_document(made.tokens),
        "feed_epoch": made.feed_epoch,
    }
    return answer(document, 201)


def _public_key(given: Any) -> Any:
    if given is None or (isinstance(given, str | dict) and len(str(given)) <= _MAX_KEY_CHARS):
        return given
    raise Unprocessable(
        errors=[{"path": "public_key", "detail": f"a PEM text or a JWK of {_MAX_KEY_CHARS} characters"}]
    )


@blueprint.route("/token", methods=["POST"])
@open_to_all
@blueprint.doc(summary="Get the next tokens", security=[])
@blueprint.json_body(TokenRequest)
@blueprint.response(200, TokenAnswer)
@errors(blueprint, 400, 401, 413, 415, 422, 429)
def token(wanted: Mapping[str, Any]) -> Response:
    """For a refresh token its successor; the same one again as long as that was not used. For a client a token."""
    if wanted["grant_type"] == "refresh_token":
        return _refresh(_given(wanted, "refresh_token"))
    return _client_token(_given(wanted, "client_id"), _given(wanted, "client_secret"))


def _given(wanted: Mapping[str, Any], name: str) -> str:
    if name not in wanted:
        raise Unprocessable(errors=[{"path": name, "detail": f"needed for grant_type {wanted['grant_type']}"}])
    value: str = wanted[name]
    return value


def _refresh(refresh_token: str) -> Response:
    said = request.headers.get("X-App-Version", "")[:64]
    return answer(_token_document(devices.refresh(parts().desk, refresh_token, said, correlation_id())))


def _client_token(client_id: str, secret: str) -> Response:
    here = parts()
    here.client_failures.check(client_id, here.clock())
    try:
        access_token, expires_in = devices.client_token(here.desk, client_id, secret, correlation_id())
    except InvalidGrant:
        here.client_failures.failed(client_id, here.clock())
        raise
    return answer({"access_token": access_token, "expires_in": expires_in, "token_type": "Bearer"})


def _token_document(tokens: devices.Tokens) -> dict[str, Any]:
    return {
        "access_token": tokens.access_token,
        "expires_in": tokens.expires_in,
        "refresh_token": tokens.refresh_token,
        "token_type": "Bearer",
    }


# -- looking after them -------------------------------------------------------------------------------------------


@blueprint.route("/devices")
@allow(*OFFICE_ROLES)
@blueprint.doc(
    summary="Devices",
    parameters=[
        *(query(name, f"only those with this {name}") for name in FILTERABLE),
        sort(list(SORTABLE)),
        LIMIT,
        AFTER,
    ],
)
@blueprint.response(200, page_of(DeviceAnswer, "DevicePage"))
@errors(blueprint, 400, 401, 403, 422)
def index() -> Response:
    """Devices of the technicians in reach, with how they are doing."""
    here = parts()
    asked = read_list_query(
        request.args, secret=here.keys.cursor_secret, sortable=list(SORTABLE), filterable=list(FILTERABLE)
    )
    here.sightings.flush()
    window = Window(asked.limit, asked.sort, asked.descending, asked.after)
    rows = list_devices(here.engine, current_caller().scopes, asked.filters, window)
    shown, more = rows[: asked.limit], len(rows) > asked.limit
    last = shown[-1] if more else None
    after = next_after(asked, last[asked.sort], last["id"], secret=here.keys.cursor_secret) if last else None
    return answer({"items": [_device_document(row, here.clock()) for row in shown], "next": after})


@blueprint.route("/devices/<string:device_id>")
@allow(*OFFICE_ROLES)
@blueprint.doc(summary="One device")
@blueprint.response(200, DeviceAnswer)
@errors(blueprint, 401, 403, 404)
def show(device_id: str) -> Response:
    """A device and how it is doing."""
    here = parts()
    here.sightings.flush()
    row = find_device(here.engine, current_caller().scopes, device_id)
    if row is None:
        raise NotFound
    return answer(_device_document(row, here.clock()))


@blueprint.route("/devices/<string:device_id>/revoke", methods=["POST"])
@allow(DISPATCHER)
@blueprint.doc(summary="Shut a device out")
@blueprint.json_body(Revocation)
@blueprint.response(200, DeviceAnswer)
@errors(blueprint, 400, 401, 403, 404, 413, 415, 422)
def revoke(wanted: Mapping[str, Any], device_id: str) -> Response:
    """It is refused from its next request on. After `lost` it deletes all it holds; what it still sends is parked."""
    devices.revoke(parts().desk, actor(), device_id, wanted["reason"], correlation_id())
    return show(device_id)


def _device_document(row: Mapping[str, Any], now: int) -> dict[str, Any]:
    scopes = device_scopes(row["technician_id"], row["depot_id"])
    lag = None if row["cursor_seq"] is None else max(0, (row["head"] or 0) - row["cursor_seq"])
    waits_since = row["oldest_parked_at"]
    return {
        "id": row["id"],
        "name": row["name"],
        "technician_id": row["technician_id"],
        "platform": row["platform"],
        "app_version": row["app_version"],
        "scopes": scopes,
        "enrolled_at": _moment(row["enrolled_at"]),
        "last_seen": _moment(row["last_seen"]),
        "last_pull": _moment(row["last_pull_at"]),
        "last_push": _moment(row["last_push_at"]),
        "cursor_lag": lag,
        "pending_age_s": None if waits_since is None else max(0, now - waits_since) // 1000,
        "parked_count": row["parked_count"],
        "clock_skew_ms": row["clock_skew_ms"],
        "revoked": row["revoked"],
        "revoked_at": _moment(row["revoked_at"]),
    }


def _moment(at: int | None) -> str | None:
    return None if at is None else format_moment(at)


def note_device() -> None:
    """Keeps in mind that the device that sends this request was seen."""
    caller = current_caller()
    if caller.device_id is not None:
        said = request.headers.get("X-App-Version", "")
        version = said if 0 < len(said) <= 64 and said.isascii() and said.isprintable() else None
        parts().sightings.note(Sighting(caller.device_id, parts().clock(), app_version=version))
