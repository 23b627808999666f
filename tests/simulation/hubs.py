"""The two hubs under test, in memory and in PostgreSQL, with what a history needs beside the store: failures around a
commit, a look at all records, and backups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
from sqlalchemy import Engine

from server.services.restore import EPOCHS_SINCE, HOUR_MS
from server.store import epochs
from server.store.engine import driver, make_engine
from server.store.hub import PostgresHub
from server.store.migrate import upgrade
from server.store.rows import RECORD_COLUMNS, record_of
from server.store.tables import metadata
from sync.errors import Unavailable
from sync.memory import MemoryHub
from sync.record import Key, Record
from sync.store import HubStore
from tests.support.postgres import databases
from tests.support.store import empty


class SimHub(Protocol):
    """A hub that a history can break and restore."""

    store: HubStore
    failure: Failure

    def records(self) -> dict[Key, Record]: ...

    def backup(self) -> Any: ...

    def restore(self, backup: Any, now: int) -> None:
        """Back to `backup`, under a new feed epoch. now: ms."""
        ...

    def keep_until(self, seq: int) -> None:
        """The oldest backup contains the feed up to `seq`."""
        ...


@dataclass(slots=True)
class Failure:
    """Where the next commit is to fail. happened: where it did."""

    armed: str | None = None
    happened: str | None = None

    def __call__(self, name: str) -> None:
        if self.armed == name:
            self.armed, self.happened = None, name
            raise Unavailable(f"The hub stopped: {name}.")


class MemorySimHub:
    """The reference implementation."""

    def __init__(self) -> None:
        self.failure = Failure()
        self.store = MemoryHub(self.failure)

    def records(self) -> dict[Key, Record]:
        return self.store.state.records

    def backup(self) -> Any:
        return self.store.backup()

    def restore(self, backup: Any, now: int) -> None:
        self.store.restore(backup, max(backup.epoch + 1, (now - EPOCHS_SINCE) // HOUR_MS))

    def keep_until(self, seq: int) -> None:
        self.store.state.durable_seq = max(self.store.state.durable_seq, seq)


@contextmanager
def memory_hubs() -> Iterator[type[MemorySimHub]]:
    """Gives a callable that makes an empty hub."""
    yield MemorySimHub


# -- PostgreSQL ---------------------------------------------------------------------------------------------------


class PostgresSimHub:
    """The store of production."""

    def __init__(self, engine: Engine) -> None:
        empty(engine)
        self._engine = engine
        self.failure = Failure()
        self.store = PostgresHub(engine, self._around_commit)
        self._known: dict[Key, Record] | None = None

    def _around_commit(self, name: str) -> None:
        self._known = None
        self.failure(name)

    def records(self) -> dict[Key, Record]:
        if self._known is None:
            with driver(self._engine) as connection:
                rows = connection.execute(f"SELECT {RECORD_COLUMNS} FROM record").fetchall()
            self._known = {record.key: record for record in map(record_of, rows)}
        return self._known

    def backup(self) -> Any:
        with driver(self._engine) as connection:
            return {name: _copied(connection, name) for name in TABLES}

    def restore(self, backup: Any, now: int) -> None:
        self._known = None
        with driver(self._engine) as connection:
            connection.execute(f"TRUNCATE {', '.join(TABLES)}")
            for name, content in backup.items():
                with connection.cursor().copy(f"COPY {name} FROM STDIN") as copy:
                    copy.write(content)
            connection.commit()
        least = max(1, (now - EPOCHS_SINCE) // HOUR_MS)
        epochs.rotate_epoch(self._engine, least, now, {"actor": "simulation", "action": "rotate", "subject": "feed"})

    def keep_until(self, seq: int) -> None:
        audit = {"actor": "simulation", "action": "durable", "subject": "feed"}
        epochs.move_durable(self._engine, seq, 0, audit)


TABLES = sorted(set(metadata.tables) - {"audit"})  # which nobody can empty


def _copied(connection: psycopg.Connection[Any], name: str) -> bytes:
    with connection.cursor().copy(f"COPY {name} TO STDOUT") as copy:
        return b"".join(bytes(block) for block in copy)


@contextmanager
def postgres_hubs() -> Iterator[Callable[[], PostgresSimHub]]:
    """Gives a callable that makes an empty hub, all of them in one database of a server of their own."""
    with databases() as made:
        url = made.make_database()
        upgrade(url)
        engine = make_engine(url)
        try:
            yield lambda: PostgresSimHub(engine)
        finally:
            engine.dispose()
