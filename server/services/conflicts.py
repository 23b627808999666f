"""Deciding a review case: a person's choice becomes a write that follows everything it has seen.

Nothing is checked again that made the case: the person knows better than the rule did. What was not chosen stays in the
case and in the record's history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from server.services.changes import MAX_ROUNDS, load_view
from server.services.records import complete
from sync.clock import HUB, Dot, Origin, next_version
from sync.entities import ENTITY_TYPES
from sync.errors import AlreadyResolved, NotFound, PreconditionFailed, Unavailable, Unprocessable
from sync.hub import Sender, View, merge, note, place, reaching
from sync.merge import RECORD, Stamp
from sync.moments import format_moment
from sync.mutation import Mutation
from sync.record import Key, Record
from sync.store import Actor, Batch, Case, HubStore, UnitOfWork, Waiting
from sync.validate import check_values
from sync.waiting import apply_waiting

OPTIONS = ("current", "incoming", "values")


def case_etag(case: Case, record: Record | None) -> str:
    """What If-Match has to name: the case and the record as the person saw them."""
    return f"{case.version}.{record.version if record else 0}"


def resolve_case(
    store: HubStore, actor: Actor, case_id: str, option: str, values: Mapping[str, Any] | None, reason: str,
    etag: str | None, now: int, correlation_id: str | None = None,
) -> Case:  # fmt: skip
    """The case as decided. etag: what the person saw, None for whatever stands.

    Raises NotFound, AlreadyResolved with `resolution`, PreconditionFailed, Unprocessable for values that do not fit.
    """
    wider: set[Key] = set()
    for _ in range(MAX_ROUNDS):
        with store.begin() as uow:
            case = _open_case(uow, actor, case_id)
            waiting = uow.case_waiting(case_id)
            key = Key(case.entity, case.record_id)
            chosen = _chosen(case, option, values)
            touched = [replace(w.mutation, fault=None) for w in waiting] or [_decision(key, chosen)]
            view, missing = load_view(uow, reaching(touched), wider)
            if missing:
                wider |= missing
                continue
            record = view.records.get(key)
            if etag is not None and etag != case_etag(case, record):
                raise PreconditionFailed(current={"etag": case_etag(case, record)})
            batch, sender = Batch(now, actor), Sender(actor, HUB, now, uow.epoch)
            if waiting:
                _decide_waiting(waiting, key, option, chosen, uow.epoch, view, batch)
            elif record is not None:
                _decide_fields(case, record, option, chosen, sender, view, batch)
            resolution = {
                "option": option, "values": dict(chosen), "reason": reason, "by": actor.name, "at": format_moment(now),
            }  # fmt: skip
            batch.resolved.append((case_id, resolution))
            batch.superseded = [other for other in batch.superseded if other != case_id]
            audit = {
                "actor": actor.name, "action": "conflict.resolve", "subject": f"case:{case_id}",
                "correlation_id": correlation_id,
                "detail": {"option": option, "reason": reason, "record": f"{case.entity}:{case.record_id}"},
            }  # fmt: skip
            complete(uow, sender, view, batch, [audit])
            uow.commit()
        return replace(case, status="resolved", resolution=resolution, version=case.version + 1)
    raise Unavailable("Records kept moving while this was prepared. Send it again.")


def _open_case(uow: UnitOfWork, actor: Actor, case_id: str) -> Case:
    case = uow.case(case_id)
    # A case without scopes concerns a record that does not exist yet: the whole office may decide it.
    if case is None or not (actor.sees(case.scopes) or not case.scopes):
        raise NotFound
    if case.status == "resolved":
        raise AlreadyResolved(resolution=case.resolution)
    return case


def _chosen(case: Case, option: str, values: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The values that the decision writes."""
    if option not in OPTIONS:
        raise Unprocessable(
            f"Choose one of {', '.join(OPTIONS)}.", errors=[{"path": "option", "detail": "unknown option"}]
        )
    if option != "values":
        return {
            name: value
            for name, value in (case.current if option == "current" else case.incoming).items()
            if name != RECORD
        }
    if not values:
        raise Unprocessable("Give the values to write.", errors=[{"path": "values", "detail": "missing"}])
    faults = check_values(ENTITY_TYPES[case.entity], "update", values)
    strangers = [name for name in values if case.fields and name not in case.fields]
    if faults or strangers:
        errors = [{"path": f"values.{fault.path}", "detail": fault.detail} for fault in faults]
        errors += [{"path": f"values.{name}", "detail": "not a field of this case"} for name in strangers]
        raise Unprocessable("The values do not fit.", errors=errors)
    return values


def _decision(key: Key, chosen: Mapping[str, Any]) -> Mutation:
    return Mutation(1, key.entity, key.id, "update", chosen)


def _decide_fields(
    case: Case, record: Record, option: str, chosen: Mapping[str, Any], sender: Sender, view: View, batch: Batch
) -> None:
    """Write the chosen values over everything that the person saw."""
    deletes = RECORD in case.fields and option == "incoming"
    if RECORD in case.fields and not deletes:
        return  # the record stays as it is
    origin = Origin(HUB, sender.now)
    decided = Mutation(
        1, record.entity, record.id, "delete" if deletes else "update", chosen,
        base={HUB: record.version}, was=record.data, origin=origin,
    )  # fmt: skip
    stamp = Stamp(
        Dot(next_version(record.version, sender.epoch)), origin, sender.now, sender.actor.system, False, case.id
    )
    merged = merge(record, decided, record.data, stamp)
    merged = replace(merged, record=place(merged.record, view.records.get, batch.now))
    batch.before[record.key] = record
    batch.records[record.key] = view.records[record.key] = merged.record
    note(decided, record, merged, stamp, sender, batch)


def _decide_waiting(
    waiting: Sequence[Waiting], key: Key, option: str, chosen: Mapping[str, Any], epoch: int, view: View, batch: Batch
) -> None:
    """Apply what waited, as it was sent or with the given values, or leave it in the case."""
    if option == "current":
        batch.dropped += [(w.replica, w.mutation.n) for w in waiting]
        return
    apply_waiting(
        [_corrected(w, chosen) if option == "values" and w.mutation.key == key else w for w in waiting],
        epoch,
        view,
        batch,
    )


def _corrected(waited: Waiting, values: Mapping[str, Any]) -> Waiting:
    return replace(waited, mutation=replace(waited.mutation, patch={**waited.mutation.patch, **values}))
