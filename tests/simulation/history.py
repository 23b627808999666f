"""A history as a list of steps, made from a seed before anything runs.

Each step brings its own chance, so that leaving others out (`shrink`) does not change what it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

WEIGHTS: Final = {
    "edit": 30,
    "group": 5,
    "sync": 32,
    "crash_in_capture": 3,
    "crash_in_sync": 5,
    "clone": 2,
    "clock_jump": 3,
    "late_request": 4,
    "office_write": 11,
    "office_delete": 3,
    "office_create": 3,
    "reassignment": 4,
    "technician_moved": 3,
    "stock": 3,
    "review": 4,
    "backup": 3,
    "durable": 2,
    "epoch_rotation": 1.5,
}
"""What happens how often. Names of faults among them are counted under these names."""

FAULTS: Final = (
    "drop_request",
    "drop_answer",
    "duplicate_request",
    "late_request",
    "hub_fails_before_commit",
    "hub_fails_after_commit",
    "crash_in_capture",
    "crash_in_sync",
    "clone",
    "clone_of_the_whole_phone",
    "clock_jump",
    "office_delete",
    "reassignment",
    "technician_moved",
    "epoch_rotation",
    "replica_forked",
    "mutation_gap",
    "page_of_one",
    "parked",
    "group_refused",
)
"""What a run has to have seen: faults, and rare answers that show that they mattered."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens. place: in the history as it was made, kept when others are left out. device: taken modulo
    the number of devices that there are by then."""

    place: int
    kind: str
    device: int
    wait_ms: int

    def __str__(self) -> str:
        return f"{self.place:3} {self.kind} (device {self.device}, {self.wait_ms / 1000:g} s later)"


def plan(seed: int, steps: int) -> list[Step]:
    """The steps of history `seed`."""
    chance = Random(f"history {seed}")
    kinds = chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=steps)
    return [
        Step(place, kind, chance.randrange(1_000), int(1000 * 10 ** chance.uniform(0, 4.5)))
        for place, kind in enumerate(kinds)
    ]
