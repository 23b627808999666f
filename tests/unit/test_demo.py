"""The demo company: the same for everybody, of the size that was asked for, and sound."""

from __future__ import annotations

from collections import Counter
from datetime import date

import pytest

from server.services.demo import Bundle, DemoSize, demo_records, load_demo
from sync.entities import ENTITY_TYPES
from sync.memory import MemoryHub
from sync.record import Key
from sync.scopes import target_of
from sync.validate import check_values

TODAY = date(2026, 12, 1)
NOW = 1_796_083_200_000
SMALL = DemoSize(technicians=3, parts=120, work_orders=45, depots=2)


def records_of(size: DemoSize, today: date = TODAY) -> list[Bundle]:
    return list(demo_records(size, today))


def test_the_same_size_seed_and_day_give_the_same_company() -> None:
    assert records_of(SMALL) == records_of(SMALL)
    assert records_of(SMALL) != records_of(DemoSize(technicians=3, parts=120, work_orders=45, depots=2, seed=2))


def test_it_has_the_size_that_was_asked_for() -> None:
    counts = Counter(one.entity for bundle in records_of(SMALL) for one in bundle if one.op == "create")

    assert (counts["technician"], counts["part"], counts["work_order"]) == (3, 120, 45)
    assert set(counts) == {"technician", "location", "part", "work_order", "task", "note", "toolkit_item",
                           "part_consumption"}  # fmt: skip


def test_the_default_company_has_fifty_technicians_and_no_part_twice() -> None:
    created = [one for bundle in records_of(DemoSize()) for one in bundle if one.op == "create"]
    counts = Counter(one.entity for one in created)

    assert (counts["technician"], counts["part"], counts["work_order"]) == (50, 5_000, 2_000)
    assert len({one.key for one in created}) == len(created)
    assert len({one.patch["name"] for one in created if one.entity == "part"}) == 5_000


def test_a_larger_catalogue_starts_with_the_smaller_one() -> None:
    larger = DemoSize(technicians=3, parts=150, work_orders=0, depots=2)

    assert records_of(larger)[:120] == records_of(SMALL)[:120]


def test_every_reference_leads_to_a_record_that_came_before() -> None:
    known: set[Key] = set()
    for bundle in records_of(SMALL):
        for one in bundle:
            for name, value in one.patch.items():
                field = ENTITY_TYPES[one.entity].fields[name]
                target = target_of(field, value) if field.type == "reference" else None
                assert target is None or target in known, f"{one.key}: {name}"
            known.add(one.key)


def test_every_value_is_one_that_its_declaration_allows() -> None:
    faults = {
        f"{one.entity} {fault}"
        for bundle in records_of(SMALL)
        for one in bundle
        for fault in check_values(ENTITY_TYPES[one.entity], "create" if one.op == "create" else "update", one.patch)
        if fault.code != "server_field"
    }

    assert not faults


def test_loading_it_twice_leaves_everything_as_it_is() -> None:
    hub = MemoryHub()

    first = load_demo(hub, SMALL, TODAY, NOW)
    records = dict(hub.state.records)
    second = load_demo(hub, SMALL, TODAY, NOW + 60_000)

    assert (first.present, second.created) == (0, 0)
    assert second.present == first.created == len(records)
    assert hub.state.records == records


def test_a_technician_gets_work_a_van_and_the_stock_of_the_depot() -> None:
    hub = MemoryHub()
    load_demo(hub, SMALL, TODAY, NOW)

    own = [record for record in hub.state.records.values() if "tech:T-101" in record.scopes]
    shared = [record for record in hub.state.records.values() if "stock:WH-01" in record.scopes]

    assert {record.entity for record in own} >= {"technician", "location", "work_order", "task", "toolkit_item"}
    assert {record.entity for record in shared} == {"location", "toolkit_item"}
    assert any(record.data["status"] == "assigned" for record in own if record.entity == "work_order")


def test_there_is_work_today_even_on_a_sunday() -> None:
    sunday = date(2026, 12, 6)

    starts = [one.patch["scheduled_start"][:10] for bundle in records_of(SMALL, sunday) for one in bundle
              if one.entity == "work_order"]  # fmt: skip

    assert "2026-12-06" in starts
    assert min(starts) < "2026-12-06" < max(starts)


@pytest.mark.parametrize("wrong", [{"technicians": 0}, {"parts": 3}, {"depots": 11}, {"work_orders": -1}])
def test_numbers_that_make_no_company_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DemoSize(**wrong)


def test_progress_is_told_from_nothing_to_all() -> None:
    told: list[tuple[int, int]] = []
    loaded = load_demo(MemoryHub(), SMALL, TODAY, NOW, lambda done, total: told.append((done, total)))

    assert told[0] == (0, loaded.created)
    assert told[-1] == (loaded.created, loaded.created)
