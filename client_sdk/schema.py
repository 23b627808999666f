"""The tables of a device's database, and the steps by which an older one becomes a newer one in place.

The outbox is never rebuilt from anything and never dropped: a step may add to it, not take from it.
"""

from __future__ import annotations

import sqlite3

CREATE = (
    # Names and numbers: replica, cursor, what is durable; and, for the shell, server address and tokens.
    "CREATE TABLE state (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    # Server state, as the last complete pull showed it. data: NULL if deleted.
    "CREATE TABLE record (entity TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, clock TEXT NOT NULL,"
    " data TEXT, push_seq INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (entity, id))",
    "CREATE TABLE member (scope TEXT NOT NULL, entity TEXT NOT NULL, id TEXT NOT NULL,"
    " PRIMARY KEY (scope, entity, id)) WITHOUT ROWID",
    "CREATE INDEX member_by_record ON member (entity, id)",
    # Pages of a pull under way: nobody sees them before the last one is here.
    "CREATE TABLE staged (scope TEXT NOT NULL, entity TEXT NOT NULL, id TEXT NOT NULL, seq INTEGER NOT NULL,"
    " op TEXT NOT NULL, version INTEGER, clock TEXT, data TEXT, PRIMARY KEY (scope, entity, id))",
    # Own mutations in the order of capture. body: written once. wanted: the server may still have to be sent it.
    "CREATE TABLE outbox (place INTEGER PRIMARY KEY AUTOINCREMENT, replica TEXT NOT NULL, n INTEGER NOT NULL,"
    " origin_replica TEXT, origin_n INTEGER, entity TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL,"
    " acknowledged INTEGER NOT NULL DEFAULT 0, covered INTEGER NOT NULL DEFAULT 0,"
    " dismissed INTEGER NOT NULL DEFAULT 0, wanted INTEGER NOT NULL DEFAULT 1, result TEXT, voided TEXT,"
    " UNIQUE (replica, n))",
    "CREATE INDEX outbox_by_record ON outbox (entity, id)",
    "CREATE INDEX outbox_unsent ON outbox (replica, n) WHERE acknowledged = 0",
)

UPGRADES: tuple[tuple[str, ...], ...] = (CREATE,)
"""Step k makes version k + 1 out of version k; the first makes everything."""


def upgrade(connection: sqlite3.Connection, steps: tuple[tuple[str, ...], ...] = UPGRADES) -> None:
    """Bring the database to the newest version, each step in a transaction of its own.

    Raises ValueError if it was written by a newer app: then it is left as it is.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(steps):
        raise ValueError(f"this database has version {version}, and this app knows versions up to {len(steps)}")
    for number in range(version, len(steps)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have been quicker.
            if connection.execute("PRAGMA user_version").fetchone() == (number,):
                for statement in steps[number]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number + 1}")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
