"""Merging one mutation into one record: the heart of the hub, and a pure function.

Each field is merged by itself. A write whose base contains everything written to the field before simply follows it.
Otherwise the policy of the field decides over the whole set of writes that no later write has seen (`sync.policy`);
counters, logs and sets take every write, because theirs commute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

from sync.canonical import canonical
from sync.clock import HUB, Clock, Dot, Origin, contains
from sync.entities import ENTITY_TYPES
from sync.entity import EntityType, Field
from sync.mutation import Decision, Kept, Mutation
from sync.policy import POLICIES
from sync.record import MISSING, FieldState, Record, Write, uncovered

RECORD = "*"
"""Stands in a decision for the record as a whole, where an edit met a deletion."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """How a mutation's writes are named. at: clamped, ms. case_id: the review case to open if something has to wait."""

    dot: Dot
    origin: Origin
    at: int
    system: str
    suspect: bool
    case_id: str


class FieldChange(NamedTuple):
    """What became of one field. decision: None if nobody else had written it."""

    name: str
    before: Any
    after: Any
    sent: Any
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class Merged:
    """The outcome. opened: fields that began to wait in `Stamp.case_id`. joined: cases of fields that went on waiting.
    closed: cases that this write made pointless."""

    record: Record
    changes: tuple[FieldChange, ...] = ()
    opened: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()

    @property
    def decisions(self) -> tuple[Decision, ...]:
        return tuple(change.decision for change in self.changes if change.decision)

    @property
    def waits(self) -> bool:
        """Does a field of this mutation wait for a person?"""
        return any(decision.kept == "waiting" for decision in self.decisions)


def merge(record: Record, mutation: Mutation, was: Mapping[str, Any], stamp: Stamp) -> Merged:
    """One mutation merged into its record, deletions and edits of deleted records included."""
    entity = ENTITY_TYPES[mutation.entity]
    if mutation.op == "delete":
        return merge_delete(entity, record, mutation.base, stamp)
    base: Clock = mutation.base
    merged = merge_patch(entity, record, mutation.patch, base, was, stamp)
    if record.deleted is None:
        return merged
    # Only an edit that did not know of the deletion comes this far (sync.admit).
    returns = entity.on_delete == "edit_resurrects"
    why = (
        "it was edited by somebody who did not know of its deletion"
        if returns
        else "it was deleted meanwhile; the edit is in the history"
    )
    decision = Decision(RECORD, entity.on_delete, "incoming" if returns else "current", why)
    alive = replace(merged.record, deleted=None) if returns else merged.record
    return replace(
        merged, record=alive, changes=(*merged.changes, FieldChange(RECORD, True, not returns, False, decision))
    )


def merge_patch(
    entity: EntityType, record: Record, patch: Mapping[str, Any], base: Clock, was: Mapping[str, Any], stamp: Stamp
) -> Merged:
    """`record` with `patch` merged in, at version `stamp.dot.version`.

    base: what the writer had seen. was: what the patched fields showed when it was captured, as far as that is known.
    """
    data, fields = dict(record.data), dict(record.fields)
    changes, cases_before = [], _cases(record)
    for name, sent in patch.items():
        spec = entity.fields.get(name) or _unknown(name)
        before = data.get(name)
        data[name], fields[name], decision = _merge_field(
            spec, fields.get(name), before, sent, base, was.get(name, MISSING), stamp
        )
        changes.append(FieldChange(name, before, data[name], sent, decision))
    after = replace(record, version=stamp.dot.version, data=data, fields=fields)
    waiting = {c.name: c.decision for c in changes if c.decision and c.decision.kept == "waiting"}
    return Merged(
        record=after,
        changes=tuple(changes),
        opened=tuple(name for name in waiting if fields[name].case == stamp.case_id),
        joined=tuple(sorted({case for name in waiting if (case := fields[name].case) and case != stamp.case_id})),
        closed=tuple(sorted(cases_before - _cases(after))),
    )


def merge_delete(entity: EntityType, record: Record, base: Clock, stamp: Stamp) -> Merged:
    """`record` deleted, or what the entity's rule says if somebody wrote to it unseen."""
    if record.deleted:
        return Merged(record)
    if not record.unseen(base):
        return Merged(replace(record, version=stamp.dot.version, deleted=stamp.dot))
    if entity.on_delete == "delete_wins":
        decision = Decision(
            RECORD, "delete_wins", "incoming", "deleted although it was edited elsewhere; the edit is in the history"
        )
        gone = replace(record, version=stamp.dot.version, deleted=stamp.dot)
        return Merged(gone, (_whole(record, decision),))
    if entity.on_delete == "edit_resurrects":
        decision = Decision(
            RECORD, "edit_resurrects", "current", "kept, because somebody edited it without knowing of the deletion"
        )
        return Merged(replace(record, version=stamp.dot.version), (_whole(record, decision),))
    decision = Decision(
        RECORD, "review", "waiting", "somebody edited it meanwhile; a person has to decide whether it goes"
    )
    return Merged(record, (_whole(record, decision),), opened=(RECORD,))


def _whole(record: Record, decision: Decision) -> FieldChange:
    return FieldChange(RECORD, record.deleted is not None, decision.kept == "incoming", True, decision)


def _cases(record: Record) -> set[str]:
    return {state.case for state in record.fields.values() if state.case}


def _unknown(name: str) -> Field:
    """A field that a newer peer declared: kept, and merged with care."""
    return Field(name=name, type="object", policy="merge3")


