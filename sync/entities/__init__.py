"""The list of synced entities, one file each, in the order in which they refer to each other.

Importing this package declares them all and checks that their references and scopes lead somewhere.
"""

from __future__ import annotations

# isort: off
from sync.entities.technician import Technician
from sync.entities.location import Location
from sync.entities.part import Part
from sync.entities.work_order import WorkOrder
from sync.entities.task import Task
from sync.entities.note import Note
from sync.entities.toolkit_item import ToolkitItem
from sync.entities.part_consumption import PartConsumption
from sync.entities.discrepancy import Discrepancy
from sync.entities.rma import Rma
from sync.entity import ENTITY_TYPES, check_references
# isort: on

check_references()

__all__ = [
    "ENTITY_TYPES",
    "Discrepancy",
    "Location",
    "Note",
    "Part",
    "PartConsumption",
    "Rma",
    "Task",
    "Technician",
    "ToolkitItem",
    "WorkOrder",
]
