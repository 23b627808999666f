"""The feed epoch, the durable mark, and the purge of what nobody can ask for any more."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, select, text, update

from server.store.tables import feed_epoch, feed_head
from sync.errors import Unprocessable

FIRST_HOUR_MS = 1_735_689_600_000  # 2025-01-01T00:00Z
HOUR_MS = 3_600_000


class Epoch(NamedTuple):
    """The state of the feed. number counts up; id is never the same twice. rotated_at: ms, None for a first install."""

    number: int
    id: str
    rotated_at: int | None
    durable_seq: int
    purged_seq: int
    head: int


class Purged(NamedTuple):
    """What a purge took: feed rows of deletions and evictions, contents of tombstones, ended memberships."""

    feed_rows: int
    tombstones: int
    memberships: int


_EPOCH = select(
    feed_epoch.c.number,
    feed_epoch.c.id,
    feed_epoch.c.rotated_at,
    feed_epoch.c.durable_seq,
    feed_epoch.c.purged_seq,
    feed_head.c.seq,
).where(feed_epoch.c.one == feed_head.c.one)


def current(connection: Connection) -> Epoch:
    """The feed's state now."""
    return Epoch(*connection.execute(_EPOCH).one())


def rotate(connection: Connection, id: str, now: int) -> Epoch:
    """Begin a new epoch, after a restore: no version of it was ever issued before, whatever the backup did not know.

    The number is one more, or the hours since 2025 if that is more: so it rises also when one backup is restored twice.
    id: fresh and random. now: ms.
    """
    _take_head(connection)
    number = max(current(connection).number + 1, (now - FIRST_HOUR_MS) // HOUR_MS)
    connection.execute(update(feed_epoch).values(number=number, id=id, rotated_at=now))
    return current(connection)


def mark_durable(connection: Connection, seq: int) -> Epoch:
    """Say that the oldest backup that may still be restored contains everything up to `seq`.

    Devices forget acknowledged work below it. Raises Unprocessable for a position that the feed has not reached.
    """
    head = _take_head(connection)
    if not 0 <= seq <= head:
        raise Unprocessable(f"The feed stands at {head}, so no backup can contain {seq}.")
    connection.execute(update(feed_epoch).values(durable_seq=seq))
    return current(connection)


def purge(connection: Connection, before: int) -> Purged:
    """Take what was deleted or left before `before` (ms) out of the feed, and the contents of tombstones that old.

    A reader whose cursor is older starts afresh from here on. Of a purged tombstone its key and version stay, so that
    no version is ever issued twice.
    """
    horizon = connection.execute(_HORIZON, {"before": before}).scalar_one_or_none() or 0
    # Records before the head, the order in which every push takes its locks.
    tombstones = connection.execute(_EMPTY_TOMBSTONES, {"before": before, "horizon": horizon}).rowcount
    memberships = connection.execute(_FORGET_MEMBERSHIPS, {"before": before}).rowcount
    _take_head(connection)
    feed_rows = connection.execute(_DROP_ROWS, {"horizon": horizon}).rowcount
    connection.execute(
        update(feed_epoch).values(purged_seq=horizon).where(feed_epoch.c.purged_seq < horizon),
    )
    return Purged(feed_rows, tombstones, memberships)


def _take_head(connection: Connection) -> int:
    """No push can end while this transaction lasts."""
    return int(connection.execute(select(feed_head.c.seq).with_for_update()).scalar_one())


# The feed's position at that time.
_HORIZON = text("""
    SELECT committed_seq FROM push WHERE committed_at < :before ORDER BY committed_seq DESC LIMIT 1
""")

# Not those that a newer row of the feed still tells of: a tombstone that moved to another scope, for one.
_EMPTY_TOMBSTONES = text("""
    WITH old AS (
           SELECT entity, id FROM record
            WHERE deleted AND updated_at < :before AND data <> '{}'
              AND NOT EXISTS (
                  SELECT FROM feed WHERE feed.scope = ANY(record.scopes) AND feed.entity = record.entity
                     AND feed.id = record.id AND feed.seq > :horizon)
            ORDER BY entity, id FOR UPDATE)
    UPDATE record SET data = '{}', scopes = '{}', refs = '{}',
           meta = '{"a":[],"s":[],"f":{},"d":' || record.version || '}',
           wire = '"version"\\:' || record.version || ',"clock"\\:{"hub"\\:' || record.version || '}'
      FROM old WHERE record.entity = old.entity AND record.id = old.id
""")

_FORGET_MEMBERSHIPS = text("DELETE FROM membership WHERE until < :before")
_DROP_ROWS = text("DELETE FROM feed WHERE op <> 'put' AND seq <= :horizon")
