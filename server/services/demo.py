"""A demo company of any size: depots, technicians with vans, a catalogue, stock, and two weeks of work around a day.

Deterministic: the same size, seed and day give the same records, and a larger catalogue starts with the smaller one.
Loading it again leaves every record that exists as it is, whatever has become of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import cycle
from typing import Any

from server.services import demo_catalog as words
from server.services.records import write_records
from sync.entities.toolkit_item import toolkit_item_id
from sync.errors import InvariantBroken
from sync.mutation import MAX_PUSH, Mutation
from sync.store import Actor, HubStore

LOADER = Actor("system", "system:demo", "admin", "platform", ("*",))
MAX_TECHNICIANS, MAX_PARTS, MAX_WORK_ORDERS, MAX_DEPOTS = 5_000, 100_000, 1_000_000, 10

BINS = 8  # in a depot
VAN_STOCK = 24  # kinds of parts in a van
DEPOT_STOCK = 400  # kinds of parts in a depot
DAYS = range(-7, 7)

Bundle = list[Mutation]
"""Mutations that are written together: what refers to each other in a circle, a work order with its tasks."""


@dataclass(frozen=True, slots=True)
class DemoSize:
    """How large the company is. Raises ValueError on numbers that make no company."""

    technicians: int = 50
    parts: int = 5_000
    work_orders: int = 2_000
    depots: int = 4
    seed: int = 1

    def __post_init__(self) -> None:
        for name, least, most in (
            ("technicians", 1, MAX_TECHNICIANS),
            ("parts", len(words.FAMILIES), MAX_PARTS),
            ("work_orders", 0, MAX_WORK_ORDERS),
            ("depots", 1, MAX_DEPOTS),
        ):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be from {least} to {most}, not {getattr(self, name)}")

    def random(self, part: str) -> random.Random:
        """Chance for one part of the company, which does not move when another part grows."""
        return random.Random(f"{self.seed}/{part}")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load did. present: records that were there before and were left as they are."""

    created: int
    present: int


