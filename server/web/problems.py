"""Errors as answers: RFC 9457 problem documents, for whatever goes wrong and whoever raised it.

`{type, title, status, detail, code, retryable, correlation_id, errors?}` and what the error adds. `code` is the word
that clients branch on. Foreign errors (werkzeug, webargs, marshmallow, the database driver) are told in the same words
as our own, and a mistake of ours says nothing but that it happened: the rest is in the log, under the correlation id.
"""

from __future__ import annotations

import copy
import http
import logging
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

import flask_smorest  # type: ignore[import-untyped]  # ships no types
import marshmallow as ma
from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from server.web.auth import open_to_all
from server.web.body import answer, to_json
from server.web.correlation import correlation_id
from sync.errors import (
    Forbidden,
    NotFound,
    SyncError,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unprocessable,
)

MEDIA_TYPE: Final = "application/problem+json"
MAX_ERRORS: Final = 100  # places named in one answer; a hostile body can be wrong in half a million
_log = logging.getLogger(__name__)


class PlaceSchema(ma.Schema):
    """One place where a request is wrong."""

    path = ma.fields.String(required=True, metadata={"description": "Such as mutations.0.n; empty for the whole"})
    code = ma.fields.String(metadata={"description": "Stable, where the place has a problem of its own"})
    detail = ma.fields.String(required=True)


class ProblemSchema(ma.Schema):
    """What every error answers. Some codes bring more members, such as `current` or `expected`."""

    class Meta:
        unknown = ma.INCLUDE

    type = ma.fields.String(required=True, metadata={"description": "A name for the kind of problem, not a link"})
    title = ma.fields.String(required=True)
    status = ma.fields.Integer(required=True)
    detail = ma.fields.String(required=True, metadata={"description": "For a person: what happened and what to do"})
    code = ma.fields.String(required=True, metadata={"description": "Stable; branch on this"})
    retryable = ma.fields.Boolean(required=True, metadata={"description": "Whether the same call may succeed later"})
    correlation_id = ma.fields.String(required=True)
    errors = ma.fields.List(ma.fields.Nested(PlaceSchema), metadata={"description": "Where the request is wrong"})


class ProblemApi(flask_smorest.Api):  # type: ignore[misc]  # of no known type, see above
    """flask-smorest's Api, whose errors are problems, in what it answers and in what its OpenAPI document says."""

    ERROR_SCHEMA = ProblemSchema

    def handle_http_exception(self, error: HTTPException) -> Any:
        return _answer_http(error)

    @open_to_all
    def _openapi_json(self) -> Response:
        return answer(with_problem_media_types(self.spec.to_dict()))


def install_problems(app: Flask, api: ProblemApi, unavailable: tuple[type[Exception], ...] = ()) -> None:
    """Makes every error of `app` a problem.

    api: the Api of the app; a plain flask-smorest one would document other errors than it answers.
    unavailable: foreign exceptions that mean that something is down, such as the database driver's; answered as 503.
    """
    app.register_error_handler(HTTPException, api.handle_http_exception)
    app.register_error_handler(SyncError, _answer_sync_error)
    app.register_error_handler(ma.ValidationError, lambda error: _answer_invalid(error.messages))
    for foreign in unavailable:
        app.register_error_handler(foreign, _answer_unavailable)
    app.register_error_handler(Exception, _answer_unforeseen)


def problem(error: SyncError, correlation_id: str) -> Response:
    """The answer that tells `error`. A mistake of ours (status 500) shows only its kind, never its detail."""
    ours = error.status == 500
    response = _document(
        error.status,
        error.code,
        detail=" ".join((type(error).__doc__ or "").split()) if ours else error.detail,
        retryable=error.retryable,
        correlation=correlation_id,
        extras={} if ours else error.extras,
    )
    if isinstance(error, Unavailable | TooManyRequests):
        response.headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"  # RFC 9110 §11.6.1 wants one on every 401
    return response


def with_problem_media_types(document: dict[str, Any]) -> dict[str, Any]:
    """A copy of an OpenAPI document in which every error response has the media type of problems.

    flask-smorest has one media type for all responses, so its errors come out as application/json.
    """
    document = copy.deepcopy(document)
    for response in _error_responses(document):
        content = response.get("content", {})
        if "application/json" in content:
            content[MEDIA_TYPE] = content.pop("application/json")
    return document


