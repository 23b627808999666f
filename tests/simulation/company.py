"""The company that every history begins with, and the names in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sync.entity import ADMIN, TECHNICIAN
from sync.record import Key, Record
from sync.store import Actor

ADMINISTRATOR: Final = Actor("user", "user:root", ADMIN, "fsm", ("*",))

DEPOTS: Final = ("D-1", "D-2")
TECHNICIANS: Final = ("T-1", "T-2", "T-3")
PARTS: Final = ("P-1", "P-2")
SCOPES: Final = (
    "catalog:all",
    *(f"{kind}:{depot}" for kind in ("depot", "stock") for depot in DEPOTS),
    *(f"tech:{technician}" for technician in TECHNICIANS),
)

_ON_WO1 = {"entity": "work_order", "id": "WO-1"}
_TEXT = "The pump is loud.\nThe belt is worn.\nBring a ladder.\nAsk for the key.\nDo not park here.\n"

COMPANY: Final[Mapping[tuple[str, str], Mapping[str, Any]]] = {
    ("location", "D-1"): {"name": "Depot 1", "kind": "warehouse", "depot_id": "D-1"},
    ("location", "D-2"): {"name": "Depot 2", "kind": "warehouse", "depot_id": "D-2"},
    ("technician", "T-1"): {"name": "Ada", "depot_id": "D-1"},
    ("technician", "T-2"): {"name": "Ben", "depot_id": "D-1"},
    ("technician", "T-3"): {"name": "Cleo", "depot_id": "D-2"},
    ("location", "B-1"): {"name": "Bin", "kind": "bin", "depot_id": "D-1", "parent_id": "D-1"},
    ("location", "V-1"): {"name": "Van 1", "kind": "van", "depot_id": "D-1", "assigned_to": "T-1"},
    ("location", "V-2"): {"name": "Van 2", "kind": "van", "depot_id": "D-1", "assigned_to": "T-2"},
    ("location", "X-1"): {"name": "Toolbox", "kind": "toolbox", "depot_id": "D-1", "parent_id": "V-1"},
    ("part", "P-1"): {"number": "100", "name": "Belt", "status": "active"},
    ("part", "P-2"): {"number": "200", "name": "Seal", "status": "active"},
    ("work_order", "WO-1"): {"title": "Pump", "description": _TEXT, "status": "assigned", "assignee_id": "T-1"},
    ("work_order", "WO-2"): {"title": "Lift", "description": _TEXT, "status": "in_progress", "assignee_id": "T-1"},
    ("work_order", "WO-3"): {"title": "Door", "description": _TEXT, "status": "accepted", "assignee_id": "T-2"},
    ("work_order", "WO-4"): {"title": "Lamp", "description": _TEXT, "status": "assigned", "assignee_id": "T-3"},
    ("task", "TK-1"): {"work_order_id": "WO-1", "title": "Look"},
    ("task", "TK-2"): {"work_order_id": "WO-1", "title": "Clean"},
    ("task", "TK-3"): {"work_order_id": "WO-3", "title": "Measure"},
    ("task", "TK-4"): {"work_order_id": "WO-4", "title": "Test"},
    ("note", "N-1"): {"parent": _ON_WO1, "text": "Ring twice."},
    ("note", "N-2"): {"parent": {"entity": "task", "id": "TK-1"}, "text": "Mind the dog."},
    ("note", "N-3"): {"parent": {"entity": "work_order", "id": "WO-3"}, "text": "Gate code at the office."},
    ("toolkit_item", "TI-1"): {"location_id": "D-1", "part_id": "P-1", "on_hand": "40"},
    ("toolkit_item", "TI-2"): {"location_id": "V-1", "part_id": "P-1", "on_hand": "4"},
    ("toolkit_item", "TI-3"): {"location_id": "D-2", "part_id": "P-2", "on_hand": "9"},
    ("toolkit_item", "TI-4"): {"location_id": "B-1", "part_id": "P-2", "on_hand": "7"},
    ("toolkit_item", "TI-5"): {"location_id": "X-1", "part_id": "P-2", "on_hand": "1"},
}

_CANARY_FIELDS: Final = {
    "location": "name", "technician": "name", "part": "name", "work_order": "title", "task": "title", "note": "text",
    "toolkit_item": "lot", "part_consumption": "reason",
}  # fmt: skip


def with_canary(entity: str, values: Mapping[str, Any], canary: str) -> dict[str, Any]:
    """`values` with a text by which its bytes are found again."""
    name = _CANARY_FIELDS[entity]
    return {**values, name: f"{values.get(name) or ''} {canary}".strip()}


def device_actor(name: str, technician: str, records: Mapping[Key, Record]) -> Actor:
    """A device with the scopes that its technician's record gives it now."""
    depot = records[Key("technician", technician)].data.get("depot_id")
    scopes = (f"tech:{technician}", *((f"stock:{depot}",) if depot else ()), "catalog:all")
    return Actor("device", name, TECHNICIAN, "device", scopes, technician)
