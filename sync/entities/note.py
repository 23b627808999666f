"""Notes: what is worth remembering about a job, a part or a shelf."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sync.entity import ANY_ENTITY, boolean, moment, reference, synced, text


@synced(
    "note",
    scopes=(
        "tech:{parent.assignee_id}",
        "tech:{parent.work_order_id.assignee_id}",
        "depot:{parent.depot_id}",
        "depot:{parent.work_order_id.depot_id}",
    ),
    fact=True,
    on_delete="delete_wins",  # the office takes out what must not be read; an edit that did not know waits for a person
)
class Note:
    """Something that somebody wrote down."""

    id: str = ""
    parent: Mapping[str, str] = reference(ANY_ENTITY, policy="review", doc="what it is about: {entity, id}")
    author_id: str | None = text(max_length=64, policy="review", default=None, doc="who wrote it: a technician or user")
    written_at: datetime | None = moment(policy="smallest", default=None, doc="when it was written")
    pinned: bool = boolean(policy="last_writer", default=False, doc="true: shown first")
    # Last: from here on `text` is this field.
    text: str = text(max_length=20_000, doc="what was noted")
