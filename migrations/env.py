"""What alembic runs: each step in a transaction of its own, and none of them waits long for a lock.

A statement that waits for a lock makes everything else queue behind it, so a change of 50 ms behind one slow report
stops the whole server. It gives up after two seconds and is tried again when the others went through.
"""

from __future__ import annotations

import time

from alembic import context
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from server.settings import from_environ
from server.store.tables import metadata

LOCK_TIMEOUT = "2s"
TRIES = 10
PAUSE_S = 1.0
ONE_AT_A_TIME = 7_042_001  # the advisory lock that two processes migrating at once queue for


def run_online(connection: Connection) -> None:
    """Bring the connected database to the revision that was asked for."""
    for tries_left in reversed(range(TRIES)):
        try:
            _run(connection)
            return
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable) or not tries_left:
                raise
            connection.rollback()
            time.sleep(PAUSE_S)


def _run(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ONE_AT_A_TIME})
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.commit()
    try:
        context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ONE_AT_A_TIME})
        connection.commit()


def _url() -> str:
    url = from_environ().database_url
    if not url:
        raise SystemExit("Set DATABASE_URL to the database that is to be migrated.")
    return url


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
elif given := context.config.attributes.get("connection"):
    run_online(given)
else:
    with create_engine(_url(), poolclass=NullPool).connect() as opened:
        run_online(opened)
