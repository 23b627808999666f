"""Office writes: one record at a time, through the same merge, ledger and feed as a device's work.

An office writer has just read the record (If-Match says which version), so nothing is concurrent and what it may not
do is refused at once instead of parked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from server.services.changes import MAX_ROUNDS, load_view
from sync.clock import HUB, Origin
from sync.errors import (
    AlreadyExists,
    Forbidden,
    NotFound,
    PreconditionFailed,
    ServerField,
    Unavailable,
    Unprocessable,
)
from sync.feed import finish
from sync.hub import merge_push
from sync.moments import format_moment
from sync.mutation import Mutation, Problem, Result
from sync.record import Key, Record
from sync.store import Actor, Batch, HubStore, UnitOfWork
from sync.validate import parse_mutation
from sync.view import Sender, View, reaching
from sync.waiting import release
from sync.wire import record_to_wire


def create_record(
    store: HubStore, actor: Actor, key: Key, values: Mapping[str, Any], now: int, correlation_id: str | None = None
) -> Record:
    """A new record. Raises AlreadyExists with `current`, Unprocessable, ServerField, Forbidden."""
    created = write_record(store, actor, _mutation("create", key, values, None, now), now, None, correlation_id)
    assert created is not None
    return created


def update_record(
    store: HubStore,
    actor: Actor,
    key: Key,
    values: Mapping[str, Any],
    version: int | None,
    now: int,
    correlation_id: str | None = None,
) -> Record:
    """The record with `values` in place of the present ones. version: the one the writer saw, None for any ("*").

    Raises NotFound, PreconditionFailed with `current`, Unprocessable, ServerField, Forbidden.
    """
    updated = write_record(store, actor, _mutation("update", key, values, version, now), now, version, correlation_id)
    assert updated is not None
    return updated


def delete_record(
    store: HubStore, actor: Actor, key: Key, version: int | None, now: int, correlation_id: str | None = None
) -> None:
    """The record gone, its tombstone in the feed. Raises NotFound, PreconditionFailed, Forbidden."""
    write_record(store, actor, _mutation("delete", key, {}, version, now), now, version, correlation_id)


def _mutation(op: str, key: Key, values: Mapping[str, Any], version: int | None, now: int) -> Mutation:
    raw = {"n": 1, "entity": key.entity, "id": key.id, "op": op, "occurred_at": format_moment(now)}
    body = {**raw, "patch": dict(values)} if op != "delete" else raw
    mutation = parse_mutation({**body, "base": {HUB: version}} if version else body)
    if mutation.fault:
        raise _refusal(mutation.fault)
    return mutation


def write_record(
    store: HubStore, actor: Actor, mutation: Mutation, now: int, expect: int | None, correlation_id: str | None = None
) -> Record | None:
    """One office mutation in a unit of work of its own; the record after it, None once it is deleted."""
    wider: set[Key] = set()
    for _ in range(MAX_ROUNDS):
        with store.begin() as uow:
            view, missing = load_view(uow, reaching([mutation]), wider)
            if missing:
                wider |= missing
                continue
            current = _visible(view.records.get(mutation.key), actor)
            _check_precondition(mutation, current, expect)
            batch, times = Batch(now, actor), uow.times((), ())
            sender = Sender(actor, HUB, now, uow.epoch)
            (result,) = merge_push([_as_seen(mutation, current, now)], sender, view, times, batch)
            if result.status == "rejected" or result.problem:
                assert result.problem is not None
                raise _refusal(result.problem)
            complete(uow, sender, view, batch, [{**_audit(actor, mutation, result), "correlation_id": correlation_id}])
            uow.commit()
        after = view.records[mutation.key]
        return None if after.deleted else after
    raise Unavailable("Records kept moving while this was prepared. Send it again.")


def write_records(store: HubStore, actor: Actor, mutations: Sequence[Mutation], now: int) -> list[Result]:
    """Many hub mutations in one unit of work, for loaders. Server-only fields are allowed: this is the server
    speaking."""
    wider: set[Key] = set()
    for _ in range(MAX_ROUNDS):
        with store.begin() as uow:
            view, missing = load_view(uow, reaching(mutations), wider)
            if missing:
                wider |= missing
                continue
            batch, times, sender = Batch(now, actor), uow.times((), ()), Sender(actor, HUB, now, uow.epoch)
            seen = [_as_seen(mutation, view.records.get(mutation.key), now) for mutation in mutations]
            results = merge_push(seen, sender, view, times, batch)
            complete(uow, sender, view, batch, [])
            uow.commit()
        return results
    raise Unavailable("Records kept moving while this was prepared. Send it again.")


def _as_seen(mutation: Mutation, current: Record | None, now: int) -> Mutation:
    """An office write follows what stands now; its name is the moment, as no replica numbers it."""
    named = replace(mutation, origin=Origin(HUB, now))
    return replace(named, base={HUB: current.version}, was=current.data) if current else named


def complete(uow: UnitOfWork, sender: Sender, view: View, batch: Batch, audit: list[Mapping[str, Any]]) -> None:
    """Finish and save a batch that was merged."""
    release(sender, view, batch)
    finish(batch, view)
    batch.audit += audit
    uow.save(batch)


def _visible(record: Record | None, actor: Actor) -> Record | None:
    return record if record and actor.sees(record.scopes) else None


def _check_precondition(mutation: Mutation, current: Record | None, expect: int | None) -> None:
    if mutation.op == "create":
        if current and not current.deleted:
            raise AlreadyExists(current=record_to_wire(current))
        return
    if current is None or current.deleted:
        raise NotFound
    if expect is not None and current.version != expect:
        raise PreconditionFailed(current=record_to_wire(current))


def _refusal(problem: Problem) -> Exception:
    if problem.code == "server_field":
        return ServerField(problem.detail)
    if problem.code in ("not_permitted", "out_of_reach"):
        return Forbidden(problem.detail)
    return Unprocessable(problem.detail, errors=[{"path": "", "code": problem.code, "detail": problem.detail}])


def _audit(actor: Actor, mutation: Mutation, result: Result) -> dict[str, Any]:
    return {
        "actor": actor.name,
        "action": f"{mutation.entity}.{mutation.op}",
        "subject": f"{mutation.entity}:{mutation.id}",
        "detail": {"fields": sorted(mutation.patch), "version": result.version},
    }
