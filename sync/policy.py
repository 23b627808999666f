"""Conflict policies: which of several concurrent writes of one field stands?

A policy is a function of the *set* of writes that no later write has seen. It never learns in which order they arrived,
so every hub and every replay comes to the same answer. Ties end in the origin of the mutation and, for two databases
that were one before they were copied, in the value's canonical text; never in a hub version, which is arrival order.

Only while a person is asked does arrival show: then the value that stood keeps standing.
Counters, logs and sets have no entry that decides: their writes commute (see `sync.merge`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sync.canonical import canonical
from sync.merge3 import merge_texts
from sync.moments import format_moment, parse_moment
from sync.record import MISSING, Write

if TYPE_CHECKING:
    from sync.entity import Field, StateMachine

SKEW_BOUND_MS = 120_000  # two device clocks nearer than this cannot be told apart; phones on a network stay inside


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy says.

    winner: the write that stands; None if `value` combines several, or if a person must decide.
    """

    value: Any = MISSING
    winner: Write | None = None
    why: str = ""

    @property
    def waits(self) -> bool:
        """Must a person decide?"""
        return self.winner is None and self.value is MISSING


Decide = Callable[[Sequence[Write], "Field"], Verdict]


def _stands(winner: Write, why: str) -> Verdict:
    return Verdict(winner.value, winner, why)


def _tie(write: Write) -> tuple[str, int, str]:
    return (*write.origin, canonical(write.value))


def _place(write: Write) -> tuple[int, tuple[str, int, str]]:
    """Writes in the order in which they happened."""
    return (write.at, _tie(write))


def _latest(writes: Sequence[Write], why: str) -> Verdict:
    """The one that happened last, unless a clock among them cannot be trusted."""
    trusted = [write for write in writes if not write.suspect] or writes
    winner = max(trusted, key=_place)
    # Whoever says the same as the winner changes nothing, whenever that was.
    if any(write.suspect and write.value != winner.value for write in writes):
        return Verdict(why="the clock of one of the writers was wrong, so no rule can tell which came last")
    return _stands(winner, f"{why}, written {format_moment(winner.at)}")


def last_writer(writes: Sequence[Write], field: Field) -> Verdict:
    """The write that happened last. For preferences and text of low harm."""
    return _latest(writes, "the latest one stands")


def owner_wins(writes: Sequence[Write], field: Field) -> Verdict:
    """The owning system's word; without one, the latest."""
    return _of_system(writes, field.owner or "", f"{field.owner} owns this field")


def device_wins(writes: Sequence[Write], field: Field) -> Verdict:
    """What was seen on site beats what the office wrote; without it, the latest."""
    return _of_system(writes, "device", "what was observed on site stands")


def _of_system(writes: Sequence[Write], system: str, why: str) -> Verdict:
    owned = [write for write in writes if write.system == system]
    return _latest(owned or writes, why if owned else "no owner wrote it, so the latest one stands")


def largest(writes: Sequence[Write], field: Field) -> Verdict:
    """The largest value: meters only run forward."""
    return _stands(max(writes, key=lambda write: (_size(write), _tie(write))), "the largest value stands")


def smallest(writes: Sequence[Write], field: Field) -> Verdict:
    """The smallest value, such as the first moment at which something was true."""
    known = [write for write in writes if write.value is not None] or list(writes)
    return _stands(min(known, key=lambda write: (_size(write), _tie(write))), "the smallest value stands")


def _size(write: Write) -> tuple[bool, Any]:
    """Values in their own order, null below all."""
    value = write.value
    if isinstance(value, str):
        try:
            return (True, Decimal(value))
        except ArithmeticError:
            return (True, Decimal(parse_moment(value)))  # points in time, whatever their offsets
    return (value is not None, Decimal(value or 0))


def state_machine(writes: Sequence[Write], field: Field) -> Verdict:
    """The state furthest along the declared precedence, unless it is contested by another one in the set."""
    machine = field.states
    assert machine is not None, "checked when the entity was declared"
    rank = {name: place for place, name in enumerate(machine.precedence)}
    winner = max(writes, key=lambda write: (rank.get(write.value, -1), _place(write)))
    reason = _contested(machine, winner, writes)
    return Verdict(why=reason) if reason else _stands(winner, f"{winner.value} takes precedence")


def _contested(machine: StateMachine, winner: Write, writes: Sequence[Write]) -> str | None:
    """Why a person must choose between the winner's state and another one in the set, None if the rule may."""
    for contest in machine.contests:
        first, second = ([write for write in writes if write.value == state] for state in contest.states)
        if winner.value not in contest.states or not first or not second:
            continue
        by_time = contest.earlier_wins and winner.value == contest.states[0]
        if not by_time or not _came_first(first, second):
            both = sorted((min(first, key=_place), min(second, key=_place)), key=_place)
            times = ", ".join(f"{write.value} at {format_moment(write.at)}" for write in both)
            return f"{times}: a person has to decide which holds"
    return None


def _came_first(first: Sequence[Write], second: Sequence[Write]) -> bool:
    """Did it certainly happen before the other? Once is enough: what was done twice was done at the first time."""
    known = [write.at for write in first if not write.suspect]
    trusted = bool(known) and not any(write.suspect for write in second)
    return trusted and min(known) + SKEW_BOUND_MS < min(write.at for write in second)


def merge3(writes: Sequence[Write], field: Field) -> Verdict:
    """Three-way merge of texts that were changed in different lines; otherwise a person decides."""
    ancestors = {canonical(write.was) for write in writes if isinstance(write.was, str)}
    if len(ancestors) == 1 and all(isinstance(write.was, str) and isinstance(write.value, str) for write in writes):
        merged = merge_texts(str(writes[0].was), [write.value for write in writes])
        if merged is not None:
            return Verdict(merged, None, "both changed different lines of the text")
    return review(writes, field)


def review(writes: Sequence[Write], field: Field) -> Verdict:
    """A person decides."""
    return Verdict(why=f"{field.name} was changed in two places at once; a person has to choose")


def commutes(writes: Sequence[Write], field: Field) -> Verdict:
    """Never asked: every write of a counter, log or set is kept."""
    raise AssertionError(f"{field.name}: writes that commute are never in conflict")


POLICIES: dict[str, Decide] = {
    "owner_wins": owner_wins,
    "last_writer": last_writer,
    "device_wins": device_wins,
    "largest": largest,
    "smallest": smallest,
    "state_machine": state_machine,
    "merge3": merge3,
    "review": review,
    "counter": commutes,
    "log": commutes,
    "add_wins_set": commutes,
}
"""The registry: the only place where a policy is added."""
