"""Discrepancies: what somebody counted, and what the books had said.

A count says "at this moment there were so many". It moves stock at once; what waits for approval is the posting.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sync.entities.toolkit_item import CONDITIONS, OWNERSHIPS
from sync.entity import (
    ADMIN,
    CONTROLLER,
    INTEGRATION,
    REVIEWER,
    TECHNICIAN,
    Contest,
    StateMachine,
    Transition,
    choice,
    decimal,
    moment,
    reference,
    state,
    synced,
    text,
)

REASONS = (
    "count_variance",
    "damaged",
    "lost",
    "theft",
    "found",
    "wrong_location",
    "wrong_part",
    "uom_error",
    "unrecorded_use",
    "unrecorded_receipt",
    "short_receipt",
    "over_receipt",
    "expired",
    "serial_mismatch",
)

COUNTERS = (TECHNICIAN, CONTROLLER, REVIEWER, INTEGRATION, ADMIN)
APPROVERS = (CONTROLLER, REVIEWER)

_POSTERS = (CONTROLLER, INTEGRATION)

STATES = StateMachine(
    precedence=(
        "reported",
        "auto_accepted",
        "pending_review",
        "recount_requested",
        "rejected",
        "approved",
        "posted",
        "closed",
    ),
    transitions=(
        Transition("reported", "auto_accepted", _POSTERS),
        Transition("reported", "pending_review", APPROVERS),
        Transition("auto_accepted", "pending_review", APPROVERS),
        Transition("pending_review", "recount_requested", APPROVERS),
        Transition("recount_requested", "pending_review", APPROVERS),
        Transition("recount_requested", "reported", COUNTERS, fact=True),  # it was counted again
        *(
            Transition(source, target, APPROVERS)
            for source in ("reported", "pending_review", "recount_requested")
            for target in ("approved", "rejected")
        ),
        Transition("auto_accepted", "posted", _POSTERS),
        Transition("approved", "posted", _POSTERS),
        Transition("posted", "closed", _POSTERS),
        Transition("rejected", "closed", APPROVERS),
    ),
    contests=(Contest(("approved", "rejected")),),
)


@synced(
    "discrepancy",
    plural="discrepancies",
    scopes=(
        "tech:{location_id.assigned_to}",
        "tech:{location_id.parent_id.assigned_to}",
        "depot:{location_id.depot_id}",
    ),
    fact=True,
    created_by=COUNTERS,
    deleted_by=(CONTROLLER, REVIEWER, ADMIN),
)
class Discrepancy:
    """One count of one part in one place."""

    id: str = ""
    location_id: str = reference("location", policy="review", written_by=COUNTERS, doc="where it was counted")
    part_id: str = reference("part", policy="review", written_by=COUNTERS, doc="what was counted")
    lot: str | None = text(max_length=64, policy="review", written_by=COUNTERS, default=None, doc="which batch")
    serial: str | None = text(max_length=64, policy="review", written_by=COUNTERS, default=None, doc="which unit")
    ownership: str = choice(
        OWNERSHIPS, policy="review", written_by=COUNTERS, default="company", doc="whose property it is"
    )
    condition: str = choice(
        CONDITIONS, policy="review", written_by=COUNTERS, default="usable", doc="what state it is in"
    )
    counted: Decimal = decimal(
        policy="review",
        written_by=COUNTERS,
        non_negative=True,
        doc="how many were there; what was not counted is left out",
    )
    # The books may have been below nothing, so this one may be.
    expected: Decimal | None = decimal(
        policy="last_writer", written_by=COUNTERS, default=None, doc="how many the counter was shown, none if blind"
    )
    reason: str | None = choice(
        REASONS, policy="last_writer", written_by=COUNTERS, default=None, doc="why they differ, as far as one can tell"
    )
    comment: str | None = text(max_length=4000, written_by=COUNTERS, default=None, doc="what else was seen")
    status: str = state(STATES, written_by=COUNTERS, default="reported", doc="how far its approval has come")
    counted_at: datetime | None = moment(policy="review", written_by=COUNTERS, default=None, doc="when it was counted")
    counted_by: str | None = text(
        max_length=64, policy="review", written_by=COUNTERS, default=None, doc="who counted; cannot approve it"
    )
    approved_by: str | None = text(
        max_length=64, policy="last_writer", written_by=(*APPROVERS, ADMIN), default=None, doc="who decided"
    )
