"""A whole push in memory: from mutations and the records they touch to results and everything that is to be written.

Pure: a shell loads what `sync.view.reaching` names, calls `merge_push`, and saves the `Batch`. Mutation 7 sees what 6
did. One bad mutation never blocks its successors; the members of a group go together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sync.admit import Hindrance, Surroundings, hindrance, id_taken, is_fact
from sync.cases import case_id_of, open_fields, open_whole
from sync.clock import HUB, Clock, Dot, Origin, contains, next_version
from sync.entities import ENTITY_TYPES
from sync.merge import RECORD, Merged, Stamp, merge
from sync.mutation import Mutation, Problem, Result
from sync.record import MISSING, Key, Record
from sync.scopes import references
from sync.store import Batch, HistoryEntry, Times, Waiting
from sync.view import Sender, View, blank, clamp, place
from sync.wire import record_to_wire


def merge_push(mutations: Sequence[Mutation], sender: Sender, view: View, times: Times, batch: Batch) -> list[Result]:
    """Merge `mutations` in order into `view` and note in `batch` what has to be written. One result each."""
    results: list[Result] = []
    lower = sender.last_at
    for group in _groups(mutations):
        moments = []
        for mutation in group:
            at, suspect = sender.now, False
            if not mutation.fault:
                at, suspect, lower = clamp(mutation, lower, times, sender.now)
            moments.append((at, suspect))
        results += _merge_group(group, moments, sender, view, batch)
    if batch.replica:
        batch.replica = replace(batch.replica, last_at=lower)
    return results


def _groups(mutations: Sequence[Mutation]) -> list[list[Mutation]]:
    groups: list[list[Mutation]] = []
    for mutation in mutations:
        if groups and mutation.group is not None and groups[-1][-1].group == mutation.group:
            groups[-1].append(mutation)
        else:
            groups.append([mutation])
    return groups


def _merge_group(
    group: list[Mutation], moments: list[tuple[int, bool]], sender: Sender, view: View, batch: Batch
) -> list[Result]:
    """All members, or none: if one cannot be merged, those before it are taken back."""
    trial = _Trial(sender, view)
    for mutation, (at, suspect) in zip(group, moments, strict=True):
        obstacle = trial.attempt(mutation, at, suspect)
        if obstacle:
            return _refuse(group, moments, mutation, obstacle, sender, view, batch)
    return trial.keep(batch)


@dataclass(slots=True)
class _Trial:
    """Members of one group, merged beside the view until all of them went through."""

    sender: Sender
    view: View
    records: dict[Key, Record] = field(default_factory=dict)
    outcomes: list[tuple[Mutation, Record | None, Merged, Stamp]] = field(default_factory=list)

    def record(self, key: Key) -> Record | None:
        return self.records.get(key) or self.view.records.get(key)

    def reachable(self, key: Key, at: int, fact: bool) -> Record | None:
        record = self.record(key)
        if record is None or self.sender.actor.sees(record.scopes):
            return record
        return record if fact and (key, at) in self.view.within else None

    def attempt(self, mutation: Mutation, at: int, suspect: bool) -> Hindrance | None:
        """Merge one mutation, or say what is in its way."""
        if mutation.fault:
            return Hindrance(mutation.fault, type="unreadable")
        origin = mutation.named(self.sender.replica)
        if self.sender.sealed:
            return Hindrance(
                Problem("device_lost", "It came from a device that was reported lost."), True, "device_lost"
            )
        fact, was = is_fact(mutation), self._was(mutation)
        around = Surroundings(
            self.sender.actor,
            lambda key: self.reachable(key, at, fact),
            self.view.blocked.get,
            self.view.awaiting.get,
            was,
        )
        obstacle = hindrance(mutation, around)
        if obstacle:
            return obstacle
        before = self.record(mutation.key)
        if before is not None and self.reachable(mutation.key, at, fact) is None:
            return id_taken()
        start = before or blank(mutation.key)
        dot = Dot(next_version(start.version, self.sender.epoch), *self._sent_by(mutation))
        case_id = case_id_of(self.sender.replica, mutation.n)
        stamp = Stamp(dot, origin, at, self.sender.actor.system, suspect, case_id)
        merged = merge(start, mutation, was, stamp)
        merged = replace(merged, record=self._placed(merged.record))
        if before is None and not self._lands_in_reach(merged.record, at, fact):
            return Hindrance(
                Problem("out_of_reach", "It would not be among the records that you work with."), type="out_of_reach"
            )
        self.records[mutation.key] = merged.record
        self.outcomes.append((mutation, before, merged, stamp))
        self._cause(before, merged.record, origin, stamp)
        return None

    def _lands_in_reach(self, record: Record, at: int, fact: bool) -> bool:
        """A new record must be the sender's, or a fact about something that was the sender's when it happened."""
        above = references(ENTITY_TYPES[record.entity], record.data)
        return self.sender.actor.sees(record.scopes) or (fact and any((key, at) in self.view.within for key in above))

    def _sent_by(self, mutation: Mutation) -> tuple[str | None, int]:
        return (None, 0) if self.sender.replica == HUB else (self.sender.replica, mutation.n)

    def _was(self, mutation: Mutation) -> dict[str, Any]:
        """What the patched fields showed at capture: as sent, or as the history at the base tells."""
        was = {**(mutation.was or {})}
        record = self.record(mutation.key)
        for name in mutation.patch:
            if name in was:
                continue
            known = self.view.shown.get((mutation.key, mutation.base.get(HUB, 0), name), MISSING)
            state = record.fields.get(name) if record else None
            if record and (state is None or contains(mutation.base, state.standing)):
                known = record.data.get(name)
            if known is not MISSING:
                was[name] = known
        return was

    def _placed(self, record: Record) -> Record:
        return place(record, self.record, self.sender.now)

    def _cause(self, before: Record | None, after: Record, origin: Origin, stamp: Stamp) -> None:
        """Run the entity's effects (design: pure, beside the declaration); their writes are nobody's but the hub's."""
        for effect in ENTITY_TYPES[after.entity].effects(before, after, origin, self.record):
            held = self.record(effect.key)
            start = held or blank(effect.key)
            dot = Dot(next_version(start.version, self.sender.epoch))
            derived = Mutation(
                0, effect.key.entity, effect.key.id, "update", effect.patch, base=start.clock, was=start.data
            )
            merged = merge(start, derived, start.data, replace(stamp, dot=dot))
            merged = replace(merged, record=self._placed(merged.record))
            self.records[effect.key] = merged.record
            self.outcomes.append((derived, held, merged, replace(stamp, dot=dot)))

    def keep(self, batch: Batch) -> list[Result]:
        """Take the members over into the view and the batch."""
        for key, record in self.records.items():
            batch.before.setdefault(key, self.view.records.get(key))
            batch.records[key] = self.view.records[key] = record
        return [r for outcome in self.outcomes if (r := note(*outcome, self.sender, batch)) is not None]


