"""Parts: the catalogue. The ERP owns it; a technician may add a provisional part for what lies on the bench."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sync.entity import (
    ADMIN,
    CONTROLLER,
    INTEGRATION,
    TECHNICIAN,
    boolean,
    choice,
    decimal,
    integer,
    obj,
    reference,
    synced,
    tags,
    text,
)

STATUSES = ("provisional", "active", "phase_out", "superseded", "blocked", "recalled")

CATALOGUERS = (CONTROLLER, INTEGRATION, ADMIN)
FINDERS = (TECHNICIAN, *CATALOGUERS)
"""Who can tell what a nameplate says: enough to add a part that the ERP has not got yet."""


@synced("part", scopes=("catalog:all",), created_by=FINDERS, changed_by=CATALOGUERS, deleted_by=CATALOGUERS)
class Part:
    """A kind of thing that is stocked, installed or returned; what is kept where is a toolkit item."""

    id: str = ""
    number: str = text(
        max_length=64, policy="owner_wins", owner="erp", written_by=FINDERS, doc="the number it is ordered by"
    )
    name: str = text(policy="owner_wins", owner="erp", written_by=FINDERS, doc="what it is")
    description: str | None = text(
        max_length=4000, policy="owner_wins", owner="erp", written_by=FINDERS, default=None, doc="more about it"
    )
    class_: str | None = text(
        max_length=64,
        policy="owner_wins",
        owner="erp",
        written_by=FINDERS,
        default=None,
        doc="its group in the catalogue",
    )
    uom: str = text(
        max_length=16,
        policy="owner_wins",
        owner="erp",
        written_by=FINDERS,
        default="ea",
        doc="the unit it is counted in; ea counts whole pieces",
    )
    uoms: Mapping[str, Any] | None = obj(
        policy="owner_wins",
        owner="erp",
        written_by=CATALOGUERS,
        default=None,
        doc='other units as fractions of `uom`: {"box": {"numerator": 12, "denominator": 1}}',
    )
    tracking: str = choice(
        ("none", "lot", "serial"),
        policy="owner_wins",
        owner="erp",
        written_by=FINDERS,
        default="none",
        doc="whether single units or lots are told apart",
    )
    criticality: str | None = choice(
        ("A", "B", "C"),
        policy="owner_wins",
        owner="erp",
        written_by=CATALOGUERS,
        default=None,
        doc="A: its absence stops a customer's plant",
    )
    identifiers: Mapping[str, Any] | None = obj(
        policy="owner_wins",
        owner="erp",
        written_by=FINDERS,
        default=None,
        doc='other numbers by who issued them: {"oem": "…", "gtin": "…"}',
    )
    status: str = choice(
        STATUSES,
        policy="owner_wins",
        owner="erp",
        written_by=FINDERS,
        default="provisional",
        doc="provisional until the owner of the catalogue confirms it",
    )
    hazardous: bool = boolean(
        policy="owner_wins", owner="erp", written_by=CATALOGUERS, default=False, doc="needs special care in transport"
    )
    shelf_life_days: int | None = integer(
        policy="owner_wins",
        owner="erp",
        written_by=CATALOGUERS,
        default=None,
        non_negative=True,
        doc="days until it expires in store",
    )
    returnable: bool = boolean(
        policy="owner_wins", owner="erp", written_by=CATALOGUERS, default=False, doc="the old unit is to come back"
    )
    core_charge: Decimal | None = decimal(
        policy="owner_wins",
        owner="erp",
        written_by=CATALOGUERS,
        default=None,
        non_negative=True,
        doc="deposit that is charged until the old unit comes back",
    )
    core_due_days: int | None = integer(
        policy="owner_wins",
        owner="erp",
        written_by=CATALOGUERS,
        default=None,
        non_negative=True,
        doc="days until the old unit is due",
    )
    superseded_by: str | None = reference(
        "part",
        policy="owner_wins",
        owner="erp",
        written_by=CATALOGUERS,
        default=None,
        doc="its orderable successor; what was used is recorded as it was used",
    )
    compatible_with: tuple[str, ...] = tags(written_by=CATALOGUERS, default=(), doc="models that it fits")