def load_demo(
    store: HubStore,
    size: DemoSize,
    today: date,
    now: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Loaded:
    """Write the demo company. now: ms. report: is told (records done, of how many) after every batch."""
    bundles = list(demo_records(size, today))
    total = sum(one.op == "create" for bundle in bundles for one in bundle)
    done = created = 0
    report(0, total)
    for batch in _batches(bundles):
        keys = {one.key for one in batch}
        with store.begin() as uow:
            present = uow.load((), keys).keys()
        fresh = [one for one in batch if one.key not in present]
        for one, result in zip(fresh, write_records(store, LOADER, fresh, now) if fresh else (), strict=True):
            if result.status != "applied":
                raise InvariantBroken(f"demo record {one.entity} {one.id} was not written: {result}")
        done += len(keys)
        created += sum(one.op == "create" for one in fresh)
        report(done, total)
    return Loaded(created, total - created)


def _batches(bundles: Iterable[Bundle]) -> Iterator[Bundle]:
    batch: Bundle = []
    for bundle in bundles:
        if batch and len(batch) + len(bundle) > MAX_PUSH:
            yield batch
            batch = []
        batch.extend(bundle)
    if batch:
        yield batch


def demo_records(size: DemoSize, today: date) -> Iterator[Bundle]:
    """Everything, in an order in which a record comes after those that it refers to."""
    parts = _parts(size)
    yield from ([_create("part", part.id, part.values)] for part in parts)
    for depot in range(size.depots):
        yield _depot(depot)
        yield from ([item] for item in _depot_stock(size, depot, parts))
    for number in range(size.technicians):
        yield _technician(size, number)
        yield from ([item] for item in _van_stock(size, number, parts))
    for number in range(size.work_orders):
        yield _work_order(size, number, today, parts)


def technician_id(number: int) -> str:
    """T-101 is the first."""
    return f"T-{101 + number}"


def van_id(number: int) -> str:
    """The van of the technician of the same number."""
    return f"VAN-{101 + number}"


def depot_id(number: int) -> str:
    """The warehouse of a depot."""
    return f"WH-{1 + number:02}"


def work_order_id(number: int) -> str:
    """WO-10001 is the first."""
    return f"WO-{10_001 + number}"


def _create(entity: str, id: str, values: Mapping[str, Any]) -> Mutation:
    return Mutation(1, entity, id, "create", {name: value for name, value in values.items() if value is not None})


def _update(entity: str, id: str, **values: Any) -> Mutation:
    return Mutation(1, entity, id, "update", values)


# -- catalogue ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    id: str
    family: words.Family
    values: Mapping[str, Any]


def _parts(size: DemoSize) -> list[_Part]:
    """Families in proportion to their shares, at every length of the list."""
    total = sum(family.share for family in words.FAMILIES)
    credit = {family.code: 0 for family in words.FAMILIES}
    made: dict[str, list[_Part]] = {family.code: [] for family in words.FAMILIES}
    parts = []
    for number in range(size.parts):
        if number < len(words.FAMILIES):
            family = words.FAMILIES[number]
        else:
            for each in words.FAMILIES:
                credit[each.code] += each.share
            family = max(words.FAMILIES, key=lambda each: credit[each.code])
            credit[family.code] -= total
        part = _part(number, family, made[family.code])
        made[family.code].append(part)
        parts.append(part)
    return parts


def _part(number: int, family: words.Family, earlier: Sequence[_Part]) -> _Part:
    nth, rest, chosen = len(earlier), len(earlier), []
    for choices in family.choices:
        rest, place = divmod(rest, len(choices))
        chosen.append(choices[place])
    name = family.name.format(*chosen) + (f", series {rest + 1}" if rest else "")
    superseded = nth % 40 == 39  # by the one before it, whatever it says on the box
    maker = next((word for word in chosen if word in words.MAKERS), words.MAKERS[nth % len(words.MAKERS)])
    values = {
        "number": f"{family.code}-{nth + 1:04}",
        "name": name,
        "class": family.product_class,
        "uom": family.uom,
        "tracking": family.tracking,
        "criticality": family.criticality,
        "identifiers": {
            "erp": f"4{number + 1:07}",
            "oem": f"{maker[:3].upper()} {(number * 7919 + 104_729) % 900_000 + 100_000}",
        },
        "status": "superseded" if superseded else "active",
        "superseded_by": earlier[-1].id if superseded else None,
        "returnable": True if family.criticality == "A" else None,
        "hazardous": True if family.code == "REF" else None,
        "shelf_life_days": 730 if family.tracking == "lot" else None,
        "uoms": {"box": {"numerator": 10, "denominator": 1}} if family.carried >= 4 and family.uom == "ea" else None,
    }
    return _Part(f"P-{number + 1:05}", family, values)


# -- places and people --------------------------------------------------------------------------------------------


def _depot(number: int) -> Bundle:
    id, name = depot_id(number), f"Depot {words.DEPOTS[number]}"
    warehouse = _create("location", id, {"name": name, "kind": "warehouse", "code": id})
    # It names itself, which it can do once it is there.
    return [warehouse, _update("location", id, depot_id=id), *(_bin(id, shelf) for shelf in range(BINS))]


def _bin(depot: str, shelf: int) -> Mutation:
    code = _bin_code(shelf)
    values = {"name": f"Shelf {code}", "kind": "bin", "code": code, "parent_id": depot, "depot_id": depot}
    return _create("location", f"{depot}-{code}", values)


def _bin_code(shelf: int) -> str:
    return f"{'ABCD'[shelf // 4 % 4]}{shelf % 4 + 1}"


def _technician(size: DemoSize, number: int) -> Bundle:
    id, van, depot = technician_id(number), van_id(number), depot_id(number % size.depots)
    chance = size.random(f"technician/{number}")
    given = words.GIVEN_NAMES[number % len(words.GIVEN_NAMES)]
    name = f"{given} {words.FAMILY_NAMES[number * 5 % len(words.FAMILY_NAMES)]}"
    place = {"depot_id": depot, "assigned_to": id}
    person = {
        "name": name,
        "depot_id": depot,
        "level": chance.choice(("apprentice", "technician", "technician", "senior", "master")),
        "skills": sorted(chance.sample(("gas", "oil", "refrigerants", "electrics", "water", "controls"), 3)),
    }
    return [
        _create("technician", id, person),
        _create("location", van, {"name": f"Van of {given}", "kind": "van", "code": van, **place}),
        _create("location", f"{van}-TB", {"name": "Toolbox", "kind": "toolbox", "parent_id": van, **place}),
        _update("technician", id, van_id=van),
    ]


# -- stock --------------------------------------------------------------------------------------------------------


def _depot_stock(size: DemoSize, number: int, parts: Sequence[_Part]) -> Iterator[Mutation]:
    chance, depot = size.random(f"depot/{number}"), depot_id(number)
    shelves = cycle(range(BINS))
    for part in chance.sample(parts, min(DEPOT_STOCK, len(parts))):
        yield from _stock(chance, f"{depot}-{_bin_code(next(shelves))}", part, 4 * max(1, part.family.carried))


def _van_stock(size: DemoSize, number: int, parts: Sequence[_Part]) -> Iterator[Mutation]:
    chance, van = size.random(f"van/{number}"), van_id(number)
    carried = [part for part in parts if part.family.carried]
    for part in chance.sample(carried, min(VAN_STOCK, len(carried))):
        yield from _stock(chance, van, part, part.family.carried)
    tools = [part for part in parts if part.family.product_class == "tool"]
    for tool in chance.sample(tools, min(4, len(tools))):
        yield from _stock(chance, f"{van}-TB", tool, 1)


def _stock(chance: random.Random, location: str, part: _Part, usual: int) -> Iterator[Mutation]:
    """About `usual` of a part in a place; units with serial numbers one by one."""
    if part.family.tracking == "serial":
        for _ in range(min(usual, 2)):
            serial = f"SN{chance.randrange(10**8):08}"
            yield _item(location, part, 1, 0, None, None, serial=serial)
        return
    # One shelf in twelve is empty, and one in eight is below its minimum: there must be something to fill up.
    on_hand = 0 if chance.random() < 1 / 12 else chance.randint(max(1, usual // 2), 2 * usual)
    reserved = min(on_hand, 1) if chance.random() < 1 / 8 else 0
    lot = f"L{chance.randrange(10**5):05}" if part.family.tracking == "lot" else None
    yield _item(location, part, on_hand, reserved, max(1, usual // 2), 2 * usual, lot=lot)


def _item(
    location: str, part: _Part, on_hand: int, reserved: int, minimum: int | None, maximum: int | None,
    *, lot: str | None = None, serial: str | None = None,
) -> Mutation:  # fmt: skip
    values = {
        "location_id": location,
        "part_id": part.id,
        "lot": lot,
        "serial": serial,
        "on_hand": str(on_hand),
        "reserved": str(reserved),
        "available": str(on_hand - reserved),
        "minimum": None if minimum is None else str(minimum),
        "maximum": None if maximum is None else str(maximum),
    }
    return _create("toolkit_item", toolkit_item_id(location, part.id, lot, serial), values)


# -- work ---------------------------------------------------------------------------------------------------------


def _work_order(size: DemoSize, number: int, today: date, parts: Sequence[_Part]) -> Bundle:
    """A work order with its tasks, and with what it may have beside them: a note, a part that was planned."""
    chance, id = size.random(f"work_order/{number}"), work_order_id(number)
    round_, technician = divmod(number, size.technicians)
    days = _days(today)
    slot, day = divmod(round_, len(days))
    job, ahead = chance.choice(words.JOBS), (days[day] - today).days
    start = datetime.combine(days[day], time(7, 30), UTC) + timedelta(minutes=105 * (slot % 5))
    status = _status(chance, ahead, slot)
    open_ = status in ("ready", "scheduled", "assigned", "accepted", "in_progress")
    who = None if status == "ready" else technician_id(technician)
    place = f"{words.PLACES[number * 7 % len(words.PLACES)]} {chance.choice(words.CUSTOMERS)}"
    values: dict[str, Any] = {
        "number": f"{today:%y}-{number + 1:06}",
        "title": f"{job.title}, {place}",
        "description": "\n".join((f"{place}.", *job.lines)),
        "customer_id": f"C-{1001 + number * 7 % 400}",
        "site_id": f"C-{1001 + number * 7 % 400}-{chance.randint(1, 3)}",
        "depot_id": depot_id(technician % size.depots),
        "priority": chance.choice(("high", "emergency")) if job.urgent else chance.choice(("low", "normal", "normal")),
        "status": status,
        "assignee_id": who,
        "scheduled_start": _moment(start),
        "scheduled_end": _moment(start + timedelta(minutes=90)),
        "tags": [job.parts[0]],
    }
    if status in ("in_progress", "completed", "closed", "incomplete"):
        values["actual_start"] = _moment(start + timedelta(minutes=chance.randint(-15, 30)))
    if status in ("completed", "closed", "incomplete"):
        values["actual_end"] = _moment(start + timedelta(minutes=chance.randint(45, 100)))
        values["meter_reading"] = f"{chance.randint(8_000, 90_000) / 10:.1f}"
        values["resolution"] = "Waiting for a part." if status == "incomplete" else f"{job.tasks[-1]}: done."
    if status == "cancelled":
        values["status_reason"] = "The customer moved the appointment."
    bundle = [_create("work_order", id, values)]
    bundle += [_task(id, place_, title, status) for place_, title in enumerate(job.tasks, start=1)]
    if chance.random() < 0.3:
        written_at = _moment(start - timedelta(days=1))
        note = {"parent": {"entity": "work_order", "id": id}, "author_id": "user:dispatch", "written_at": written_at}
        bundle.append(_create("note", f"{id}-N1", {**note, "text": chance.choice(words.NOTES)}))
    if open_ and who and chance.random() < 0.5:
        fitting = [p for p in parts[: 20 * len(words.FAMILIES)] if p.family.product_class in job.parts]
        bundle.append(_planned_part(id, chance.choice(fitting), van_id(technician)))
    return bundle


def _days(today: date) -> list[date]:
    """The working days of two weeks, those near today first; today even if it is a Sunday."""
    ahead = sorted(DAYS, key=lambda days: (abs(days), -days))
    return [day for days in ahead if (day := today + timedelta(days=days)).weekday() < 5 or not days]


def _status(chance: random.Random, ahead: int, slot: int) -> str:
    if ahead < 0:
        return chance.choices(("completed", "closed", "incomplete", "cancelled"), (60, 25, 8, 7))[0]
    if ahead > 0:
        return chance.choices(("assigned", "scheduled", "ready"), (60, 30, 10))[0]
    return chance.choice(("assigned", "accepted", "in_progress")) if slot == 0 else "assigned"


def _task(work_order: str, place: int, title: str, of_order: str) -> Mutation:
    status = {"completed": "completed", "closed": "completed", "cancelled": "cancelled"}.get(of_order, "open")
    if of_order == "incomplete":
        status = "completed" if place == 1 else "incomplete"
    values = {"work_order_id": work_order, "title": title, "status": status, "position": place, "mandatory": place == 1}
    return _create("task", f"{work_order}-{place}", values)


def _planned_part(work_order: str, part: _Part, van: str) -> Mutation:
    values = {
        "work_order_id": work_order,
        "part_id": part.id,
        "requested_part_id": part.id,
        "quantity": "1",
        "estimated_quantity": "1",
        "uom": part.family.uom,
        "location_id": van,
        "line_status": "estimated",
    }
    return _create("part_consumption", f"{work_order}-P1", values)


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
