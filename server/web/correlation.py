"""One id a request, on its answer, in its log lines and in whatever goes wrong; and the headers of every answer."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Final

from flask import Flask, Response, current_app, g, request

HEADER: Final = "X-Correlation-Id"
_ACCEPTABLE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")  # an id of the client goes into logs: nothing else may

# Defaults: an answer that sets one itself (the console its policy, a static file its caching) keeps its own.
SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
_ONE_YEAR: Final = "max-age=31536000"


def install_correlation(app: Flask, new_id: Callable[[], str] = lambda: uuid.uuid4().hex) -> None:
    """Puts the correlation id and the security headers on every answer of `app`, errors included."""
    app.extensions["new_correlation_id"] = new_id
    app.after_request(_complete)


def correlation_id() -> str:
    """The id of the request being answered: the client's own if it is acceptable, else a new one."""
    if "correlation_id" not in g:
        g.correlation_id = _offered() or _new_id()
    known: str = g.correlation_id
    return known


def _offered() -> str | None:
    offered = request.headers.get(HEADER, "")
    return offered if _ACCEPTABLE.fullmatch(offered) else None


def _new_id() -> str:
    new_id: Callable[[], str] = current_app.extensions["new_correlation_id"]
    return new_id()


def _complete(response: Response) -> Response:
    response.headers[HEADER] = correlation_id()
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    if request.is_secure:  # over plain HTTP browsers ignore it, and a developer's localhost must not be locked in
        response.headers.setdefault("Strict-Transport-Security", _ONE_YEAR)
    return response
