"""What the API logs: one JSON object a line on stderr, for whatever collects it. Events and ids, never content."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any


class JsonLines(logging.Formatter):
    """A record as one line of JSON. A message that is a JSON object becomes part of it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, Any] = {"at": at, "level": record.levelname, "logger": record.name, "pid": record.process}
        message = record.getMessage()
        line |= _members(message) or {"message": message}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


def _members(message: str) -> dict[str, Any] | None:
    if message.startswith("{"):
        try:
            members = json.loads(message)
        except ValueError:
            return None
        return members if isinstance(members, dict) else None
    return None


def log_config(level: str) -> dict[str, Any]:
    """Logging as `logging.config.dictConfig` takes it: everything from `level` on, gunicorn's own words included."""
    ours = {"level": level, "handlers": ["stderr"]}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": "server.cli.logs.JsonLines"}},
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "lines", "stream": "ext://sys.stderr"},
        },
        "root": ours,
        "loggers": {
            "gunicorn.error": {**ours, "propagate": False},
            "gunicorn.access": {"propagate": False},
            "alembic": {"level": "WARNING"},  # /readyz asks it for the revision each time
        },
    }
