"""What has to be done from time to time so that the database does not grow for ever."""

from __future__ import annotations

from server.services.devices import Desk
from server.store.engine import transaction
from server.store.enrolment import audit
from server.store.purge import Purged, purge

DAY_MS = 86_400_000


def purge_older(desk: Desk, days: int, by: str) -> Purged:
    """Drop deletions and evictions that are older than `days`. Devices away for longer start their copy afresh."""
    now = desk.clock()
    entry = {"actor": by, "action": "feed.purge", "subject": "feed", "detail": {"days": days}}
    with transaction(desk.engine) as connection:
        purged = purge(connection, now - days * DAY_MS)
        audit(connection, now, entry)
    return purged
