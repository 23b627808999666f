"""Mutations that waited whole: applied when the record they waited for appears, or when a person says so.

They are applied in (replica, n) order as their senders, with the times they were given when they came.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from sync.admit import Hindrance, Surroundings, hindrance, id_taken, is_fact
from sync.cases import case_id_of
from sync.clock import HUB, Dot, next_version
from sync.hub import note
from sync.merge import Stamp, merge
from sync.record import Key, Record
from sync.store import Batch, Waiting
from sync.view import Sender, View, blank, place


def release(sender: Sender, view: View, batch: Batch) -> None:
    """Apply what waited for records that this push brought (back) into being, as far as its senders may do it now."""
    appeared = {key for key, before in batch.before.items() if before is None and key in batch.records}
    anew = {waited.name for waited in batch.waiting}
    stored = [w for w in view.waiting if w.name not in anew]
    settled = {*batch.released, *batch.dropped}
    held = [w for w in (*stored, *_newly_awaiting(view, batch)) if w.name not in settled]
    stuck: set[tuple[str, Key]] = set()
    ready: set[tuple[str, int]] = set()
    for waited in in_order(w for w in held if w.mutation.key in appeared):
        lane = (waited.replica, waited.mutation.key)
        # What follows something that has to wait on waits with it: it was written on top of that. And the members of a
        # group go together, as a person decides.
        if lane in stuck or waited.mutation.is_grouped or obstacle_of(waited, view):
            stuck.add(lane)
        else:
            ready.add(waited.name)
            apply_waiting(waited, sender.epoch, view, batch)
    left = {w.case_id for w in held if w.name not in ready}
    left |= {case.id for case in batch.cases if case.fields}  # what was let pass met something else there
    batch.superseded += sorted({w.case_id for w in held if w.name in ready} - left)


def _newly_awaiting(view: View, batch: Batch) -> Iterator[Waiting]:
    cases = {w.case_id for w in view.waiting} | {case.id for case in batch.cases if case.type == "awaiting_record"}
    return (waited for waited in batch.waiting if waited.case_id in cases)


def obstacle_of(waited: Waiting, view: View, granted: Collection[tuple[str, Key]] = ()) -> Hindrance | None:
    """What would stop its sender now? Nothing but its shape was looked at when it came.

    granted: (replica, record) to which a person let a replica, whether it is within its sender's reach or not.
    """
    fact = is_fact(waited.mutation)

    def reachable(key: Key) -> Record | None:
        record = view.records.get(key)
        near = record and (waited.actor.sees(record.scopes) or (waited.replica, key) in granted)
        return record if near or (fact and (key, waited.at) in view.within) else None

    was = waited.mutation.was or {}
    around = Surroundings(waited.actor, reachable, view.blocked.get, view.awaiting.get, was)
    taken = view.records.get(waited.mutation.key) and reachable(waited.mutation.key) is None
    return hindrance(waited.mutation, around) or (id_taken() if taken else None)


def in_order(waiting: Iterable[Waiting]) -> list[Waiting]:
    """As their senders numbered them."""
    return sorted(waiting, key=lambda w: w.name)


def apply_waiting(waited: Waiting, epoch: int, view: View, batch: Batch, *, decided: bool = False) -> None:
    """Merge a waiting mutation without asking again what made it wait.

    decided: a person who saw the record let it pass, so it follows all that stands there.
    """
    mutation = waited.mutation
    before = view.records.get(mutation.key)
    start = before or blank(mutation.key)
    if decided:
        mutation = replace(mutation, base={**mutation.base, HUB: start.version})
    origin = mutation.named(waited.replica)
    dot = Dot(next_version(start.version, epoch), *_sent_by(waited, batch.before.get(mutation.key, before)))
    stamp = Stamp(dot, origin, waited.at, waited.actor.system, waited.suspect, case_id_of(waited.replica, mutation.n))
    merged = merge(start, mutation, mutation.was or {}, stamp)
    # Whoever lets an edit of a deleted record pass wants the record back.
    gone = merged.record.deleted if mutation.op == "delete" else None
    merged = replace(merged, record=place(replace(merged.record, deleted=gone), view.records.get, batch.now))
    batch.before.setdefault(mutation.key, before)
    batch.records[mutation.key] = view.records[mutation.key] = merged.record
    note(mutation, before, merged, stamp, Sender(waited.actor, waited.replica, batch.now, epoch), batch)
    batch.released.append(waited.name)


def _sent_by(waited: Waiting, before: Record | None) -> tuple[str | None, int]:
    """By which number of its replica the write is known; by none if the record was there while it waited."""
    # Then the replica's later work may have been merged and pulled meanwhile, and a clock that names it would cover
    # this one too, which nobody has seen.
    return (waited.replica, waited.mutation.n) if before is None else (None, 0)
