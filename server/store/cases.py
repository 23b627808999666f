"""Who works on a review case: claiming and releasing it. Lists are in `listing.py`; decisions go through the hub."""

from __future__ import annotations

from sqlalchemy import Connection, text

from server.store.rows import CASE_COLUMNS, case_of
from sync.store import Case


def claim_case(connection: Connection, case_id: str, by: str, now: int, until: int) -> Case | None:
    """The case, claimed by `by` until `until` (ms); None if it is decided already, or somebody else's for now.

    Claiming one's own case again prolongs it. Only the claim changes, not what the case says.
    """
    row = connection.execute(_CLAIM, {"id": case_id, "by": by, "now": now, "until": until}).one_or_none()
    return case_of(tuple(row)) if row else None


def release_case(connection: Connection, case_id: str, by: str) -> Case | None:
    """The case, open again; None if `by` does not hold it."""
    row = connection.execute(_RELEASE, {"id": case_id, "by": by}).one_or_none()
    return case_of(tuple(row)) if row else None


_CLAIM = text(f"""
    UPDATE review_case SET status = 'claimed', claimed_by = :by, claimed_until = :until, version = version + 1
     WHERE id = :id AND status <> 'resolved' AND (claimed_by IS NULL OR claimed_by = :by OR claimed_until < :now)
    RETURNING {CASE_COLUMNS}
""")

_RELEASE = text(f"""
    UPDATE review_case SET status = 'open', claimed_by = NULL, claimed_until = NULL, version = version + 1
     WHERE id = :id AND status = 'claimed' AND claimed_by = :by
    RETURNING {CASE_COLUMNS}
""")
