"""Toolkit items: how much of a part lies in a place, told apart by lot, serial, ownership and condition.

Quantities follow from what was received, moved, used and counted. Nobody sets them.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from decimal import Decimal

from sync.entities.location import STOCKED
from sync.entity import (
    ADMIN,
    CONTROLLER,
    INTEGRATION,
    Scope,
    choice,
    decimal,
    moment,
    reference,
    synced,
    text,
)

OWNERSHIPS = ("company", "vendor_consigned", "customer_owned", "loaner")
CONDITIONS = (
    "new",
    "refurbished",
    "usable",
    "suspect",
    "defective",
    "core_dirty",
    "in_repair",
    "quarantined",
    "scrap",
)

STOCKKEEPERS = (CONTROLLER, INTEGRATION, ADMIN)


@synced(
    "toolkit_item",
    scopes=(
        "tech:{location_id.assigned_to}",
        "tech:{location_id.parent_id.assigned_to}",
        Scope("stock:{location_id.depot_id}", "location_id.kind", STOCKED),
        "depot:{location_id.depot_id}",
    ),
    on_delete="edit_resurrects",
    created_by=STOCKKEEPERS,
    deleted_by=STOCKKEEPERS,
)
class ToolkitItem:
    """Stock of one part in one place."""

    id: str = ""
    location_id: str = reference("location", policy="review", written_by=STOCKKEEPERS, doc="where it lies")
    part_id: str = reference("part", policy="review", written_by=STOCKKEEPERS, doc="what it is")
    lot: str | None = text(max_length=64, policy="review", written_by=STOCKKEEPERS, default=None, doc="its batch")
    serial: str | None = text(max_length=64, policy="review", written_by=STOCKKEEPERS, default=None, doc="its number")
    ownership: str = choice(
        OWNERSHIPS, policy="review", written_by=STOCKKEEPERS, default="company", doc="whose property it is"
    )
    condition: str = choice(
        CONDITIONS, policy="review", written_by=STOCKKEEPERS, default="usable", doc="what state it is in"
    )
    on_hand: Decimal | None = decimal(policy="last_writer", server=True, default=None, doc="the sum of its moves")
    reserved: Decimal | None = decimal(policy="last_writer", server=True, default=None, doc="promised to a job")
    available: Decimal | None = decimal(policy="last_writer", server=True, default=None, doc="free to be used")
    minimum: Decimal | None = decimal(
        policy="owner_wins",
        owner="platform",
        written_by=STOCKKEEPERS,
        default=None,
        non_negative=True,
        doc="below it, it is filled up",
    )
    maximum: Decimal | None = decimal(
        policy="owner_wins",
        owner="platform",
        written_by=STOCKKEEPERS,
        default=None,
        non_negative=True,
        doc="up to which it is filled up",
    )
    last_counted_at: datetime | None = moment(
        policy="last_writer", server=True, default=None, doc="when somebody last counted it"
    )


def toolkit_item_id(
    location: str, part: str, lot: str | None = None, serial: str | None = None,
    ownership: str = "company", condition: str = "usable",
) -> str:  # fmt: skip
    """The id of the record of that stock: the same for whoever makes it, hub or device."""
    stock_key = "\n".join((location, part, lot or "", serial or "", ownership, condition))
    return "ti_" + base64.b32encode(hashlib.sha256(stock_key.encode()).digest()).decode()[:26].lower()
