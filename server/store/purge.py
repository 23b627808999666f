"""The purge of what nobody can ask for any more: deletions, evictions and memberships of long ago."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, select, text, update

from server.store.tables import feed_epoch, feed_head


class Purged(NamedTuple):
    """What a purge took: feed rows of deletions and evictions, contents of tombstones, ended memberships."""

    feed_rows: int
    tombstones: int
    memberships: int


def purge(connection: Connection, before: int) -> Purged:
    """Take what was deleted or left before `before` (ms) out of the feed, and the contents of tombstones that old.

    A reader whose cursor is older starts afresh from here on. Of a purged tombstone its key and version stay, so that
    no version is ever issued twice.
    """
    horizon = connection.execute(_HORIZON, {"before": before}).scalar_one_or_none() or 0
    # Records before the head, the order in which every push takes its locks.
    tombstones = connection.execute(_EMPTY_TOMBSTONES, {"before": before, "horizon": horizon}).rowcount
    memberships = connection.execute(_FORGET_MEMBERSHIPS, {"before": before}).rowcount
    connection.execute(select(feed_head.c.seq).with_for_update())
    feed_rows = connection.execute(_DROP_ROWS, {"horizon": horizon}).rowcount
    connection.execute(
        update(feed_epoch).values(purged_seq=horizon).where(feed_epoch.c.purged_seq < horizon),
    )
    return Purged(feed_rows, tombstones, memberships)


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
