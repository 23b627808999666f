"""A whole push in memory: from mutations and the records they touch to results and everything that is to be written.

Pure: a shell loads what `reaching` names, calls `merge_push`, and saves the `Batch`. Mutation 7 sees what 6 did. One
bad mutation never blocks its successors; the members of a group go together.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from sync.admit import Hindrance, Surroundings, hindrance, id_taken, is_fact
from sync.clock import HUB, Clock, Dot, Origin, contains, next_version
from sync.entities import ENTITY_TYPES
from sync.merge import RECORD, FieldChange, Merged, Stamp, merge_delete, merge_patch, same
from sync.moments import format_moment
from sync.mutation import Decision, Mutation, Problem, Result
from sync.policy import SKEW_BOUND_MS
from sync.record import MISSING, Key, Record
from sync.scopes import passed_through, path_fields, references, scopes_of, target_of
from sync.store import Actor, Batch, Case, HistoryEntry, Times, Waiting, join_cases
from sync.wire import record_to_wire


@dataclass(frozen=True, slots=True)
class Reaching:
    """What a push looks at. write: records it may change, and those it reads scopes from. read: records it refers to.
    paths: those whose change moves dependants to other scopes."""

    write: set[Key]
    read: set[Key]
    paths: set[Key]


def reaching(mutations: Iterable[Mutation]) -> Reaching:
    """The records that these mutations name and refer to, before anything is loaded."""
    reach = Reaching(set(), set(), set())
    for mutation in mutations:
        if mutation.fault:
            continue
        entity = ENTITY_TYPES[mutation.entity]
        reach.write.add(mutation.key)
        reach.write.update(references(entity, mutation.patch))
        reach.write.update(entity.needs(mutation.id, mutation.patch))
        for name, value in mutation.patch.items():
            spec = entity.fields.get(name)
            target = target_of(spec, value) if spec and spec.type == "reference" else None
            if target:
                reach.read.add(target)
        # Also where it is created: what a person let pass may have referred to it before it was there.
        moving = passed_through(mutation.entity) if mutation.op == "create" else path_fields(mutation.entity)
        if moving & mutation.patch.keys():
            reach.paths.add(mutation.key)
    return reach


@dataclass(slots=True)
class View:
    """The push in memory. records: as the mutations so far left them. blocked: open cases in which a creation waits.
    waiting: mutations that wait for a record to appear, awaiting: in which case. locked: what may be written, and was
    loaded with all that its scopes are read from; other records were only looked at.
    within: (key, ms) at which a record now out of reach lay in it. shown: what fields showed at the base's version."""

    records: dict[Key, Record]
    blocked: dict[Key, str] = field(default_factory=dict)
    waiting: Sequence[Waiting] = ()
    awaiting: dict[Key, str] = field(default_factory=dict)
    locked: Collection[Key] = ()
    within: set[tuple[Key, int]] = field(default_factory=set)
    shown: Mapping[tuple[Key, int, str], Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sender:
    """Whose mutations these are. last_at: the clamped time of the replica's last trustworthy mutation, ms.
    sealed: its device was reported lost, so everything is parked."""

    actor: Actor
    replica: str
    now: int
    epoch: int
    last_at: int = 0
    sealed: bool = False


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


def clamp(mutation: Mutation, lower: int, times: Times, now: int) -> tuple[int, bool, int]:
    """When it happened (ms), whether its clock is suspect, and the lower bound for the replica's next mutation.

    It happened after everything it had seen was committed, after the replica's mutation before it, and before now.
    """
    lower = max(lower, times.of_seq(mutation.seen or 0), times.of_version(mutation.key, mutation.base.get(HUB, 0)))
    lower = min(lower, now)
    if mutation.occurred_at is None:
        return now, False, lower
    suspect = not lower - SKEW_BOUND_MS <= mutation.occurred_at <= now + SKEW_BOUND_MS
    at = min(max(mutation.occurred_at, lower), now)
    # A wrong clock must not push its replica's later, honest mutations forward.
    return at, suspect, lower if suspect else at


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


def blank(key: Key) -> Record:
    """A record before its creation: the declared defaults, which nobody wrote and nothing conflicts with."""
    fields = ENTITY_TYPES[key.entity].fields.values()
    data = {spec.name: _wire(spec.default) for spec in fields if spec.default is not None}
    return Record(key.entity, key.id, 0, data)


def _wire(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Decimal) else value


def place(record: Record, find: Callable[[Key], Record | None], now: int) -> Record:
    """`record` as it is stored at `now` (ms): in the scopes that its values give it."""

    def values(key: Key) -> Mapping[str, Any] | None:
        found = find(key)
        return found.data if found else None

    scopes = scopes_of(ENTITY_TYPES[record.entity], record.id, record.data, values)
    return replace(record, scopes=scopes, updated_at=now)


def case_id_of(replica: str, n: int) -> str:
    """The id of the case that a mutation opens: the same on every replay."""
    # Not its first name: two copies of one phone may have given that to different work.
    name = hashlib.sha256(f"{replica}\n{n}".encode()).digest()
    return "c_" + base64.b32encode(name).decode()[:26].lower()


def note(
    mutation: Mutation, before: Record | None, merged: Merged, stamp: Stamp, sender: Sender, batch: Batch
) -> Result | None:
    """Note history and cases of one merged mutation; its result, None for an effect."""
    after = merged.record
    batch.superseded += merged.closed
    waiting = _waiting_fields(merged, stamp)
    for case_id, names in waiting.items():
        _open(batch, _field_case(mutation, merged, stamp, sender, case_id, names))
    review = next(iter(waiting), None)
    if merged.changes or after.version != (before.version if before else 0):
        batch.history.append(_entry(mutation, before, merged, stamp, sender, review))
    if mutation.n == 0:
        return None  # an effect
    decisions = merged.decisions
    status = "parked" if merged.waits else "merged" if decisions else "applied"
    readable = sender.actor.sees(after.scopes)
    covered = before is None or not _holds_unseen(before, mutation.base)
    shown = readable and (status != "applied" or not covered)
    return Result(
        n=mutation.n,
        status=status,  # type: ignore[arg-type]  # one of the four words by construction
        version=after.version if readable else None,
        clock=after.clock if readable else None,
        decisions=decisions,
        review_id=review,
        record=record_to_wire(after) if shown else None,
    )


def _waiting_fields(merged: Merged, stamp: Stamp) -> dict[str, tuple[str, ...]]:
    """The fields that wait after this mutation, by case; the case that it opened itself comes first."""
    cases: dict[str, tuple[str, ...]] = {stamp.case_id: merged.opened} if merged.opened else {}
    for decision in merged.decisions:
        if decision.kept == "waiting" and decision.field not in merged.opened:
            case_id = merged.record.fields[decision.field].case or stamp.case_id
            cases[case_id] = (*cases.get(case_id, ()), decision.field)
    return cases


def _open(batch: Batch, case: Case) -> None:
    """Add a case to the batch, or what is new in it to the same case from an earlier mutation."""
    for place_, earlier in enumerate(batch.cases):
        if earlier.id == case.id:
            batch.cases[place_] = join_cases(earlier, case)
            return
    batch.cases.append(case)


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


def _field_case(
    mutation: Mutation,
    merged: Merged,
    stamp: Stamp,
    sender: Sender,
    case_id: str,
    waiting: tuple[str, ...],
) -> Case:
    record = merged.record
    whys = {d.field: d.why for d in merged.decisions if d.field in waiting}
    deletion = RECORD in waiting
    return Case(
        id=case_id,
        type="delete_conflict" if deletion else "clock_suspect" if stamp.suspect else "field_conflict",
        entity=mutation.entity,
        record_id=mutation.id,
        scopes=merged.record.scopes,
        fields=waiting,
        base={name: (mutation.was or {}).get(name) for name in waiting},
        current={name: record.data.get(name) for name in waiting},
        incoming={"*": "delete"}
        if deletion
        else {name: _not_standing(mutation, record, name, stamp) for name in waiting},
        evidence=_evidence(mutation, stamp.at, stamp.suspect, sender, {"why": whys}),
        technician_id=sender.actor.technician_id,
        opened_at=sender.now,
        impact=_impact(merged.record, 40 if deletion else 20),
    )


def _not_standing(mutation: Mutation, record: Record, name: str, stamp: Stamp) -> Any:
    """The other value of a field that waits: what was sent, or what it meets if what was sent stands meanwhile."""
    state = record.fields[name]
    if state.standing == stamp.dot:
        others = [w for w in state.writes if w.dot != stamp.dot and not same(w.value, record.data.get(name))]
        if others:
            return max(others, key=lambda write: write.dot.version).value
    return mutation.patch.get(name)


def _evidence(mutation: Mutation, at: int, suspect: bool, sender: Sender, more: Mapping[str, Any]) -> dict[str, Any]:
    origin = mutation.named(sender.replica)
    return {
        "origin": {"replica": origin.replica, "n": origin.n}, "sent_as": {"replica": sender.replica, "n": mutation.n},
        "sender": sender.actor.name, "base": dict(mutation.base),
        "occurred_at": format_moment(at), "received_at": format_moment(sender.now), "clock_suspect": suspect, **more,
    }  # fmt: skip


def _impact(record: Record | None, weight: int) -> int:
    """How much hangs on a case: its kind's weight, more for urgent jobs and critical parts."""
    data = record.data if record else {}
    return (
        weight
        + {"high": 20, "emergency": 40}.get(str(data.get("priority")), 0)
        + (20 if data.get("criticality") == "A" else 0)
    )


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


def _proposed_scopes(waiting: Waiting, view: View) -> tuple[str, ...]:
    """Where the record would lie that a mutation wants to create, by what its sender could see.

    None, if that is in no depot: then the case is the whole office's.
    """
    mutation = waiting.mutation
    if mutation.op != "create":
        return ()

    def values(key: Key) -> Mapping[str, Any] | None:
        record = view.records.get(key)
        seen = record and (waiting.actor.sees(record.scopes) or (key, waiting.at) in view.within)
        return record.data if record and seen else None

    scopes = scopes_of(ENTITY_TYPES[mutation.entity], mutation.id, mutation.patch, values)
    return scopes if any(scope.startswith("depot:") for scope in scopes) else ()


def open_whole(waiting: Waiting, obstacle: Hindrance, view: View, batch: Batch) -> None:
    """Open the review case in which a mutation waits whole, unless this batch has it already."""
    if any(case.id == waiting.case_id for case in batch.cases):
        return
    mutation, record = waiting.mutation, view.records.get(waiting.mutation.key)
    sender = Sender(waiting.actor, waiting.replica, batch.now, 0)
    why = {"code": obstacle.problem.code, "why": {"*": obstacle.problem.detail}}
    batch.cases.append(
        Case(
            id=waiting.case_id,
            type=obstacle.type,
            entity=mutation.entity,
            record_id=mutation.id,
            # Whoever works with the record decides, or would work with it.
            scopes=record.scopes if record else _proposed_scopes(waiting, view),
            fields=(),
            base={name: (mutation.was or {}).get(name) for name in mutation.patch},
            current={name: record.data.get(name) for name in mutation.patch} if record else {},
            incoming={"*": "delete"} if mutation.op == "delete" else dict(mutation.patch),
            evidence=_evidence(mutation, waiting.at, waiting.suspect, sender, why),
            technician_id=waiting.actor.technician_id,
            opened_at=batch.now,
            impact=_impact(record, 60 if is_fact(mutation) else 30),
        )
    )