def note(
    mutation: Mutation, before: Record | None, merged: Merged, stamp: Stamp, sender: Sender, batch: Batch
) -> Result | None:
    """Note history and cases of one merged mutation; its result, None for an effect."""
    after = merged.record
    batch.superseded += merged.closed
    review = open_fields(mutation, merged, stamp, sender, batch)
    if merged.changes or after.version != (before.version if before else 0):
        batch.history.append(_entry(mutation, before, merged, stamp, sender, review))
    if mutation.n == 0:
        return None  # an effect
    decisions, readable = merged.decisions, sender.actor.sees(after.scopes)
    status = "parked" if merged.waits else "merged" if decisions else "applied"
    covered = before is None or not _holds_unseen(before, mutation.base)
    shown = readable and (status != "applied" or not covered)
    return Result(
        n=mutation.n,
        status=status,  # type: ignore[arg-type]  # one of the four words by construction
        version=after.version if readable else None,
        clock=after.clock if readable else None,
        # Whoever may not read the record learns that it was decided, not what it holds by now.
        decisions=decisions if readable else tuple(replace(one, why="") for one in decisions),
        review_id=review,
        record=record_to_wire(after) if shown else None,
    )


def _holds_unseen(record: Record, base: Clock) -> bool:
    """Did the record hold anything that the sender had not seen?"""
    stamps = [*(state.standing for state in record.fields.values()), *((record.deleted,) if record.deleted else ())]
    return record.unseen(base) or not all(contains(base, dot) for dot in stamps)


