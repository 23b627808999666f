"""Work orders: what is to be done at a customer's site, and what was done there.

The office plans, the technician reports. Reports are facts: a finished job is never refused, however the plan changed
meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from sync.entity import (
    ADMIN,
    DISPATCHER,
    INTEGRATION,
    REVIEWER,
    TECHNICIAN,
    Contest,
    StateMachine,
    Transition,
    boolean,
    choice,
    decimal,
    log,
    moment,
    obj,
    reference,
    state,
    synced,
    tags,
    text,
)

PLANNERS = (DISPATCHER, INTEGRATION, ADMIN)
REPORTERS = (TECHNICIAN, DISPATCHER, REVIEWER, INTEGRATION, ADMIN)

_ON_SITE = (TECHNICIAN,)
_OPEN = ("draft", "ready", "scheduled", "assigned", "accepted", "en_route", "in_progress", "on_hold")

STATES = StateMachine(
    precedence=(
        "draft",
        "ready",
        "scheduled",
        "assigned",
        "accepted",
        "en_route",
        "on_hold",
        "in_progress",
        "cancelled",
        "incomplete",
        "completed",
        "closed",
    ),
    transitions=(
        Transition("draft", "ready", PLANNERS),
        Transition("ready", "scheduled", PLANNERS),
        Transition("ready", "assigned", PLANNERS),
        Transition("scheduled", "assigned", PLANNERS),
        Transition("scheduled", "ready", PLANNERS),
        # A technician who refuses hands it back, with a reason.
        Transition("assigned", "ready", (TECHNICIAN, *PLANNERS)),
        Transition("assigned", "scheduled", PLANNERS),
        Transition("accepted", "assigned", PLANNERS),
        Transition("en_route", "assigned", PLANNERS),
        Transition("assigned", "accepted", _ON_SITE),
        # Nobody presses every button: steps may be skipped on the way to the site, not the work itself.
        Transition("assigned", "en_route", _ON_SITE, fact=True),
        Transition("accepted", "en_route", _ON_SITE, fact=True),
        Transition("assigned", "in_progress", _ON_SITE, fact=True),
        Transition("accepted", "in_progress", _ON_SITE, fact=True),
        Transition("en_route", "in_progress", _ON_SITE, fact=True),
        Transition("in_progress", "on_hold", (TECHNICIAN, DISPATCHER), fact=True),
        Transition("on_hold", "in_progress", (TECHNICIAN, DISPATCHER), fact=True),
        Transition("in_progress", "completed", _ON_SITE, fact=True),
        Transition("in_progress", "incomplete", _ON_SITE, fact=True),
        # Only a supervisor reopens; a technician who does reports work all the same, so it is a fact and waits.
        Transition("completed", "in_progress", (REVIEWER,), fact=True),
        Transition("incomplete", "in_progress", (REVIEWER,), fact=True),
        Transition("cancelled", "completed", (REVIEWER,), fact=True),
        Transition("incomplete", "ready", PLANNERS),
        Transition("completed", "closed", (REVIEWER, INTEGRATION)),
        Transition("incomplete", "closed", (REVIEWER, INTEGRATION)),
        *(Transition(source, "cancelled", PLANNERS) for source in _OPEN),
    ),
    contests=(
        Contest(("completed", "cancelled"), earlier_wins=True),
        Contest(("incomplete", "cancelled"), earlier_wins=True),
        Contest(("in_progress", "cancelled")),
        Contest(("on_hold", "cancelled")),  # what is on hold was begun
        Contest(("completed", "incomplete")),
    ),
)


@synced(
    "work_order",
    scopes=("tech:{assignee_id}", "depot:{depot_id}"),
    on_delete="review",
    created_by=PLANNERS,
    deleted_by=PLANNERS,
)
class WorkOrder:
    """A job for a technician at a customer's site."""

    id: str = ""
    number: str | None = text(
        max_length=64,
        policy="owner_wins",
        owner="crm",
        written_by=PLANNERS,
        default=None,
        doc="the number that customer and office know it by",
    )
    title: str = text(doc="the job in one line")
    description: str | None = text(max_length=20_000, default=None, doc="what is wrong and what is to be done")
    customer_id: str | None = text(
        max_length=64, policy="owner_wins", owner="crm", written_by=PLANNERS, default=None, doc="the customer's number"
    )
    site_id: str | None = text(
        max_length=64, policy="owner_wins", owner="crm", written_by=PLANNERS, default=None, doc="where the job is"
    )
    contact: str | None = text(
        max_length=500, policy="owner_wins", owner="crm", written_by=PLANNERS, default=None, doc="whom to ask for"
    )
    contract_id: str | None = text(
        max_length=64, policy="owner_wins", owner="crm", written_by=PLANNERS, default=None, doc="who pays, and for what"
    )
    asset_id: str | None = text(
        max_length=64, policy="owner_wins", owner="erp", written_by=PLANNERS, default=None, doc="the machine, as filed"
    )
    asset_serial_observed: str | None = text(
        max_length=64,
        policy="device_wins",
        written_by=REPORTERS,
        fact=True,
        default=None,
        doc="the serial number that the nameplate shows",
    )
    depot_id: str | None = reference(
        "location",
        policy="owner_wins",
        owner="fsm",
        written_by=PLANNERS,
        default=None,
        doc="the warehouse whose people do it",
    )
    priority: str = choice(
        ("low", "normal", "high", "emergency"),
        policy="owner_wins",
        owner="fsm",
        written_by=PLANNERS,
        default="normal",
        doc="how urgent it is",
    )
    status: str = state(STATES, written_by=REPORTERS, default="draft", doc="how far it has come")
    status_reason: str | None = text(
        max_length=500,
        policy="last_writer",
        written_by=REPORTERS,
        default=None,
        doc="why it was refused, put on hold, cancelled, left incomplete or reopened",
    )
    assignee_id: str | None = reference(
        "technician",
        policy="owner_wins",
        owner="fsm",
        written_by=PLANNERS,
        default=None,
        doc="the technician whose device gets it",
    )
    scheduled_start: datetime | None = moment(
        policy="owner_wins", owner="fsm", written_by=PLANNERS, default=None, doc="when it is to begin"
    )
    scheduled_end: datetime | None = moment(
        policy="owner_wins", owner="fsm", written_by=PLANNERS, default=None, doc="when it is to be done"
    )
    due_at: datetime | None = moment(
        policy="owner_wins", owner="fsm", written_by=PLANNERS, default=None, doc="what was promised to the customer"
    )
    actual_start: datetime | None = moment(
        policy="smallest", written_by=REPORTERS, fact=True, default=None, doc="when work began"
    )
    actual_end: datetime | None = moment(
        policy="largest", written_by=REPORTERS, fact=True, default=None, doc="when work ended"
    )
    labour: tuple[Any, ...] = log(
        written_by=REPORTERS,
        fact=True,
        default=(),
        doc="time spent: {technician_id, kind (travel, work, wait), start, end}",
    )
    resolution: str | None = text(
        max_length=20_000,
        written_by=(TECHNICIAN, DISPATCHER, REVIEWER, ADMIN),
        fact=True,
        default=None,
        doc="what was done",
    )
    failure_code: str | None = text(
        max_length=64, policy="device_wins", written_by=REPORTERS, fact=True, default=None, doc="what had failed"
    )
    cause_code: str | None = text(
        max_length=64, policy="device_wins", written_by=REPORTERS, fact=True, default=None, doc="why it had failed"
    )
    meter_reading: Decimal | None = decimal(
        policy="largest", written_by=REPORTERS, fact=True, default=None, doc="what the machine's meter showed"
    )
    signature: Mapping[str, Any] | None = obj(
        policy="device_wins",
        written_by=REPORTERS,
        fact=True,
        default=None,
        doc="who signed, when, and the hash of what was signed",
    )
    billing_status: str | None = choice(
        ("not_billed", "ready", "billed"),
        policy="owner_wins",
        owner="erp",
        written_by=(REVIEWER, INTEGRATION, ADMIN),
        default=None,
        doc="how far the invoice is",
    )
    tags: tuple[str, ...] = tags(default=(), doc="words to find it by")
    is_test: bool = boolean(
        policy="last_writer", written_by=PLANNERS, default=False, doc="true: practice, to be kept out of reports"
    )
