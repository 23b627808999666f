"""Stock locations: the tree of warehouses and bins, vans and toolboxes, and the places where parts end up."""

from __future__ import annotations

from sync.entity import (
    ADMIN,
    CONTROLLER,
    DISPATCHER,
    INTEGRATION,
    Scope,
    boolean,
    choice,
    reference,
    synced,
    text,
)

KINDS = (
    "warehouse",
    "bin",
    "van",
    "toolbox",
    "customer_site",
    "supplier",
    "repair_vendor",
    "in_transit",
    "scrap",
    "adjustment",
)
STOCKED = ("warehouse", "bin")
"""Kinds whose stock every technician of the depot may look at."""

KEEPERS = (DISPATCHER, CONTROLLER, INTEGRATION, ADMIN)


@synced(
    "location",
    scopes=(
        "tech:{assigned_to}",
        "tech:{parent_id.assigned_to}",
        Scope("stock:{depot_id}", "kind", STOCKED),
        "depot:{depot_id}",
    ),
    created_by=KEEPERS,
    deleted_by=KEEPERS,
)
class Location:
    """A place that holds parts: a shelf, a van, a customer's site."""

    id: str = ""
    name: str = text(written_by=KEEPERS, doc="what people call it")
    kind: str = choice(KINDS, policy="review", written_by=KEEPERS, doc="what sort of place it is")
    code: str | None = text(max_length=64, written_by=KEEPERS, default=None, doc="what its label says")
    parent_id: str | None = reference(
        "location", written_by=KEEPERS, default=None, doc="the place it lies in: a bin's warehouse, a toolbox's van"
    )
    depot_id: str | None = reference(
        "location", written_by=KEEPERS, default=None, doc="the warehouse it belongs to; a warehouse may name itself"
    )
    # Ownership follows the van, not the login: work from before the change still applies to it.
    assigned_to: str | None = reference(
        "technician",
        policy="owner_wins",
        owner="fsm",
        written_by=KEEPERS,
        default=None,
        doc="the technician who has it and is the one to change its stock",
    )
    address: str | None = text(max_length=500, written_by=KEEPERS, default=None, doc="where it is")
    active: bool = boolean(policy="last_writer", written_by=KEEPERS, default=True, doc="false: nothing is put there")
