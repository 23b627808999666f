"""RMAs: the way of a unit back to the warehouse, the vendor or the scrap heap, and what became of it."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

from sync.entities.toolkit_item import CONDITIONS
from sync.entity import (
    ADMIN,
    CONTROLLER,
    DISPATCHER,
    INTEGRATION,
    REVIEWER,
    TECHNICIAN,
    Contest,
    StateMachine,
    Transition,
    choice,
    day,
    decimal,
    moment,
    reference,
    state,
    synced,
    text,
)

TYPES = (
    "standard_repair",
    "repair_and_return",
    "advance_exchange",
    "exchange",
    "replacement",
    "loaner",
    "loaner_repair_and_return",
    "refurbishment",
    "excess_return",
    "return_to_vendor",
    "warranty_claim",
    "field_scrap",
)
REASONS = ("defective", "damaged", "wrong_item", "wrong_quantity", "outdated", "not_satisfied", "other")
DISPOSITIONS = ("restock", "repair", "rtv", "scrap", "replace", "credit", "return_to_customer")
CORE_STATUSES = (
    "charged",
    "core_due",
    "core_removed",
    "core_shipped",
    "core_received",
    "inspected",
    "credited_full",
    "credited_partial",
    "forfeited",
    "waived",
)

DESK = (CONTROLLER, INTEGRATION, ADMIN)
FINANCE = (REVIEWER, INTEGRATION, ADMIN)

_REQUESTERS = (TECHNICIAN, DISPATCHER, CONTROLLER, INTEGRATION)
_DESK = (CONTROLLER, INTEGRATION)
_SHIPPERS = (TECHNICIAN, CONTROLLER, INTEGRATION)
_VENDOR = (INTEGRATION,)

STATES = StateMachine(
    precedence=(
        "draft",
        "submitted",
        "approved",
        "ready_to_ship",
        "rejected",
        "cancelled",
        "in_transit",
        "in_transit_unapproved",
        "partially_received",
        "received",
        "inspected",
        "dispositioned",
        "in_repair",
        "beyond_economic_repair",
        "repaired",
        "returned",
        "closed",
    ),
    transitions=(
        Transition("draft", "submitted", _REQUESTERS),
        Transition("submitted", "approved", _DESK),
        Transition("submitted", "rejected", _DESK),
        Transition("approved", "ready_to_ship", _SHIPPERS),
        *(
            Transition(source, "cancelled", (TECHNICIAN, DISPATCHER, CONTROLLER, INTEGRATION))
            for source in ("draft", "submitted", "approved", "ready_to_ship")
        ),
        # A parcel that is on its way exists, approved or not.
        Transition("approved", "in_transit", _SHIPPERS, fact=True),
        Transition("ready_to_ship", "in_transit", _SHIPPERS, fact=True),
        *(
            Transition(source, "in_transit_unapproved", _SHIPPERS, fact=True)
            for source in ("draft", "submitted", "rejected", "cancelled")
        ),
        Transition("in_transit_unapproved", "in_transit", _DESK),
        *(
            Transition(source, target, _DESK, fact=True)
            for source in ("approved", "ready_to_ship", "in_transit", "in_transit_unapproved")
            for target in ("partially_received", "received")
        ),
        Transition("partially_received", "received", _DESK, fact=True),
        Transition("received", "inspected", _DESK, fact=True),
        Transition("inspected", "dispositioned", (CONTROLLER, REVIEWER)),
        Transition("dispositioned", "in_repair", _DESK, fact=True),
        Transition("in_repair", "repaired", _VENDOR, fact=True),
        Transition("in_repair", "beyond_economic_repair", _VENDOR, fact=True),
        Transition("beyond_economic_repair", "dispositioned", (CONTROLLER, REVIEWER)),
        Transition("beyond_economic_repair", "returned", _DESK, fact=True),
        Transition("repaired", "returned", _DESK, fact=True),
        *(
            Transition(source, "closed", (CONTROLLER, REVIEWER, INTEGRATION))
            for source in ("rejected", "dispositioned", "beyond_economic_repair", "returned")
        ),
    ),
    contests=(Contest(("approved", "rejected")), Contest(("beyond_economic_repair", "repaired"))),
)


@synced(
    "rma",
    scopes=(
        "tech:{work_order_id.assignee_id}",
        "tech:{from_location_id.assigned_to}",
        "depot:{work_order_id.depot_id}",
        "depot:{from_location_id.depot_id}",
    ),
    deleted_by=DESK,
)
class Rma:
    """The return of a part."""

    id: str = ""
    number: str | None = text(
        max_length=64, policy="owner_wins", owner="erp", written_by=DESK, default=None, doc="the number on the label"
    )
    type: str = choice(TYPES, policy="review", doc="what is to happen with it")
    part_id: str = reference("part", policy="review", doc="what goes back")
    serial: str | None = text(max_length=64, policy="review", default=None, doc="which unit")
    lot: str | None = text(max_length=64, policy="review", default=None, doc="which batch")
    quantity: Decimal | None = decimal(policy="review", default=None, non_negative=True, doc="how much goes back")
    approved_quantity: Decimal | None = decimal(
        policy="last_writer", written_by=DESK, default=None, non_negative=True, doc="how much of it was accepted"
    )
    condition: str | None = choice(
        CONDITIONS, policy="device_wins", fact=True, default=None, doc="what state it was in when it left"
    )
    work_order_id: str | None = reference("work_order", policy="review", default=None, doc="the job it came from")
    from_location_id: str | None = reference("location", policy="review", default=None, doc="where it lay")
    to_location_id: str | None = reference(
        "location", policy="last_writer", written_by=(DISPATCHER, *DESK), default=None, doc="where it is to go"
    )
    reason: str | None = choice(REASONS, policy="last_writer", default=None, doc="why it goes back")
    status: str = state(STATES, default="draft", doc="where it is on its way")
    disposition: str | None = choice(
        DISPOSITIONS, policy="review", written_by=(REVIEWER, *DESK), default=None, doc="what was decided about it"
    )
    carrier: str | None = text(max_length=64, policy="device_wins", fact=True, default=None, doc="who carries it")
    tracking_number: str | None = text(
        max_length=64, policy="device_wins", fact=True, default=None, doc="the carrier's number"
    )
    shipped_at: datetime | None = moment(policy="smallest", fact=True, default=None, doc="when it was handed over")
    # Two opinions, not a conflict: how often they differ is worth knowing.
    diagnosis_as_found: str | None = text(
        max_length=4000, policy="device_wins", fact=True, default=None, doc="what the technician found"
    )
    diagnosis_as_confirmed: str | None = text(
        max_length=4000, policy="owner_wins", owner="vendor", written_by=DESK, default=None, doc="what the shop found"
    )
    core_charge: Decimal | None = decimal(
        policy="owner_wins",
        owner="erp",
        written_by=(REVIEWER, *DESK),
        default=None,
        non_negative=True,
        doc="deposit that is charged until the old unit is back",
    )
    core_status: str | None = choice(
        CORE_STATUSES,
        policy="owner_wins",
        owner="erp",
        written_by=(REVIEWER, *DESK),
        default=None,
        doc="how far the old unit's return has come",
    )
    core_due_on: date | None = day(
        policy="owner_wins", owner="erp", written_by=DESK, default=None, doc="when the old unit is due"
    )
    credit_amount: Decimal | None = decimal(
        policy="owner_wins", owner="erp", written_by=FINANCE, default=None, doc="what was credited for it"
    )
