"""Clocks and what is stored beside a record grow with concurrency, never with the fleet."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator

from sync.clock import HUB, Clock, Dot, Origin
from sync.entity import EntityType, Field
from sync.merge import Stamp, merge_patch
from sync.record import Record

FLEET = 10_000
LOST = 0.25  # of the replicas: they took one look, keep writing on that, and never pull again

FIELDS = {
    "last": Field("last", "text", "last_writer"),
    "meter": Field("meter", "decimal", "largest"),
    "asked": Field("asked", "text", "review"),
    "used": Field("used", "decimal", "counter"),
    "tags": Field("tags", "set", "add_wins_set"),
}
JOB = EntityType("job", "jobs", "A job.", object, FIELDS, ())


def arrive(record: Record, replica: str, n: int, base: Clock, chance: random.Random) -> Record:
    name = chance.choice(list(FIELDS))
    number = str(chance.randrange(1_000_000))
    value = {"used": {"$inc": "1"}, "tags": {"$add": [chance.choice("abc")]}}.get(name, number)
    stamp = Stamp(Dot(record.version + 1, replica, n), Origin(replica, n), n, "device", False, f"c_{replica}_{n}")
    return merge_patch(JOB, record, {name: value}, base, {}, stamp).record


def fleet(chance: random.Random) -> Iterator[tuple[str, int, bool]]:
    """Who writes next, under which n, and whether it pulls first."""
    lost = [f"r_{number}" for number in range(FLEET) if chance.random() < LOST]
    written: dict[str, int] = {}
    for number in range(FLEET):
        # Those that are lost come back to write again and again; the others are seen once each.
        replica = chance.choice(lost) if chance.random() < LOST else f"r_{number}"
        written[replica] = written.get(replica, 0) + 1
        yield replica, written[replica], replica not in lost


def kept_beside(record: Record) -> int:
    """How many names of writes are stored with the record."""
    states = record.fields.values()
    return sum(len(s.writes) + len(s.dots) + sum(len(dots) for _, dots in s.elements) + 1 for s in states)


def test_ten_thousand_replicas_leave_a_clock_as_short_as_the_record() -> None:
    chance = random.Random(7)
    record = arrive(Record("job", "J-1", 0, {}), "r_first", 1, {}, chance)
    old = record.clock
    longest, heaviest, durations = 0, 0, []
    for replica, n, pulls in fleet(chance):
        base = record.clock if pulls else {**old, **({replica: n - 1} if n > 1 else {})}
        began = time.perf_counter()
        record = arrive(record, replica, n, base, chance)
        durations.append(time.perf_counter() - began)
        longest, heaviest = max(longest, len(record.clock)), max(heaviest, kept_beside(record))

    early, late = (statistics.median(part) * 1e6 for part in (durations[:2_000], durations[-2_000:]))
    print(f"\nclock ≤ {longest} entries, ≤ {heaviest} names beside the record, {early:.0f} → {late:.0f} µs a merge")
    assert longest <= len(FIELDS) + 1
    assert heaviest <= 30 * len(FIELDS)
    assert late < 4 * early + 50


def test_what_nobody_has_seen_is_kept_until_one_writer_has_seen_it() -> None:
    """The worst case: a thousand replicas in cellars. The record carries them all, and the first to pull clears it."""
    chance = random.Random(7)
    record = start = arrive(Record("job", "J-1", 0, {}), "r_first", 1, {}, chance)
    for number in range(1_000):
        record = arrive(record, f"r_{number}", 1, start.clock, chance)

    assert len(record.clock) <= len(FIELDS) + 1
    assert 1_000 <= kept_beside(record) <= 2 * 1_000 + 2 * len(FIELDS)

    patch = {"last": "x", "meter": "1", "asked": "x", "used": {"$inc": "0"}, "tags": {"$add": list("abc")}}
    stamp = Stamp(Dot(record.version + 1, "r_z", 1), Origin("r_z", 1), 1, "device", False, "c_z")
    cleared = merge_patch(JOB, record, patch, record.clock, {}, stamp).record

    assert kept_beside(cleared) <= 3 * len(FIELDS)
    assert cleared.clock == {HUB: record.version + 1, "r_z": 1}


def test_a_replica_that_never_pulls_takes_one_place_however_often_it_writes() -> None:
    chance = random.Random(7)
    record = start = arrive(Record("job", "J-1", 0, {}), "r_first", 1, {}, chance)
    for n in range(1, 2_001):
        record = arrive(record, "r_cellar", n, {**start.clock, "r_cellar": n - 1}, chance)

    assert kept_beside(record) <= 4 * len(FIELDS)
