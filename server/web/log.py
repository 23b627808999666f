"""One line of JSON for every request: what was called, by whom, how it ended and how long it took. Ids, never content.

The path that was called is not logged but the route that it matched, with the ids in it beside: a path can hold
anything, and the query string holds filters, which are field content.
"""

from __future__ import annotations

import json
import logging
import re
import time
from typing import Any, Final

from flask import Flask, Response, g, request

from server.web.correlation import correlation_id

_log: Final = logging.getLogger("backhaul.request")
_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def install_request_log(app: Flask) -> None:
    """Writes a line per request of `app` to the logger `backhaul.request`."""
    app.before_request(_start)
    app.after_request(_write)


def note(**ids: str | int | None) -> None:
    """Adds ids or counts to the line of the request being answered, such as replica=…, applied=3."""
    g.setdefault("log_notes", {}).update(ids)


def _start() -> None:
    g.started = time.perf_counter()


def _write(response: Response) -> Response:
    if _log.isEnabledFor(logging.INFO):
        _log.info(json.dumps(_line(response), separators=(",", ":")))
    return response


def _line(response: Response) -> dict[str, Any]:
    caller = g.get("caller")
    line: dict[str, Any] = {
        "event": "request_answered",
        "correlation_id": correlation_id(),
        "method": request.method if request.method in _METHODS else "other",
        "route": request.url_rule.rule if request.url_rule else None,
        "status": response.status_code,
        "ms": round(1000 * (time.perf_counter() - g.get("started", time.perf_counter())), 1),
        "caller": caller.subject if caller else None,
        "role": caller.role if caller else None,
    }
    line |= {name: value for name, value in (request.view_args or {}).items() if _ID.fullmatch(str(value))}
    line |= g.get("log_notes", {})
    return line


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
