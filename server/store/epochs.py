"""The feed epoch and the durable position: two numbers that backups and restores move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine

from server.store.engine import driver
from server.store.saving import append_audit
from sync.clock import EPOCH_BITS

# The head is what every writer takes last, and there it compares its epoch with the one that stands.
LOCKED_HEAD = "SELECT seq FROM feed_head FOR UPDATE"
HEAD = "SELECT seq FROM feed_head"
ROTATE = """
    UPDATE feed_epoch SET number = greatest(number + 1, %s), id = gen_random_uuid()::text, rotated_at = %s
    RETURNING number
"""
RAISE_HEAD = "UPDATE feed_head SET seq = greatest(seq, %s)"
MOVE = "UPDATE feed_epoch SET durable_seq = greatest(durable_seq, %s) RETURNING durable_seq"


def feed_position(engine: Engine) -> int:
    """The present position of the feed: a backup that is begun now contains all up to here."""
    with driver(engine) as connection:
        return _number(connection.execute(HEAD))


def rotate_epoch(engine: Engine, least: int, now: int, audit: Mapping[str, Any]) -> int:
    """Begin a new feed epoch, `least` or one more than the last, whichever is larger; its number. now: ms."""
    with driver(engine) as connection:
        connection.execute(LOCKED_HEAD)
        number = _number(connection.execute(ROTATE, [least, now]))
        # Positions of the lost timeline must not be read as positions of this one: devices still name them.
        connection.execute(RAISE_HEAD, [number << EPOCH_BITS])
        append_audit(connection, now, [{**audit, "detail": {"epoch": number}}])
        connection.commit()
    return number


def move_durable(engine: Engine, seq: int, now: int, audit: Mapping[str, Any]) -> int | None:
    """Say that all up to `seq` survives the restore of any backup; the position that now stands, which never goes back.

    None, and nothing is moved, if the feed has not come so far. now: ms.
    """
    with driver(engine) as connection:
        if seq > _number(connection.execute(HEAD)):
            return None
        durable = _number(connection.execute(MOVE, [seq]))
        append_audit(connection, now, [{**audit, "detail": {"seq": durable}}])
        connection.commit()
    return durable


def _number(cursor: Any) -> int:
    row = cursor.fetchone()
    assert row is not None, "both tables hold one row"
    return int(row[0])
