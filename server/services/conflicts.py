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
from sync.admit import is_fact
from sync.cases import case_id_of, open_whole
from sync.clock import HUB, Dot, Origin, next_version
from sync.entities import ENTITY_TYPES
from sync.errors import AlreadyResolved, NotFound, PreconditionFailed, Unavailable, Unprocessable
from sync.hub import note
from sync.merge import RECORD, Stamp, merge
from sync.moments import format_moment
from sync.mutation import Mutation
from sync.record import Key, Record
from sync.store import Actor, Batch, Case, HubStore, UnitOfWork, Waiting
from sync.validate import check_values
from sync.view import Sender, View, place, reaching
from sync.waiting import apply_waiting, in_order, obstacle_of

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
    with store.begin() as uow:  # only to learn what it is about: records are locked before cases
        case, waiting = _find(uow, case_id), uow.case_waiting(case_id)
    wider: set[Key] = set()
    for _ in range(MAX_ROUNDS):
        with store.begin() as uow:
            touched = reaching(_touched(case, waiting, option, values))
            view, missing = load_view(uow, touched, wider)
            case, waiting = _find(uow, case_id), uow.case_waiting(case_id)
            late = reaching(_touched(case, waiting, option, values))
            missing |= (late.write | late.read | late.paths) - touched.read - set(view.locked)
            if missing:
                wider |= missing
                continue
            key = Key(case.entity, case.record_id)
            record = view.records.get(key)
            _check_open(case, record, actor)
            chosen = _chosen(case, record, option, values)
            if etag is not None and etag != case_etag(case, record):
                raise PreconditionFailed(current={"etag": case_etag(case, record)})
            batch, sender = Batch(now, actor), Sender(actor, HUB, now, uow.epoch)
            if waiting:
                view.within = _within(uow, waiting)
                _decide_waiting(case, waiting, option, chosen, sender, view, batch)
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


def _find(uow: UnitOfWork, case_id: str) -> Case:
    case = uow.case(case_id)
    if case is None:
        raise NotFound
    return case


def scopes_of_case(case: Case, record: Record | None) -> tuple[str, ...]:
    """Where a case lies: where its record is now. Nowhere: it concerns no record yet, so it is the whole office's."""
    return record.scopes if record and record.scopes else case.scopes


def _check_open(case: Case, record: Record | None, actor: Actor) -> None:
    scopes = scopes_of_case(case, record)
    if scopes and not actor.sees(scopes):
        raise NotFound
    if case.status == "resolved":
        raise AlreadyResolved(resolution=case.resolution)


def _chosen(case: Case, record: Record | None, option: str, values: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The values that the decision writes."""
    if option not in OPTIONS:
        raise Unprocessable(
            f"Choose one of {', '.join(OPTIONS)}.", errors=[{"path": "option", "detail": "unknown option"}]
        )
    # What stands now, which the person saw; the case may have been opened long ago.
    stands = {name: record.data.get(name) if record else case.current.get(name) for name in case.fields or case.current}
    if option != "values":
        picked = stands if option == "current" else case.incoming
        return {name: value for name, value in picked.items() if name != RECORD}
    if not values:
        raise Unprocessable("Give the values to write.", errors=[{"path": "values", "detail": "missing"}])
    faults = check_values(ENTITY_TYPES[case.entity], "update", values)
    fields = set(case.fields) - {RECORD}
    strangers = [name for name in values if fields and name not in fields]
    if faults or strangers:
        errors = [{"path": f"values.{fault.path}", "detail": fault.detail} for fault in faults]
        errors += [{"path": f"values.{name}", "detail": "not a field of this case"} for name in strangers]
        raise Unprocessable("The values do not fit.", errors=errors)
    # No field of the case is left behind undecided.
    return {**{name: stands[name] for name in fields}, **values}


def _touched(case: Case, waiting: Sequence[Waiting], option: str, values: Mapping[str, Any] | None) -> list[Mutation]:
    """What the decision may write, to find what has to be locked for it."""
    corrections = values if option == "values" and values else {}
    if check_values(ENTITY_TYPES[case.entity], "update", corrections):
        corrections = {}  # they are refused later
    key = Key(case.entity, case.record_id)
    fields = {name: value for name, value in {**case.current, **case.incoming}.items() if name != RECORD}
    written = [{**case.current}, fields, corrections]
    decided = [Mutation(1, key.entity, key.id, "update", patch) for patch in written]
    return [*decided, *(_corrected(w, corrections if w.mutation.key == key else {}).mutation for w in waiting)]


def _within(uow: UnitOfWork, waiting: Sequence[Waiting]) -> set[tuple[Key, int]]:
    """Where facts that wait were within their senders' reach when they happened."""
    wanted: dict[tuple[str, ...], set[tuple[Key, int]]] = {}
    for w in waiting:
        if is_fact(w.mutation):
            about = {w.mutation.key, *reaching([w.mutation]).read}
            wanted.setdefault(w.actor.scopes, set()).update((key, w.at) for key in about)
    return set().union(*(uow.was_in_reach(keys, scopes) for scopes, keys in wanted.items()))


def _decide_fields(
    case: Case, record: Record, option: str, chosen: Mapping[str, Any], sender: Sender, view: View, batch: Batch
) -> None:
    """Write the chosen values over everything that the person saw."""
    deletes = RECORD in case.fields and option == "incoming"
    if not chosen and not deletes:
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
    case: Case, waiting: Sequence[Waiting], option: str, chosen: Mapping[str, Any], sender: Sender, view: View,
    batch: Batch,
) -> None:  # fmt: skip
    """Apply what waited, as it was sent or with the given values, or leave it in the case.

    The person saw one mutation and knows better than the rule that stopped it. Of those that wait beside it nothing but
    the shape was ever looked at: what its sender could not do by itself becomes a case of its own.
    """
    if option == "current":
        batch.dropped += [w.name for w in waiting]
        return
    key, shown = Key(case.entity, case.record_id), _shown(case, waiting)
    granted = {(shown.replica, key)} if shown else set()
    held: dict[tuple[str, Key], str] = {}
    for waited in in_order(waiting):
        lane, corrected = (waited.replica, waited.mutation.key), waited
        if option == "values" and waited.mutation.key == key:
            corrected = _corrected(waited, chosen)
        if waited is not shown and (lane in held or (obstacle := obstacle_of(corrected, view, granted))):
            apart = replace(waited, case_id=held.get(lane) or case_id_of(*waited.name))
            if lane not in held:
                assert obstacle is not None
                open_whole(apart, obstacle, view, batch)
            held[lane] = apart.case_id
            batch.waiting.append(apart)
        else:
            apply_waiting(corrected, sender.epoch, view, batch, decided=waited is shown)


def _shown(case: Case, waiting: Sequence[Waiting]) -> Waiting | None:
    """The mutation that the case shows."""
    key = Key(case.entity, case.record_id)
    name = case.evidence.get("sent_as")
    return next(
        (w for w in waiting if w.mutation.key == key and {"replica": w.replica, "n": w.mutation.n} == name), None
    )


def _corrected(waited: Waiting, values: Mapping[str, Any]) -> Waiting:
    return replace(waited, mutation=replace(waited.mutation, patch={**waited.mutation.patch, **values}))
