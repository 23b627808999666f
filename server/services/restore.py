"""What follows a backup and a restore: how far work is safe, and a new feed epoch that keeps a lost timeline apart."""

from __future__ import annotations

from server.services.devices import Desk, apply_revocations
from server.store import epochs
from sync.errors import Unprocessable

EPOCHS_SINCE = 1_735_689_600_000  # 2025-01-01, ms
HOUR_MS = 3_600_000


def rotate(desk: Desk, by: str) -> tuple[int, int]:
    """Begin a new feed epoch after a restore, and shut out again what was revoked since the backup.

    The epoch is the hours since 2025-01-01, or one more than the last: also when one backup is restored twice, no
    version is issued twice. Returns its number and how many revocations were read.
    """
    now = desk.clock()
    audit = {"actor": by, "action": "epoch.rotate", "subject": "feed"}
    number = epochs.rotate_epoch(desk.engine, max(1, (now - EPOCHS_SINCE) // HOUR_MS), now, audit)
    return number, apply_revocations(desk)


def keep_until(desk: Desk, seq: int, by: str) -> int:
    """The oldest backup that may still be restored contains the feed up to `seq`; the position that now stands.

    Raises Unprocessable for a position ahead of the feed: devices would drop work that no backup has.
    """
    audit = {"actor": by, "action": "durable.move", "subject": "feed"}
    durable = epochs.move_durable(desk.engine, seq, desk.clock(), audit)
    if durable is None:
        raise Unprocessable(f"The feed has not come to {seq} yet; its position is {position(desk)}.")
    return durable


def position(desk: Desk) -> int:
    """The present position of the feed."""
    return epochs.feed_position(desk.engine)
