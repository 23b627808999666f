"""Push, pull, both at once, and the poke that says when a pull is worth while. Devices only."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
from flask import Response, request

from server.api.context import Parts, actor, parts
from server.api.documents import body, errors, header, query
from server.api.schemas import ExchangeResultSchema, ExchangeSchema, PageSchema, PushResultSchema, PushSchema
from server.services.changes import Reader, pull_changes, push_changes
from server.services.sightings import Sighting
from server.store.engine import retrying
from server.store.enrolment import device_access, replica_owner
from server.store.hub import PostgresHub
from server.web.auth import ROLES, TECHNICIAN, allow, current_caller
from server.web.body import Blueprint, answer, read_json, to_json
from server.web.correlation import correlation_id
from server.web.log import note
from server.web.problems import problem
from sync.errors import (
    DeviceRevoked,
    Forbidden,
    NotFound,
    ReplicaForked,
    SyncError,
    Unauthorized,
    Unavailable,
    UpgradeRequired,
)
from sync.protocol import MAX_WAIT_S, Change, Page, PullRequest, Push, PushResult
from sync.schema import schema_document
from sync.store import Actor, FeedPosition, FeedSlice, Opening
from sync.wire import (
    exchange_from_wire,
    page_to_wire,
    pull_from_query,
    push_from_wire,
    push_result_to_wire,
    result_to_wire,
)

PUSH_QUEUE_S: Final = 10  # half of what a client on a weak link waits for an answer; then it is told to come again
STREAM_S: Final = 25  # below the 30 s at which common proxies give up
_MAX_OWNERS: Final = 50_000  # replicas whose owner is remembered, about 5 MB

blueprint = Blueprint("changes", __name__, url_prefix="/v1", description="Push, pull and the live poke")

_CURSOR = query("cursor", "of the page before; none to start afresh")
_LIMIT = query("limit", "changes in a page", {"type": "integer", "minimum": 1, "maximum": 5000, "default": 1000})
_WAIT = query("wait", "seconds to wait for news", {"type": "number", "minimum": 0, "maximum": MAX_WAIT_S, "default": 0})
_REPLICA = query("replica", "whose `last_n` and `durable_n` are asked for")
_SCOPE = query("scope", "only this scope, with a cursor of its own")
_APP_VERSION = header("X-App-Version", "the version of the app; one that is too old is answered 426")


@blueprint.route("/push", methods=["POST"])
@allow(TECHNICIAN)
@blueprint.doc(summary="Send mutations", requestBody=body(PushSchema))
@blueprint.response(200, PushResultSchema)
@errors(blueprint, 400, 401, 403, 404, 409, 413, 415, 422, 503)
def push() -> Response:
    """One result per mutation, in order. Sending the same push again is always safe and gives the same answer."""
    _only_devices()
    return answer(push_result_to_wire(_push(push_from_wire(read_json(request)))))


@blueprint.route("/changes")
@allow(TECHNICIAN)
@blueprint.doc(summary="Read on in the feed", parameters=[_CURSOR, _LIMIT, _WAIT, _REPLICA, _SCOPE, _APP_VERSION])
@blueprint.response(200, PageSchema)
@errors(blueprint, 400, 401, 403, 404, 410, 422, 426, 503)
def changes() -> Response:
    """The next page of what lies in the device's scopes."""
    _only_devices()
    wanted = pull_from_query(request.args)
    page = _pull(wanted)
    if wanted.wait_s and not page.rows and not page.page.more:
        page = _pull_later(wanted, page)
    return answer(page.document())


@blueprint.route("/sync", methods=["POST"])
@allow(TECHNICIAN)
@blueprint.doc(summary="Push and pull in one round trip", requestBody=body(ExchangeSchema), parameters=[_APP_VERSION])
@blueprint.response(200, ExchangeResultSchema)
@errors(blueprint, 400, 401, 403, 404, 409, 410, 413, 415, 422, 426, 503)
def sync() -> Response:
    """Both answers. If the push was committed and the pull fails, `pull` is `{"problem": …}`."""
    _only_devices()
    push, wanted = exchange_from_wire(read_json(request))
    pushed = push_result_to_wire(_push(push)) if push else None
    try:
        pulled = _pull(wanted).document()
    except SyncError as error:
        if pushed is None:
            raise
        pulled = {"problem": problem(error, correlation_id()).get_json()}
    return answer({"push": pushed, "pull": pulled})


