"""Mutations that waited whole: applied when the record they waited for appears, or when a person says so.

They are applied in (replica, n) order as their senders, with the times they were given when they came.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from sync.admit import Surroundings, hindrance
from sync.clock import Dot, next_version
from sync.hub import Sender, View, blank, case_id_of, merge, note, place
from sync.merge import Stamp
from sync.record import Key, Record
from sync.store import Batch, Waiting


def release(sender: Sender, view: View, batch: Batch) -> None:
    """Apply what waited for records that this push brought (back) into being, as far as its senders may do it now."""
    appeared = {key for key, before in batch.before.items() if before is None and key in batch.records}
    stuck: set[tuple[str, Key]] = set()
    ready = []
    for waited in _in_order(w for w in view.waiting if w.mutation.key in appeared):
        lane = (waited.replica, waited.mutation.key)
        # What follows something that has to wait on waits with it: it was written on top of that.
        if lane in stuck or _obstructed(waited, view):
            stuck.add(lane)
        else:
            ready.append(waited)
            apply_waiting([waited], sender.epoch, view, batch)
    left = {w.case_id for w in view.waiting if w not in ready}
    batch.superseded += sorted({w.case_id for w in ready} - left)


def _obstructed(waited: Waiting, view: View) -> bool:
    """Would its sender be stopped now? Nothing but its shape was looked at when it came."""

    def reachable(key: Key) -> Record | None:
        record = view.records.get(key)
        return record if record and waited.actor.sees(record.scopes) else None

    was = waited.mutation.was or {}
    around = Surroundings(waited.actor, reachable, view.blocked.get, view.awaiting.get, was)
    return hindrance(waited.mutation, around) is not None


def _in_order(waiting: Iterable[Waiting]) -> list[Waiting]:
    return sorted(waiting, key=lambda w: (w.replica, w.mutation.n))


def apply_waiting(ready: Sequence[Waiting], epoch: int, view: View, batch: Batch) -> None:
    """Merge waiting mutations without asking again what made them wait."""
    for waited in _in_order(ready):
        mutation = waited.mutation
        before = view.records.get(mutation.key)
        start = before or blank(mutation.key)
        origin = mutation.named(waited.replica)
        dot = Dot(next_version(start.version, epoch), *_sent_by(waited, batch.before.get(mutation.key, before)))
        stamp = Stamp(
            dot, origin, waited.at, waited.actor.system, waited.suspect, case_id_of(waited.replica, mutation.n)
        )
        merged = merge(start, mutation, mutation.was or {}, stamp)
        # Whoever lets an edit of a deleted record pass wants the record back.
        gone = merged.record.deleted if mutation.op == "delete" else None
        merged = replace(merged, record=place(replace(merged.record, deleted=gone), view.records.get, batch.now))
        batch.before.setdefault(mutation.key, before)
        batch.records[mutation.key] = view.records[mutation.key] = merged.record
        sender = Sender(waited.actor, waited.replica, batch.now, epoch)
        note(mutation, before, merged, stamp, sender, batch)
        batch.released.append((waited.replica, mutation.n))


def _sent_by(waited: Waiting, before: Record | None) -> tuple[str | None, int]:
    """By which number of its replica the write is known; by none if the record was there while it waited."""
    # Then the replica's later work may have been merged and pulled meanwhile, and a clock that names it would cover
    # this one too, which nobody has seen.
    return (waited.replica, waited.mutation.n) if before is None else (None, 0)