def _entry(
    mutation: Mutation, before: Record | None, merged: Merged, stamp: Stamp, sender: Sender, review: str | None
) -> HistoryEntry:
    logs = {spec.name for spec in ENTITY_TYPES[mutation.entity].fields.values() if spec.type == "log"}
    fields = [
        # Of a log only what came is told: entries never change, and some logs are long.
        {
            "name": change.name, "before": [] if change.name in logs else change.before,
            "after": _appended(change.sent) if change.name in logs else change.after, "sent": change.sent,
            "policy": change.decision.policy if change.decision else None,
            "kept": change.decision.kept if change.decision else "incoming",
            "why": change.decision.why if change.decision else None,
        }
        for change in merged.changes
    ]  # fmt: skip
    if mutation.op == "delete" and not fields:
        fields = [
            {
                "name": RECORD,
                "before": False,
                "after": True,
                "sent": True,
                "policy": None,
                "kept": "incoming",
                "why": "deleted",
            }
        ]
    actor = {"kind": sender.actor.kind, "id": sender.actor.name, "replica": stamp.dot.replica, "n": stamp.dot.n or None}
    return HistoryEntry(merged.record.key, merged.record.version, stamp.at, actor, fields, review)


def _appended(sent: Any) -> Any:
    return sent["$append"] if isinstance(sent, Mapping) else (sent or [])


def _refuse(
    group: list[Mutation], moments: list[tuple[int, bool]], culprit: Mutation, obstacle: Hindrance,
    sender: Sender, view: View, batch: Batch,
) -> list[Result]:  # fmt: skip
    """Park the whole group if it may not be lost, otherwise reject it."""
    readable = [mutation for mutation in group if not mutation.fault]
    park = (not culprit.fault and obstacle.park) or any(is_fact(mutation) for mutation in readable)
    results, parked = [], []
    case_id = obstacle.case_id or case_id_of(sender.replica, culprit.n)
    for mutation, (at, suspect) in zip(group, moments, strict=True):
        problem = obstacle.problem if mutation is culprit else Problem(
            "group_failed", f"Mutation {culprit.n} of the same group was not accepted: {obstacle.problem.detail}"
        )  # fmt: skip
        if not park or mutation.fault:
            results.append(Result(mutation.n, "rejected", problem=mutation.fault or problem))
            continue
        waiting = Waiting(case_id, sender.replica, mutation, at, suspect, sender.actor)
        results.append(_park(waiting, problem, view, batch))
        parked.append((mutation is culprit, waiting, problem))
    if parked and obstacle.case_id is None:
        # What is in the way is what a person has to look at.
        _, waiting, problem = max(parked, key=lambda one: one[0])
        open_whole(waiting, Hindrance(problem, type=obstacle.type), view, batch)
    return results


def _park(waiting: Waiting, problem: Problem, view: View, batch: Batch) -> Result:
    """Keep a mutation whole in a review case."""
    mutation = waiting.mutation
    record = view.records.get(mutation.key)
    readable = record is not None and waiting.actor.sees(record.scopes)
    if record is None and mutation.op == "create":
        view.blocked.setdefault(mutation.key, waiting.case_id)
    elif not readable and mutation.op != "create":  # whether there is no such record or one of somebody else
        view.awaiting.setdefault(mutation.key, waiting.case_id)
    batch.waiting.append(waiting)
    return Result(
        mutation.n,
        "parked",
        version=record.version if record and readable else None,
        clock=record.clock if record and readable else None,
        review_id=waiting.case_id,
        problem=problem,
        record=record_to_wire(record) if record and readable else None,
    )
