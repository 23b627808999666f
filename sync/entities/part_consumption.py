"""Part consumptions: the parts of a job, from the estimate to what was really used."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sync.entities.toolkit_item import CONDITIONS, OWNERSHIPS
from sync.entity import (
    ADMIN,
    CONTROLLER,
    DISPATCHER,
    INTEGRATION,
    REVIEWER,
    TECHNICIAN,
    boolean,
    choice,
    decimal,
    moment,
    reference,
    synced,
    text,
)

LINE_STATUSES = ("estimated", "allocated", "picked", "used", "not_used", "returned", "removed")

ESTIMATORS = (DISPATCHER, CONTROLLER, INTEGRATION, ADMIN)


@synced(
    "part_consumption",
    scopes=("tech:{work_order_id.assignee_id}", "depot:{work_order_id.depot_id}"),
    fact=True,
    deleted_by=(TECHNICIAN, CONTROLLER, REVIEWER, INTEGRATION, ADMIN),
)
class PartConsumption:
    """A part that a job needs, used or gave back."""

    id: str = ""
    work_order_id: str = reference("work_order", policy="review", doc="the job it was for")
    task_id: str | None = reference("task", policy="device_wins", default=None, doc="the step it was for")
    part_id: str = reference("part", policy="review", doc="the part that was really used")
    requested_part_id: str | None = reference(
        "part", policy="last_writer", written_by=ESTIMATORS, default=None, doc="the part that had been planned"
    )
    serial: str | None = text(max_length=64, policy="review", default=None, doc="which unit, if units are told apart")
    lot: str | None = text(max_length=64, policy="review", default=None, doc="which batch")
    quantity: Decimal = decimal(
        policy="review", non_negative=True, doc="how much, in `uom`; what comes back is told by `line_status`"
    )
    estimated_quantity: Decimal | None = decimal(
        policy="last_writer", written_by=ESTIMATORS, default=None, non_negative=True, doc="how much had been planned"
    )
    uom: str = text(max_length=16, policy="review", default="ea", doc="the unit of `quantity`")
    location_id: str | None = reference("location", policy="device_wins", default=None, doc="where it was taken from")
    ownership: str = choice(OWNERSHIPS, policy="review", default="company", doc="whose property it was")
    condition: str = choice(CONDITIONS, policy="review", default="usable", doc="what state it was in")
    line_status: str = choice(
        LINE_STATUSES, policy="device_wins", default="used", doc="estimated to used or not used; removed: an old unit"
    )
    removes_id: str | None = reference(
        "part_consumption", policy="last_writer", default=None, doc="on a used line: the line of the unit it replaced"
    )
    billable: bool | None = boolean(policy="last_writer", default=None, doc="whether the customer pays for it")
    reason: str | None = text(max_length=500, policy="last_writer", default=None, doc="why this part, why not used")
    occurred_at: datetime | None = moment(policy="smallest", default=None, doc="when it was used or removed")
