"""Review cases: what is written down for the person who has to decide.

A case is about fields that wait, each with both sides of the dispute, or about a mutation that waits whole. Its id
follows from the mutation that opened it, so that a replay opens nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from sync.admit import Hindrance, is_fact
from sync.entities import ENTITY_TYPES
from sync.merge import RECORD, Merged, Stamp, same
from sync.moments import format_moment
from sync.mutation import Mutation
from sync.record import Key, Record
from sync.scopes import scopes_of
from sync.store import Batch, Case, Waiting, join_cases
from sync.view import Sender, View


def case_id_of(replica: str, n: int) -> str:
    """The id of the case that a mutation opens: the same on every replay."""
    # Not its first name: two copies of one phone may have given that to different work.
    name = hashlib.sha256(f"{replica}\n{n}".encode()).digest()
    return "c_" + base64.b32encode(name).decode()[:26].lower()


def open_fields(mutation: Mutation, merged: Merged, stamp: Stamp, sender: Sender, batch: Batch) -> str | None:
    """Open or join the cases of the fields that wait after this mutation; the first one's id, None if nothing waits."""
    waiting = _waiting_fields(merged, stamp)
    for case_id, names in waiting.items():
        _open(batch, _field_case(mutation, merged, stamp, sender, case_id, names))
    return next(iter(waiting), None)


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
