"""A migrated database, emptied between tests, and a look at what is sent to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Engine, event, text

from server.store.tables import metadata

KEPT = ("feed_head", "feed_epoch", "audit")


def empty(engine: Engine) -> None:
    """As it was after the migration, but for the audit, which nobody can empty."""
    names = ", ".join(table for table in metadata.tables if table not in KEPT)
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {names}"))
        connection.execute(text("UPDATE feed_head SET seq = 0, at = 0"))
        connection.execute(text("UPDATE feed_epoch SET number = 0, durable_seq = 0, purged_seq = 0"))


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """The statements that psycopg sends for `engine` inside the block, on connections made inside it or before."""
    sent: list[str] = []

    class Listening(psycopg.Cursor[Any]):
        def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
            sent.append(str(query))
            return super().execute(query, *arguments, **options)

        def executemany(self, query: Any, rows: Any, **options: Any) -> None:
            rows = list(rows)
            sent.extend([str(query)] * len(rows))
            super().executemany(query, rows, **options)

    def listen(connection: Any, *_: Any) -> None:
        connection.cursor_factory = Listening

    event.listen(engine, "checkout", listen)
    try:
        yield sent
    finally:
        event.remove(engine, "checkout", listen)
        with engine.connect() as one:
            one.connection.driver_connection.cursor_factory = psycopg.Cursor  # type: ignore[union-attr]
        engine.dispose()
