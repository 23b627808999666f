"""What a technician does on a device, chosen by chance from what the device shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random
from typing import Any

from client_sdk import FieldClient
from client_sdk.collection import add, append, remove
from sync.entity import ENTITY_TYPES, TECHNICIAN
from sync.errors import CaptureRefused
from tests.simulation.company import PARTS

Mint = Callable[[str, str], str]
"""Gives a canary for a record (entity, id)."""


def edit(client: FieldClient, chance: Random, new_id: str, mint: Mint) -> None:
    """One change."""
    deed = chance.choice(_DEEDS)
    with suppress(CaptureRefused):  # it says so before it says "saved"
        deed(client, chance, new_id, mint)


def group(client: FieldClient, chance: Random, new_id: str, token: str) -> None:
    """Several changes that take effect together or not at all. token: stands in each of them."""
    orders = list(client.replica.shown_all("work_order"))
    tasks = client.replica.shown_all("task")
    if not orders:
        return
    order = chance.choice(orders)
    with client.group():
        for place in range(chance.randint(2, 4)):
            client.notes.create(f"{new_id}.{place}", parent={"entity": "work_order", "id": order}, text=token)
        for id in [id for id, task in tasks.items() if task.get("work_order_id") == order][:2]:
            client.tasks.update(id, answers=append({"question": "q", "value": token}))
        if chance.random() < 0.2:
            client.work_orders.update(order, priority="low")  # not a technician's to write


def _order_text(client: FieldClient, chance: Random, new_id: str, mint: Mint) -> None:
    if found := _pick(client, chance, "work_order"):
        id, values = found
        name = chance.choice(("resolution", "description", "status_reason", "title"))
        text = str(values.get(name) or "")
        canary = mint("work_order", id)
        if name in ("description", "resolution"):
            lines = text.splitlines() or ["", "", ""]
            lines[chance.randrange(len(lines))] = canary
            client.work_orders.update(id, **{name: "\n".join(lines) + "\n"})
        else:
            client.work_orders.update(id, **{name: canary})


def _order_status(client: FieldClient, chance: Random, new_id: str, mint: Mint) -> None:
    _step(client, chance, "work_order")


def _task_status(client: FieldClient, chance: Random, new_id: str, mint: Mint) -> None:
    _step(client, chance, "task")


def _step(client: FieldClient, chance: Random, entity: str) -> None:
    found = _pick(client, chance, entity)
    machine = ENTITY_TYPES[entity].fields["status"].states
    if found is None or machine is None:
        return
    id, values = found
    ahead = [t.target for t in machine.transitions if t.source == values.get("status") and TECHNICIAN in t.by]
    target = chance.choice(ahead) if ahead and chance.random() < 0.9 else chance.choice(machine.precedence)
    client.collection(entity).update(id, status=target)


def _meter(client: FieldClient, chance: Random, new_id: str, mint: Mint) -> None:
    if found := _pick(client, chance, "work_order"):
        client.work_orders.update(found[0], meter_reading=str(chance.randrange(1000)))


def _tags(client: FieldClient, chance: Random, new_id: str, mint: Mint) -> None:
    if found := _pick(client, chance, "work_order"):
        word = chance.choice(("noisy", "roof"))
        client.work_orders.update(found[0], tags=add(word) if chance.random() < 0.6 else remove(word))


def _labour(client: FieldClient, chance: Random, new_id: str, mint: Mint) -> None:
    if found := _pick(client, chance, "work_order"):
        client.work_orders.update(found[0], labour=append({"kind": "work", "note": mint("work_order", found[0])}))


def _answer(client: FieldClient, chance: Random, new_id: str, mint: Mint) -> None:
    if found := _pick(client, chance, "task"):
        client.tasks.update(found[0], answers=append({"question": "q", "value": mint("task", found[0])}))


def _position(client: FieldClient, chance: Random, new_id: str, mint: Mint) -> None:
    if found := _pick(client, chance, "task"):
        client.tasks.update(found[0], position=chance.randrange(100))


def _new_note(client: FieldClient, chance: Random, new_id: str, mint: Mint) -> None:
    if found := _pick(client, chance, chance.choice(("work_order", "task"))):
        entity = "work_order" if client.work_orders.values(found[0]) is not None else "task"
        client.notes.create(new_id, parent={"entity": entity, "id": found[0]}, text=mint("note", new_id))


def _note_text(client: FieldClient, chance: Random, new_id: str, mint: Mint) -> None:
    if found := _pick(client, chance, "note"):
        if chance.random() < 0.4:
            client.notes.update(found[0], pinned=chance.random() < 0.5)
        else:
            client.notes.update(found[0], text=mint("note", found[0]))


def _use_part(client: FieldClient, chance: Random, new_id: str, mint: Mint) -> None:
    if found := _pick(client, chance, "work_order"):
        client.part_consumptions.create(
            new_id, work_order_id=found[0], part_id=chance.choice((*PARTS, *PARTS, "P-9")),
            quantity=str(chance.randint(1, 3)), reason=mint("part_consumption", new_id),
        )  # fmt: skip


def _correct_part(client: FieldClient, chance: Random, new_id: str, mint: Mint) -> None:
    if found := _pick(client, chance, "part_consumption"):
        deed = chance.random()
        if deed < 0.5:
            client.part_consumptions.update(found[0], line_status=chance.choice(("used", "not_used", "returned")))
        elif deed < 0.8:
            client.part_consumptions.update(found[0], quantity=str(chance.randint(1, 3)))
        else:
            client.part_consumptions.delete(found[0])


def _new_task(client: FieldClient, chance: Random, new_id: str, mint: Mint) -> None:
    if found := _pick(client, chance, "work_order"):
        client.tasks.create(new_id, work_order_id=found[0], title=mint("task", new_id))


def _unknown(client: FieldClient, chance: Random, new_id: str, mint: Mint) -> None:
    """A record that the device may or may not have."""
    client.work_orders.update(f"WO-{chance.randint(1, 6)}", meter_reading=str(chance.randrange(1000)))


def _pick(client: FieldClient, chance: Random, entity: str) -> tuple[str, Mapping[str, Any]] | None:
    shown = client.replica.shown_all(entity)
    if not shown:
        return None
    id = chance.choice(sorted(shown))
    return id, shown[id]


_DEEDS = (
    *(_order_text, _order_text, _order_status, _order_status, _task_status, _meter, _tags, _tags, _labour, _answer),
    *(_position, _position, _new_note, _note_text, _use_part, _correct_part, _new_task, _unknown),
)