Merging = tuple[Any, FieldState, Decision | None]


def _merge_field(
    spec: Field, state: FieldState | None, current: Any, sent: Any, base: Clock, was: Any, stamp: Stamp
) -> Merging:
    if spec.policy == "counter":
        return _count(state, current, sent, base, stamp)
    if spec.policy == "log":
        return _append(state, current, sent, base, stamp)
    if spec.policy == "add_wins_set":
        return _add_and_remove(state, sent, base, stamp)
    return _replace_value(spec, state, current, sent, base, was, stamp)


def _replace_value(
    spec: Field, state: FieldState | None, current: Any, sent: Any, base: Clock, was: Any, stamp: Stamp
) -> Merging:
    ancestor = _ancestor(spec, state, base, was, stamp)
    write = Write(sent, stamp.dot, stamp.origin, stamp.at, stamp.system, stamp.suspect, ancestor)
    survivors = tuple(w for w in state.writes if not contains(base, w.dot)) if state else ()
    if state is None or not survivors:
        return sent, FieldState(stamp.dot, (write,)), None
    # Sorted by name, so that what is stored does not tell the order of arrival either.
    writes = tuple(sorted((*survivors, write), key=lambda w: (w.origin, w.dot)))
    still_stands = not contains(base, state.standing)
    if all(same(w.value, sent) for w in survivors):
        keeps = still_stands and same(sent, current)
        return sent, FieldState(state.standing if keeps else stamp.dot, writes), None

    verdict = POLICIES[spec.policy](writes, spec)
    if verdict.waits:
        value, standing = (current, state.standing) if still_stands else (sent, stamp.dot)
        if still_stands and same(sent, current):
            return value, FieldState(standing, writes, case=state.case), None
        waiting = FieldState(standing, writes, case=state.case or stamp.case_id)
        return value, waiting, Decision(spec.name, spec.policy, "waiting", verdict.why)
    if verdict.winner is None:
        combined = FieldState(Dot(stamp.dot.version), writes)
        return verdict.value, combined, Decision(spec.name, spec.policy, "combined", verdict.why)
    stands = FieldState(verdict.winner.dot, writes)
    if same(verdict.value, sent) and same(current, sent):
        return verdict.value, stands, None
    kept: Kept = "incoming" if same(verdict.value, sent) else "current"
    return verdict.value, stands, Decision(spec.name, spec.policy, kept, verdict.why)


def _ancestor(spec: Field, state: FieldState | None, base: Clock, was: Any, stamp: Stamp) -> Any:
    """What a three-way merge takes as the common ancestor: the text that the device had last pulled."""
    if spec.policy != "merge3" or spec.type != "text":
        return MISSING
    # The device's own earlier edit, not pulled since, is one change with this one; its ancestor is theirs.
    chained = (w for w in state.writes if w.dot.replica == stamp.dot.replica is not None) if state else ()
    for own in chained:
        if own.dot.version > base.get(HUB, 0) and own.dot.n <= base.get(own.dot.replica or "", 0):
            return own.was
    if isinstance(was, str) and 0 < spec.max_length < len(was):
        return MISSING  # no device ever showed that
    return "" if was is None else was


def same(one: Any, other: Any) -> bool:
    """Are two wire values equal? (1 and true are not.)"""
    return one is other or canonical(one) == canonical(other)


def _count(state: FieldState | None, current: Any, sent: Any, base: Clock, stamp: Stamp) -> Merging:
    # A create that meets an existing record counts from nothing, so its plain value is an increment as well.
    by = sent["$inc"] if isinstance(sent, Mapping) else (sent or "0")
    with localcontext(prec=60):
        total = Decimal(current or "0") + Decimal(by)
    return format(total, "f"), FieldState(Dot(stamp.dot.version), dots=_named(state, base, stamp)), None


def _append(state: FieldState | None, current: Any, sent: Any, base: Clock, stamp: Stamp) -> Merging:
    new = sent["$append"] if isinstance(sent, Mapping) else (sent or [])
    held, keys = state.keys if state else (), tuple((stamp.at, *stamp.origin, place) for place in range(len(new)))
    places, entries = (*held, *keys), [*(current or ()), *new]
    if held and keys and keys[0] < held[-1]:  # otherwise it happened last, and a long log is not sorted again
        order = sorted(range(len(places)), key=places.__getitem__)
        places, entries = tuple(places[i] for i in order), [entries[i] for i in order]
    return entries, FieldState(Dot(stamp.dot.version), dots=_named(state, base, stamp), keys=places), None


def _add_and_remove(state: FieldState | None, sent: Any, base: Clock, stamp: Stamp) -> Merging:
    held = dict(state.elements) if state else {}
    if isinstance(sent, Mapping):
        added, removed = sent.get("$add", ()), sent.get("$remove", ())
    else:
        added, removed = sent or (), [element for element in held if element not in (sent or ())]
    for element in removed:
        held[element] = uncovered(held.get(element, ()), base)
    for element in added:
        held[element] = (*uncovered(held.get(element, ()), base), stamp.dot)
    elements = tuple(sorted((element, dots) for element, dots in held.items() if dots))
    after = FieldState(Dot(stamp.dot.version), dots=_named(state, base, stamp), elements=elements)
    return [element for element, _ in elements], after, None


def _named(state: FieldState | None, base: Clock, stamp: Stamp) -> tuple[Dot, ...]:
    return (*uncovered(state.dots if state else (), base), stamp.dot)
