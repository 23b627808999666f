"""A failing history made shorter: steps are left out as long as the same invariant still breaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.simulation.history import Step
from tests.simulation.violation import Violation

Try = Callable[[Sequence[Step]], "Violation | None"]
"""Plays a history; the violation that it ends in, if any."""


def shrink(steps: Sequence[Step], violation: Violation, try_: Try, budget: int = 400) -> tuple[list[Step], Violation]:
    """The shortest history found, and how it ends. budget: at most so many histories are played."""
    kept, size = list(steps), max(1, len(steps) // 2)
    while size and budget:
        start, shorter = 0, False
        while start < len(kept) and budget:
            without = kept[:start] + kept[start + size :]
            budget -= 1
            found = try_(without)
            if found is not None and found.invariant == violation.invariant:
                kept, violation, shorter = without, found, True
            else:
                start += size
        if not shorter or size > 1:
            size = size // 2 if size > 1 else int(shorter)
    return kept, violation
