"""The server over HTTP: a SyncServer made of requests.

Anything that is not an answer of this server (no network, a proxy's page, the login page of a hotel) is Unavailable, so
that nothing but the server's own word is ever believed about a mutation.
"""

from __future__ import annotations

import gzip
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from sync.errors import (
    InvalidGrant,
    Malformed,
    Refused,
    SyncError,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from sync.protocol import Page, PullRequest, Push, PushResult
from sync.wire import page_from_wire, pull_to_query, push_result_from_wire, push_to_wire

TIMEOUT_S = 30.0  # a push of 500 mutations over a weak 3G link takes ten
GZIP_FROM_BYTES = 1_000  # below it, headers weigh more than what compression saves
DEFAULT_RETRY_AFTER_S = 2
MAX_RETRY_AFTER_S = 3_600
_STANDARD = {"type", "title", "status", "detail", "code", "retryable", "correlation_id", "retry_after_s"}


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a device identifies itself with. The refresh token is used once; its answer brings the next."""

    access: str
    refresh: str


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A device that the server knows."""

    device_id: str
    technician_id: str
    scopes: tuple[str, ...]
    tokens: Tokens


class HttpTransport:
    """A SyncServer at `base_url`.

    load, save: where the tokens are kept; `save` must be durable when it returns. http: an httpx transport, for tests.
    """

    def __init__(
        self, base_url: str, load: Callable[[], Tokens | None], save: Callable[[Tokens], None], *,
        app_version: str = "1.0", timeout_s: float = TIMEOUT_S, http: httpx.BaseTransport | None = None,
    ) -> None:  # fmt: skip
        self._load, self._save = load, save
        self._lock = threading.Lock()
        self._timeout_s = timeout_s
        self._http = httpx.Client(
            base_url=base_url, timeout=timeout_s, transport=http, headers={"X-App-Version": app_version}
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # -- SyncServer -----------------------------------------------------------------------------------------------

    def push(self, push: Push) -> PushResult:
        answer = self._call("POST", "/v1/push", document=push_to_wire(push))
        with _answers():
            return push_result_from_wire(answer)

    def pull(self, request: PullRequest) -> Page:
        timeout_s = self._timeout_s + request.wait_s
        answer = self._call("GET", "/v1/changes", query=pull_to_query(request), timeout_s=timeout_s)
        with _answers():
            return page_from_wire(answer)

    # -- who we are -----------------------------------------------------------------------------------------------

    def enrol(self, code: str, name: str, platform: str, app_version: str) -> Enrolment:
        """Make this device known with a code from the office. Raises InvalidGrant if the code is not valid."""
        asked = {"code": code, "name": name, "platform": platform, "app_version": app_version}
        answer = self._send("POST", "/v1/devices", document=asked)
        try:
            return Enrolment(answer["device_id"], answer["technician_id"], tuple(answer["scopes"]), _tokens(answer))
        except (KeyError, TypeError) as error:
            raise Unavailable("The answer to the enrolment is not one of this server.") from error

    def _refresh(self, stale: Tokens) -> Tokens:
        """The next tokens. They are stored before they are used: a lost answer is asked for again with the same
        token."""
        with self._lock:
            held = self._load()
            if held is None:
                raise Unauthorized("This device is not enrolled. Enrol it with a code from the office.")
            if held != stale:
                return held  # another thread was quicker
            asked = {"grant_type": "refresh_token", "refresh_token": held.refresh}
            answer = self._send("POST", "/v1/token", document=asked)
            try:
                tokens = _tokens(answer)
            except (KeyError, TypeError) as error:
                raise Unavailable("The answer to the token request is not one of this server.") from error
            self._save(tokens)
            return tokens

    # -- requests -------------------------------------------------------------------------------------------------

    def _call(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, document: Any = None,
        timeout_s: float | None = None,
    ) -> Any:  # fmt: skip
        """A request as this device; an expired access token is renewed once."""
        tokens = self._load()
        if tokens is None:
            raise Unauthorized("This device is not enrolled. Enrol it with a code from the office.")
        try:
            return self._send(method, path, tokens.access, query, document, timeout_s)
        except Unauthorized as error:
            if error.code != Unauthorized.code:
                raise
        try:
            tokens = self._refresh(tokens)
        except InvalidGrant as error:
            raise Unauthorized("This device has to be enrolled again. Work on it is kept.") from error
        return self._send(method, path, tokens.access, query, document, timeout_s)

    def _send(
        self, method: str, path: str, access: str | None = None, query: Mapping[str, str] | None = None,
        document: Any = None, timeout_s: float | None = None,
    ) -> Any:  # fmt: skip
        headers, content = {"Accept": "application/json"}, None
        if access is not None:
            headers["Authorization"] = f"Bearer {access}"
        if document is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
            if len(content) >= GZIP_FROM_BYTES:
                headers["Content-Encoding"] = "gzip"
                content = gzip.compress(content, compresslevel=6, mtime=0)
        try:
            answer = self._http.request(
                method, path, params=query, headers=headers, content=content, timeout=timeout_s or self._timeout_s
            )
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise Unavailable(f"The server cannot be reached ({type(error).__name__}).") from error
        if answer.is_success:
            return _document(answer)
        raise error_of(answer)


@contextmanager
def _answers() -> Iterator[None]:
    """What cannot be read here is no answer; it must never look as if the server had refused a mutation."""
    try:
        yield
    except Malformed as error:
        raise Unavailable(error.detail) from error


def error_of(answer: httpx.Response) -> SyncError:
    """The error that an answer tells of."""
    retry_after_s = _retry_after(answer)
    problem = _problem(answer)
    if problem is None:
        if answer.status_code == TooLarge.status:  # proxies say so on their own
            return TooLarge()
        return Unavailable(f"HTTP {answer.status_code}, but not from this server.", retry_after_s=retry_after_s)
    detail = problem.get("detail")
    extras = {name: value for name, value in problem.items() if name not in _STANDARD}
    detail = detail if isinstance(detail, str) else None
    kind = _BY_CODE.get(str(problem.get("code")))
    if kind is None:
        kind = Unavailable if answer.status_code >= 500 else Refused
    if issubclass(kind, Unavailable | TooManyRequests):
        return kind(detail, retry_after_s=retry_after_s, **extras)
    return kind(detail, **extras)


def _problem(answer: httpx.Response) -> Mapping[str, Any] | None:
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        return None
    try:
        problem = _document(answer)
    except Unavailable:
        return None
    return problem if isinstance(problem, dict) else None


def _document(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except (ValueError, RecursionError) as error:
        raise Unavailable("The answer is not JSON, so it is not this server's.") from error


def _tokens(answer: Any) -> Tokens:
    """Raises KeyError or TypeError if they are not there."""
    access, refresh = answer["access_token"], answer["refresh_token"]
    if not isinstance(access, str) or not isinstance(refresh, str):
        raise TypeError("a token is a text")
    return Tokens(access, refresh)


def _retry_after(answer: httpx.Response) -> int:
    """Seconds. The header holds a number of them or, from some proxies, a date (RFC 9110 §10.2.3)."""
    text = answer.headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return min(int(text[:9]), MAX_RETRY_AFTER_S)
    try:
        left_s = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return DEFAULT_RETRY_AFTER_S
    return max(0, min(math.ceil(left_s), MAX_RETRY_AFTER_S))


def _kinds(kind: type[SyncError]) -> Iterator[type[SyncError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == SyncError.__module__:
            yield from _kinds(below)


_BY_CODE: dict[str, type[SyncError]] = {kind.code: kind for kind in _kinds(SyncError)}