def _error_responses(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, response in document.get("components", {}).get("responses", {}).items():
        if name == "DEFAULT_ERROR" or (name in http.HTTPStatus.__members__ and http.HTTPStatus[name] >= 400):
            yield response
    for path in document.get("paths", {}).values():
        for operation in path.values():
            if isinstance(operation, dict):  # beside operations stands a list of shared parameters
                for status, response in operation.get("responses", {}).items():
                    if str(status)[0] in "45d":  # 404, 4XX, default
                        yield response


# -- each kind of error to its answer -----------------------------------------------------------------------------


def _answer_sync_error(error: SyncError) -> Response:
    if error.status == 500:
        _log.error("request failed, correlation_id=%s", correlation_id(), exc_info=error)
    return problem(error, correlation_id())


def _answer_unavailable(error: Exception) -> Response:
    _log.warning("dependency did not answer, correlation_id=%s", correlation_id(), exc_info=error)
    return problem(Unavailable(), correlation_id())


def _answer_unforeseen(error: Exception) -> Response:
    _log.error("request failed unforeseen, correlation_id=%s", correlation_id(), exc_info=error)
    detail = "The server made a mistake. Report it with the correlation id."
    return _document(500, "internal", detail, correlation=correlation_id())


def _answer_invalid(messages: Any) -> Response:
    return problem(Unprocessable(errors=places(messages)), correlation_id())


# Those that our own tree has a word for; so a route and a record that do not exist look the same.
_OUR_WORD: Final[dict[int, type[SyncError]]] = {401: Unauthorized, 403: Forbidden, 404: NotFound, 413: TooLarge}
_CODES: Final[dict[int, str]] = {
    400: "malformed",
    422: "invalid",
    429: "too_many_requests",
    500: "internal",
    503: "unavailable",
}


def _answer_http(error: HTTPException) -> Any:
    """werkzeug's and webargs' exceptions. One that is no error (a redirect, 304) stays what it is."""
    status = error.code or 500
    if status < 400:
        return error.get_response()
    if status == 422:
        return _answer_invalid(getattr(error, "data", {}).get("messages", {}))
    if status in _OUR_WORD:
        return problem(_OUR_WORD[status](), correlation_id())
    if status >= 500:
        _log.error("request failed, correlation_id=%s", correlation_id(), exc_info=error)
    code = _CODES.get(status, _words(error.name))
    detail = error.description or error.name
    response = _document(status, code, detail, correlation=correlation_id(), retryable=status in (429, 503))
    if "Allow" in (headers := dict(error.get_headers())):  # RFC 9110 §15.5.6: a 405 names what is allowed
        response.headers["Allow"] = headers["Allow"]
    return response


def _words(name: str) -> str:
    """werkzeug's name for a status as a code: `Method Not Allowed`, `method_not_allowed`."""
    return re.sub("[^a-z]+", "_", name.lower().replace("'", ""))


def _document(
    status: int,
    code: str,
    detail: str,
    *,
    correlation: str,
    retryable: bool = False,
    extras: Mapping[str, Any] | None = None,
) -> Response:
    members = {
        "type": f"urn:backhaul:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        "retryable": retryable,
        "correlation_id": correlation,
    }
    return Response(
        to_json(members | {n: v for n, v in (extras or {}).items() if n not in members}), status, mimetype=MEDIA_TYPE
    )


def places(messages: Any) -> list[dict[str, str]]:
    """marshmallow's nested messages as a flat list: `{"path": "mutations.0.n", "detail": "…"}`, at most MAX_ERRORS.

    webargs' outermost level, the location, is left out; what concerns the whole value has the path of that value.
    """
    if isinstance(messages, dict) and len(messages) == 1 and next(iter(messages)) in _LOCATIONS:
        messages = next(iter(messages.values()))
    return [{"path": path, "detail": detail} for path, detail in islice(_flat(messages, ()), MAX_ERRORS)]


_LOCATIONS: Final = frozenset({"json", "query", "headers", "path"})


def _flat(messages: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    match messages:
        case dict():
            for name, inner in messages.items():
                yield from _flat(inner, path if name == "_schema" else (*path, str(name)))
        case list():
            for inner in messages:
                yield from _flat(inner, path)
        case _:
            yield ".".join(path), str(messages)