@blueprint.route("/changes/stream")
@allow(TECHNICIAN)
@blueprint.doc(
    summary="Be told when something changes",
    parameters=[header("Last-Event-ID", "the last poke that came; one is sent at once if something came after it")],
)
@blueprint.response(200, {"type": "string"}, content_type="text/event-stream", description="event: poke")
@errors(blueprint, 401, 403, 503)
def stream() -> Response:
    """Server-sent events `poke` with `{"seq": …}`, and no content. Ends after 25 s: open it again."""
    _only_devices()
    here, scopes = parts(), current_caller().scopes
    if not here.pokes.enter():
        raise Unavailable("Too many are listening already. Ask with GET /v1/changes instead.", retry_after_s=STREAM_S)
    last = request.headers.get("Last-Event-ID", "")
    try:
        after = int(last) if last.isascii() and last.isdecimal() and len(last) < 19 else here.pokes.head(scopes)
    except BaseException:
        here.pokes.leave()
        raise
    response = Response(_pokes(here, scopes, after), mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would collect the pokes
    response.call_on_close(here.pokes.leave)
    return response


def _pokes(here: Parts, scopes: Sequence[str], after: int) -> Iterator[str]:
    yield ": listening\n\n"  # so that the client knows that it is connected
    ends = time.monotonic() + STREAM_S
    while (left := ends - time.monotonic()) > 0:
        head = here.pokes.wait(scopes, after, left)
        if head is None:
            return
        after = head
        yield f'id: {head}\nevent: poke\ndata: {{"seq":{head}}}\n\n'


def _only_devices() -> None:
    """An administrator may call everything, but has no replica and holds no scope that a feed could be read by."""
    if current_caller().device_id is None:
        raise Forbidden("Only devices push and pull.")


# -- push ---------------------------------------------------------------------------------------------------------


def _push(push: Push) -> PushResult:
    here, who = parts(), actor()
    started, now = time.perf_counter(), here.clock()
    if not here.push_slots.acquire(timeout=PUSH_QUEUE_S):
        raise Unavailable("Too many pushes at once. Send it again.", retry_after_s=5)
    try:
        result = retrying(lambda: push_changes(here.store, who, push, here.clock(), correlation_id()))
    except ReplicaForked as error:
        raise _told(error) from error
    finally:
        here.push_slots.release()
    here.metrics.count_push(result, time.perf_counter() - started)
    device = current_caller().device_id or ""
    skew = push.sent_at - now if push.sent_at is not None else None
    here.sightings.note(Sighting(device, now, pushed_at=now, clock_skew_ms=skew))
    note(replica=push.replica, last_n=result.last_n, **outcomes(result))
    if any(not one.duplicate for one in result.results):
        here.wake()
    return result


def outcomes(result: PushResult) -> dict[str, int]:
    """How many mutations became what."""
    return dict(Counter[str](one.status for one in result.results))


def _told(error: ReplicaForked) -> ReplicaForked:
    """The same as it goes over the wire."""
    results = [result_to_wire(one) for one in error.extras.get("results", ())]
    return ReplicaForked(error.detail, **{**error.extras, "results": results})


# -- pull ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextPage:
    """A page whose changes are JSON text as the store keeps it."""

    page: Page
    rows: Sequence[str]

    def document(self) -> dict[str, Any]:
        """What goes over the wire."""
        changes = orjson.Fragment(f"[{','.join(self.rows)}]")
        return {**page_to_wire(replace(self.page, changes=())), "changes": changes}


class _TextFeed:
    """The feed for one pull: it keeps the rows' texts and shows only their number and where they end."""

    def __init__(self, store: PostgresHub) -> None:
        self._store = store
        self.rows: Sequence[str] = ()

    def begin(self) -> Opening:
        """A unit of work."""
        return self._store.begin()

    def read_feed(self, positions: Sequence[FeedPosition], limit: int, replica: str | None) -> FeedSlice:
        """At most `limit` rows."""
        text = self._store.read_feed_text(positions, limit, replica)
        self.rows = text.rows
        shown = [Change(text.last_seq, "put", "", "", "")] * len(text.rows)
        return FeedSlice(
            shown, text.head, text.epoch, text.tallies, text.last_n, text.durable_n, purged_seq=text.purged_seq
        )


def _pull(wanted: PullRequest, who: Actor | None = None) -> TextPage:
    here, who = parts(), who or actor()
    _check_app_version(here)
    if wanted.replica and _owner(here, wanted.replica) not in (None, who.technician_id):
        raise NotFound
    feed, now = _TextFeed(here.store), here.clock()
    page = pull_changes(feed, Reader(who.name, who.scopes), wanted, here.keys.cursor_secret, now)
    if wanted.scope is None:
        reached = page.as_of if not page.more else None
        device = current_caller().device_id or ""
        here.sightings.note(Sighting(device, now, pulled_at=now, cursor_seq=reached))
    note(changes=len(feed.rows), as_of=page.as_of)
    return TextPage(page, feed.rows)


def _pull_later(wanted: PullRequest, page: TextPage) -> TextPage:
    """The page after something changed; the same if nothing did in time, or if too many wait already."""
    here, caller = parts(), current_caller()
    if not here.pokes.enter():
        return page
    try:
        head = here.pokes.wait(caller.scopes, page.page.as_of, wanted.wait_s)
    finally:
        here.pokes.leave()
    if head is None:
        return page
    # Seconds have passed: the device may have been revoked, or its technician moved to another depot.
    access = device_access(here.engine, caller.device_id or "")
    if access is None:
        raise Unauthorized
    if access.revoked:
        raise DeviceRevoked(reason=access.revoked)
    return _pull(wanted, replace(actor(), scopes=access.scopes))


def _owner(here: Parts, replica: str) -> str | None:
    """Whose replica it is; it never changes hands, so it is asked once."""
    known = here.owners.get(replica)
    if known is None and (known := replica_owner(here.engine, replica)) is not None:
        if len(here.owners) >= _MAX_OWNERS:
            here.owners.clear()
        here.owners[replica] = known
    return known


def _check_app_version(here: Parts) -> None:
    least = _numbers(here.settings.min_app_version)
    said = _numbers(request.headers.get("X-App-Version", ""))
    if least and said and said < least:
        raise UpgradeRequired(min_app_version=here.settings.min_app_version)


def _numbers(version: str) -> tuple[int, ...]:
    """`1.10.2` as numbers, without what follows them; empty if it does not begin with one."""
    numbers = []
    for part in version.split(".")[:8]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits or len(digits) > 9:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)


# -- the schema ---------------------------------------------------------------------------------------------------

_SCHEMA: Final = to_json(schema_document())
_SCHEMA_ETAG: Final = hashlib.sha256(_SCHEMA).hexdigest()[:32]


@blueprint.route("/schema")
@allow(*ROLES)
@blueprint.doc(
    summary="The entity declarations as data", parameters=[header("If-None-Match", "the ETag of what you hold")]
)
@blueprint.response(200, {"type": "object"}, description="Entities with their fields, policies, scopes and states")
@blueprint.alt_response(304, description="What you hold is current", success=True)
@errors(blueprint, 401)
def schema() -> Response:
    """Everything a client needs to know of the entities; it changes only when the server does."""
    headers = {"ETag": f'"{_SCHEMA_ETAG}"', "Cache-Control": "private, no-cache"}
    if request.if_none_match.contains_weak(_SCHEMA_ETAG):
        return Response(status=304, headers=headers)
    return answer(orjson.Fragment(_SCHEMA), headers=headers)
