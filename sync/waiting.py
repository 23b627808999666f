"""Mutations that waited whole: applied when the record they waited for appears, or when a person says so.

They are applied in (replica, n) order as their senders, with the times they were given when they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sync.clock import Dot, next_version
from sync.hub import Sender, View, blank, case_id_of, merge, note, place
from sync.merge import Stamp
from sync.store import Batch, Waiting


def release(sender: Sender, view: View, batch: Batch) -> None:
    """Apply what waited for records that this push brought (back) into being."""
    appeared = {key for key, before in batch.before.items() if before is None and key in batch.records}
    if not appeared:
        return
    ready = [
        w for w in view.waiting if w.mutation.key in appeared and w.actor.sees(batch.records[w.mutation.key].scopes)
    ]
    apply_waiting(ready, sender.epoch, view, batch)
    batch.superseded += sorted({w.case_id for w in ready})


def apply_waiting(ready: Sequence[Waiting], epoch: int, view: View, batch: Batch) -> None:
    """Merge waiting mutations without asking again what made them wait."""
    for waited in sorted(ready, key=lambda w: (w.replica, w.mutation.n)):
        mutation = waited.mutation
        before = view.records.get(mutation.key)
        start = before or blank(mutation.key)
        origin = mutation.named(waited.replica)
        dot = Dot(next_version(start.version, epoch), waited.replica, mutation.n)
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
