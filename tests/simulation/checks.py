"""The invariants, one function each or a few. They look at hub and devices from outside and know nothing of merging
beyond which write had seen which (`sync.clock.contains`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from server.services.changes import push_changes
from sync.canonical import canonical
from sync.clock import contains
from sync.entities import ENTITY_TYPES
from sync.errors import ReplicaForked
from sync.feed import tally
from sync.merge import same
from sync.policy import SKEW_BOUND_MS
from sync.protocol import Push
from sync.record import Key, Record
from sync.scopes import scopes_of
from sync.session import SyncReport
from sync.store import FeedPosition
from sync.validate import parse_mutation
from sync.wire import push_from_wire
from tests.simulation.company import SCOPES, device_actor
from tests.simulation.journal import Entry, content_of
from tests.simulation.violation import Violation, demand

if TYPE_CHECKING:
    from tests.simulation.device import SimDevice
    from tests.simulation.world import World

# -- at any time --------------------------------------------------------------------------------------------------


def no_foreign_canary(world: World, name: str, technician: str, answer: str) -> None:
    """I10: an answer holds no byte of a record outside the scopes of the device."""
    from tests.simulation.world import CANARY

    found = set(CANARY.findall(answer))
    if not found:
        return
    records = world.hub.records()
    actor = device_actor(name, technician, records)
    for canary in sorted(found):
        record = records.get(world.canaries[canary])
        inside = record is not None and actor.sees(record.scopes)
        demand(inside, "I10 scope", f"{name} was told of {world.canaries[canary]} outside of its scopes")


def nothing_rose(world: World, fresh: Sequence[Entry]) -> None:
    """I7: what is deleted stays so, unless an edit that did not know of it brings it back where that is declared."""
    for key, record in world.hub.records().items():
        if record.deleted is not None:
            world.dead[key] = record.deleted
            world.ever_dead.add(key)
            continue
        dot = world.dead.pop(key, None)
        if dot is None or key in world.revived:
            continue
        edits = [e for e in fresh if e.key == key and e.mutation.op != "delete"]
        unaware = any(not contains(e.mutation.base, dot) for e in edits)
        allowed = unaware and ENTITY_TYPES[key.entity].on_delete == "edit_resurrects"
        demand(allowed, "I7 no resurrection", f"{key} is back, and nobody meant it to be")


def report_is_clean(device: SimDevice, report: SyncReport) -> None:
    """Devices that repair themselves would hide a feed that is wrong."""
    demand(not report.repaired, "I1 converge", f"device {device.number} had to fetch {report.repaired} again")
    demand(not report.voided, "I2 no lost mutation", f"device {device.number} gave up {report.voided}")


def own_work_is_shown(world: World, device: SimDevice) -> None:
    """I8: until the server state contains it, a device shows what was last entered on it."""
    replica = device.client.replica
    position = replica.position
    if device.epoch != world.epoch or position.fresh:
        return
    latest: dict[tuple[Key, str], tuple[Any, bool]] = {}
    for entry in replica.outbox():
        if entry.voided or entry.mutation.op == "delete":
            continue
        name = (entry.replica, entry.n)
        mine = world.journal.contents.get(name) == content_of(entry.mutation.body)
        seq = world.journal.seqs[name] if mine else None
        held = replica.held(entry.key)
        due = seq is None or (seq > position.as_of and (held is None or seq > held.push_seq))
        for field, value in entry.mutation.patch.items():
            plain = not isinstance(value, Mapping) or not any(word.startswith("$") for word in value)
            latest[entry.key, field] = (value, plain and due)
    for (key, field), (value, due) in latest.items():
        shown = replica.shown(key) if due else None
        if shown is not None:
            seen = same(shown.get(field), value)
            demand(seen, "I8 causal", f"device {device.number} does not show its own {field} of {key}: {value!r}")


def groups_are_whole(world: World, device: SimDevice) -> None:
    """I9: of a group that took effect a device shows all or nothing."""
    if device.client.replica.position.fresh:
        return  # what came with the answers to pushes cannot be told from the rest until it is replaced
    records = world.hub.records()
    members: dict[str, list[tuple[Key, str]]] = {}
    for entry in world.journal.entries:
        group = entry.mutation.group
        if group and entry.merged:
            members.setdefault(group, []).append((entry.key, canonical(entry.mutation.patch)))
    if not members:
        return
    busy = {entry.key for entry in device.client.replica.outbox() if not entry.acknowledged}
    # What is kept beyond its scope, for unsent work, is no part of what was pulled.
    inside = {Key(*row) for row in device.client.replica._rows("SELECT DISTINCT entity, id FROM member")}
    for named in members.values():
        token = next((word for _, text in named for word in text.split('"') if word.startswith("group-")), None)
        keys = [key for key, _ in named]
        known = [records.get(key) for key in keys]
        if token is None or busy & set(keys) or world.ever_dead & set(keys):
            continue
        if any(r is None or token not in json.dumps(r.data) for r in known) or len({r.scopes for r in known if r}) > 1:
            continue
        shown = [_holds(device, key, token) and key in inside for key in keys]
        told = [held.push_seq for key in keys if (held := device.client.replica.held(key))]
        if not any(told):
            demand(len(set(shown)) == 1, "I9 atomic group", f"device {device.number} shows a part of {keys}: {shown}")


def _holds(device: SimDevice, key: Key, token: str) -> bool:
    held = device.client.replica.held(key)
    return held is not None and held.data is not None and token in json.dumps(held.data)


# -- at the end ---------------------------------------------------------------------------------------------------


def everything(world: World) -> None:
    """All that can be asked once a history has healed."""
    records = world.hub.records()
    scopes_follow(records)
    tallies_agree(world, records)
    for device in world.devices:
        device_agrees(world, device, records)
    world.observer.check()
    every_mutation_has_one_outcome(world)
    no_write_is_lost(world, records)
    no_time_lies_ahead(world, records)
    no_future_stands(world, records)
    replay_changes_nothing(world)


def scopes_follow(records: Mapping[Key, Record]) -> None:
    """I10: every record lies in the scopes that its values, and those on its paths, give it."""

    def values(key: Key) -> Mapping[str, Any] | None:
        found = records.get(key)
        return found.data if found else None

    for key, record in records.items():
        due = scopes_of(ENTITY_TYPES[key.entity], key.id, record.data, values)
        demand(record.scopes == due, "I10 scope", f"{key} lies in {record.scopes} and should in {due}")


def tallies_agree(world: World, records: Mapping[Key, Record]) -> None:
    """I1: the running counts and checksums are those of the records themselves."""
    feed = world.hub.store.read_feed([FeedPosition(scope, 1 << 62, 0) for scope in SCOPES], 1, None)
    for scope in SCOPES:
        kept, due = feed.tallies.get(scope, (0, 0)), tally(records, scope)
        demand(kept == due, "I1 converge", f"the tally of {scope} is {kept} and should be {due}")


def device_agrees(world: World, device: SimDevice, records: Mapping[Key, Record]) -> None:
    """I1, I10: the device holds and shows exactly what the server has in its scopes."""
    actor = device_actor(device.name, device.technician, records)
    due = {key: r for key, r in records.items() if r.deleted is None and actor.sees(r.scopes)}
    replica, who = device.client.replica, f"device {device.number}"
    for entity in ENTITY_TYPES:
        shown = replica.shown_all(entity)
        ids = {key.id for key in due if key.entity == entity}
        demand(shown.keys() <= ids, "I10 scope", f"{who} still shows {entity} {sorted(shown.keys() - ids)}")
        demand(ids <= shown.keys(), "I1 converge", f"{who} lacks {entity} {sorted(ids - shown.keys())}")
        for id, data in shown.items():
            record = due[Key(entity, id)]
            held = replica.held(record.key)
            demand(
                canonical(dict(data)) == canonical(dict(record.data)), "I1 converge",
                f"{who} shows {record.key} as {_difference(data, record.data)}",
            )  # fmt: skip
            held_as = (held.version, dict(held.clock)) if held else None
            stands = (record.version, record.clock)
            demand(held_as == stands, "I1 converge", f"{who} holds {record.key} at {held_as}, the hub at {stands}")
    for scope in actor.scopes:
        demand(replica.tally(scope) == tally(records, scope), "I1 converge", f"{who}: another checksum of {scope}")


def _difference(shown: Mapping[str, Any], stands: Mapping[str, Any]) -> str:
    names = sorted({*shown, *stands})
    return "; ".join(
        f"{n}: {shown.get(n)!r} for {stands.get(n)!r}" for n in names if not same(shown.get(n), stands.get(n))
    )


def every_mutation_has_one_outcome(world: World) -> None:
    """I2, I16: what a device said was saved has exactly one outcome in the timeline that stands."""
    answered = set(world.journal.contents.values())
    for content, captured in world.captured.items():
        known = content in answered
        demand(known, "I2 no lost mutation", f"{captured.device}: {captured.key} {content[:300]} was never answered")
    processed: dict[str, str] = {}
    for entry in world.journal.entries:
        if entry.mutation.body:
            content, name = content_of(entry.mutation.body), f"{entry.replica}:{entry.mutation.n}"
            other = processed.setdefault(content, name)
            demand(other == name, "I4 idempotent replay", f"{other} took effect a second time as {name}")


def no_write_is_lost(world: World, records: Mapping[Key, Record]) -> None:
    """I3: a write that nobody saw when they wrote is still beside its field, or in its log or set, or in a case."""
    written: dict[Key, list[Entry]] = {}
    for entry in world.journal.entries:
        written.setdefault(entry.key, []).append(entry)
        if not entry.merged and entry.result.status == "parked":
            with world.hub.store.begin() as uow:
                kept = uow.case(str(entry.result.review_id))
            demand(kept, "I3 no lost update", f"the case of {entry.replica}:{entry.mutation.n} is gone")
    for key, entries in written.items():
        record = records.get(key)
        if record is None or record.deleted is not None or key in world.ever_dead:
            continue
        for entry in entries:
            if entry.merged and entry.dot is not None and entry.mutation.op in ("create", "update"):
                for field, sent in entry.mutation.patch.items():
                    _demand_kept(world, record, entries, entry, field, sent)


def _demand_kept(world: World, record: Record, entries: Sequence[Entry], entry: Entry, field: str, sent: Any) -> None:
    spec = ENTITY_TYPES[record.entity].fields[field]
    dot = entry.dot
    assert dot is not None
    if spec.policy == "log":
        for item in sent["$append"] if isinstance(sent, Mapping) else sent or ():
            there = sum(1 for one in record.data.get(field) or () if same(one, item))
            demand(there == 1, "I3 no lost update", f"{item!r} is {there} times in {field} of {record.key}")
        return
    later = [
        e.mutation.patch[field] for e in entries if e is not entry and field in e.mutation.patch
        and e.result.status != "rejected" and e.mutation.op != "delete" and contains(e.mutation.base, dot)
    ]  # fmt: skip
    decided = any(k == record.key and field in names and contains(b, dot) for k, b, names in world.journal.decided)
    if decided or (later and spec.policy != "add_wins_set"):
        return
    if spec.policy == "add_wins_set":
        added = set(sent.get("$add", ()) if isinstance(sent, Mapping) else sent or ())
        removed = {
            one for patch in later for one in (patch.get("$remove", ()) if isinstance(patch, Mapping) else added)
        }
        there = added - removed <= set(record.data.get(field) or ())
    else:
        state = record.fields.get(field)
        there = state is not None and any(same(write.value, sent) for write in state.writes)
    what = f"{field}={sent!r} of {entry.replica}:{entry.mutation.n} ({record.key})"
    demand(there, "I3 no lost update", f"{what} is neither there nor overwritten by somebody who had seen it")


def no_time_lies_ahead(world: World, records: Mapping[Key, Record]) -> None:
    """I11: whatever clocks said, the hub takes nothing to have happened after it came."""
    for key, record in records.items():
        times = [record.updated_at]
        for state in record.fields.values():
            times += [write.at for write in state.writes]
            times += [at for at, *_ in state.keys]
        demand(max(times) <= world.now, "I11 clock", f"{key} holds a time that lies ahead")


def no_future_stands(world: World, records: Mapping[Key, Record]) -> None:
    """I11: where time decides, a write of a clock in the future does not stand above an honest one, unless a person
    has still to choose."""
    future = {
        e.mutation.named(e.replica) for e in world.journal.entries
        if (e.mutation.occurred_at or 0) > e.at + SKEW_BOUND_MS
    }  # fmt: skip
    for key, record in records.items():
        for name, state in record.fields.items():
            if ENTITY_TYPES[key.entity].fields[name].policy not in ("last_writer", "device_wins") or state.case:
                continue
            stands = next((w for w in state.writes if w.dot == state.standing), None)
            if stands is None or stands.origin not in future:
                continue
            honest = [w for w in state.writes if w.system == stands.system and w.origin not in future]
            fair = all(same(w.value, stands.value) for w in honest)
            demand(fair, "I11 clock", f"{name} of {key} stands by a clock that lies in the future")


def replay_changes_nothing(world: World) -> None:
    """I4: every push of the history, sent again, is answered as it was and has no effect."""
    before = _state(world)
    answers = dict(world.journal.answers)
    for name, technician, text in world.journal.requests:
        push = push_from_wire(json.loads(text))
        actor = device_actor(name, technician, world.hub.records())
        again = push_changes(world.hub.store, actor, push, world.now)
        for result in again.results:
            same_answer = result.duplicate and result.stored() == answers[push.replica, result.n]
            demand(same_answer, "I4 idempotent replay", f"{push.replica}:{result.n} was answered differently")
    demand(_state(world) == before, "I4 idempotent replay", "sending everything again had an effect")
    _forge(world)
    demand(_state(world) == before, "I4 idempotent replay", "a forged push had an effect")


def _forge(world: World) -> None:
    """The same number with another payload is a fork, whatever it is."""
    if not world.journal.requests:
        return
    name, technician, text = world.journal.requests[-1]
    push = push_from_wire(json.loads(text))
    if not push.mutations:
        return
    body = {**push.mutations[0].body, "seen": 4_711}
    actor = device_actor(name, technician, world.hub.records())
    forged = replace(parse_mutation(body), n=push.mutations[0].n)
    try:
        push_changes(world.hub.store, actor, Push(push.replica, [forged]), world.now)
    except ReplicaForked:
        return
    raise Violation("I4 idempotent replay", "another payload under a known number was taken")


def _state(world: World) -> tuple[Any, ...]:
    records = world.hub.records()
    return (world.head(), sorted((key, r.version, canonical(dict(r.data)), r.scopes) for key, r in records.items()))


def counted(world: World, names: Iterable[str]) -> dict[str, int]:
    """How often each of `names` happened in a history."""
    return {name: world.faults[name] for name in names}
