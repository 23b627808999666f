"""Empty databases for tests, on one embedded PostgreSQL per test process."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from server.embedded import EmbeddedPostgres

# Tests kill clients and PostgreSQL's processes, never the operating system, so nothing here hangs on fsync.
# Databases with hundreds of tables are made by copying files, which WAL_LOG (the default) would write twice.
OPTIONS = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB"}


class Databases:
    """Makes empty databases, and drops them. `databases()` opens one."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server
        self._numbers = itertools.count(1)
        self._made: list[str] = []

    def make_database(self) -> str:
        """The SQLAlchemy URL of a new, empty database."""
        name = f"test_{next(self._numbers)}"
        self._administer("CREATE DATABASE {}", name)
        self._made.append(name)
        return self._server.url(name)

    def drop_all(self) -> None:
        """Drop what was made, whoever is still connected to it."""
        while self._made:
            self._administer("DROP DATABASE IF EXISTS {} WITH (FORCE)", self._made.pop())

    def _administer(self, command: str, name: str) -> None:
        with psycopg.connect(plain_url(self._server.url("postgres")), autocommit=True) as connection:
            connection.execute(sql.SQL(command).format(sql.Identifier(name)))


@contextmanager
def databases() -> Iterator[Databases]:
    """A PostgreSQL server of its own in a short temporary path, stopped and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="bh-"))
    server = EmbeddedPostgres(folder, options=OPTIONS)
    try:
        server.start()
        made = Databases(server)
        yield made
        made.drop_all()
    finally:
        server.stop()
        shutil.rmtree(folder)


def plain_url(url: str) -> str:
    """A SQLAlchemy URL as libpq reads it."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)
