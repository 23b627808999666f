"""gunicorn's thread worker, which answers as problems what it finds wrong before routing, and stops when told to."""

from __future__ import annotations

import uuid
from typing import Any

from gunicorn.http.errors import (  # type: ignore[import-untyped]  # ships no types
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
)
from gunicorn.util import write_nonblock  # type: ignore[import-untyped]
from gunicorn.workers.base import Worker as Base  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from server.web.correlation import HEADER
from server.web.problems import problem
from sync.errors import Malformed


class Worker(ThreadWorker):  # type: ignore[misc]  # what it inherits is untyped
    """Answers what is no HTTP with a problem, not with a page of gunicorn's."""

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Stop at once."""
        # Not ThreadWorker's: it shuts the pool down, whose lock the very code may hold that this signal interrupts.
        Base.handle_quit(self, sig, frame)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        if not isinstance(exc, ParseException):
            super().handle_error(req, client, addr, exc)
            return
        self.log.warning("Invalid request from ip=%s: %s", addr[0] if addr else "", exc)
        try:
            write_nonblock(client, refusal(exc))
        except OSError:
            self.log.debug("Failed to send error message.")


def refusal(exc: BaseException) -> bytes:
    """The whole answer to what `exc` says is no request."""
    if isinstance(exc, LimitRequestLine | LimitRequestHeaders):
        detail = "The address or the headers are longer than the server reads. Send less in them."
    else:
        detail = "This is not HTTP that the server reads."
    correlation_id = uuid.uuid4().hex
    answer = problem(Malformed(detail), correlation_id)
    body = answer.get_data()
    head = (
        f"HTTP/1.1 {answer.status}\r\nConnection: close\r\nContent-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(body)}\r\n{HEADER}: {correlation_id}\r\n\r\n"
    )
    return head.encode() + body
