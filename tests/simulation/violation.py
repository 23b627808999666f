"""What is raised when an invariant does not hold."""

from __future__ import annotations


class Violation(AssertionError):
    """An invariant broke. invariant: its id and name, such as "I1 converge"."""

    def __init__(self, invariant: str, detail: str) -> None:
        self.invariant, self.detail = invariant, detail
        super().__init__(f"{invariant}: {detail}")


def demand(holds: object, invariant: str, detail: str) -> None:
    """Raise Violation unless `holds`."""
    if not holds:
        raise Violation(invariant, detail)
