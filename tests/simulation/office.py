"""What happens at the hub itself: people in the office write, delete, move work about and decide cases."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from server.services.conflicts import resolve_case
from server.services.records import create_record, delete_record, update_record
from sync.clock import HUB
from sync.errors import AlreadyResolved, Forbidden, Refused
from sync.mutation import Mutation
from sync.record import Key, Record
from tests.simulation.company import ADMINISTRATOR, DEPOTS, TECHNICIANS, with_canary

if TYPE_CHECKING:
    from tests.simulation.world import World


def write(world: World, chance: Random) -> None:
    """The office corrects something."""
    entity = chance.choice(("work_order", "work_order", "task", "note", "part"))
    key = _pick(world, chance, entity)
    if key is None:
        return
    canary = world.mint(*key)
    values: dict[str, Any] = {}
    if entity == "work_order":
        text = str(world.hub.records()[key].data.get("description") or "\n\n\n")
        lines = text.splitlines() or [""]
        lines[chance.randrange(len(lines))] = canary
        values = chance.choice(
            (
                {"description": "\n".join(lines) + "\n"},
                {"resolution": canary},
                {"status": "cancelled"},
                {"status_reason": canary},
                {"priority": chance.choice(("low", "high"))},
                {"meter_reading": str(chance.randrange(1000))},
                {"tags": {"$remove": ["noisy"]}},
            )
        )
    elif entity == "task":
        values = chance.choice(({"position": chance.randrange(100)}, {"title": canary}))
    elif entity == "note":
        values = {"text": canary}
    else:
        values = {"name": canary}
    update(world, key, values)


def delete(world: World, chance: Random) -> None:
    """The office deletes something."""
    key = _pick(world, chance, chance.choice(("note", "task", "task", "work_order", "part_consumption")))
    if key is None:
        return
    before = world.hub.records()[key]
    delete_record(world.hub.store, ADMINISTRATOR, key, None, world.now)
    world.saw("office_delete")
    _note(world, key, "delete", {}, before)


def create(world: World, chance: Random, new_id: str) -> None:
    """New work."""
    if chance.random() < 0.4:
        values: dict[str, Any] = {"title": "New", "status": "assigned", "assignee_id": chance.choice(TECHNICIANS)}
        key = Key("work_order", new_id)
    else:
        order = _pick(world, chance, "work_order")
        if order is None:
            return
        key = Key("task", new_id)
        values = {"work_order_id": order.id, "title": "New"}
    values = with_canary(key.entity, values, world.mint(*key))
    create_record(world.hub.store, ADMINISTRATOR, key, values, world.now)
    _note(world, key, "create", values, None)


def reassign(world: World, chance: Random) -> None:
    """A work order, or a van with all that is in it, goes to another technician."""
    if chance.random() < 0.7:
        key = _pick(world, chance, "work_order")
        name = "assignee_id"
    else:
        key, name = Key("location", chance.choice(("V-1", "V-2"))), "assigned_to"
    if key is None:
        return
    now = world.hub.records()[key].data.get(name)
    update(world, key, {name: chance.choice([t for t in (*TECHNICIANS, None) if t != now])})
    world.saw("reassignment")


def move_technician(world: World, chance: Random) -> None:
    """A technician is supplied from another depot."""
    key = Key("technician", chance.choice(TECHNICIANS))
    now = world.hub.records()[key].data.get("depot_id")
    update(world, key, {"depot_id": chance.choice([depot for depot in DEPOTS if depot != now])})
    world.saw("technician_moved")


def count_stock(world: World, chance: Random) -> None:
    """The office changes what a shelf should hold."""
    key = _pick(world, chance, "toolkit_item")
    if key:
        update(world, key, {"minimum": str(chance.randrange(10)), "lot": world.mint(*key)})


def decide(world: World, chance: Random) -> None:
    """Somebody decides a review case."""
    if not world.cases:
        return
    case_id = chance.choice(sorted(world.cases))
    world.cases.discard(case_id)
    with world.hub.store.begin() as uow:
        case = uow.case(case_id)
        waiting = uow.case_waiting(case_id) if case else []
    if case is None:
        return  # it was opened in a timeline that a restore took back
    key = Key(case.entity, case.record_id)
    before = world.hub.records().get(key)
    try:
        resolve_case(
            world.hub.store, ADMINISTRATOR, case_id, chance.choice(("current", "incoming")), None, "as it is", None,
            world.now,
        )  # fmt: skip
    except AlreadyResolved:
        return
    # It covers all writes of these fields that stood, whichever value was chosen.
    if before is not None:
        _note(world, key, "update", dict.fromkeys(case.fields), before, decides=True)
    for waited in waiting:
        world.revived.add(waited.mutation.key)
        if before is not None and waited.mutation.key == key:
            # Let pass by somebody who saw the record, it follows all that stood there.
            world.journal.decided.append((key, {HUB: before.version}, frozenset(waited.mutation.patch)))


def update(world: World, key: Key, values: Mapping[str, Any]) -> None:
    """An office write that has seen what stands."""
    before = world.hub.records()[key]
    try:
        update_record(world.hub.store, ADMINISTRATOR, key, values, None, world.now)
    except Forbidden:
        raise
    except Refused:
        return  # such as a cancellation of what is closed
    _note(world, key, "update", values, before)


def _note(
    world: World, key: Key, op: str, values: Mapping[str, Any], before: Record | None, decides: bool = False
) -> None:
    after = world.hub.records().get(key)
    base = {HUB: before.version} if before else {}
    mutation = Mutation(0, key.entity, key.id, op, {} if decides else values, base)  # type: ignore[arg-type]
    world.journal.note_office(mutation, after.version if after else None, world.now)
    if decides:
        world.journal.decided.append((key, base, frozenset(values)))


def _pick(world: World, chance: Random, entity: str) -> Key | None:
    live = sorted(key for key, r in world.hub.records().items() if key.entity == entity and r.deleted is None)
    return chance.choice(live) if live else None
