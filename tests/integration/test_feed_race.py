"""Sixteen writers and a reader that never stops: no row of the feed comes below a position already read.

A sequence or a timestamp in place of the feed head loses rows here at once: they are given before the commit, and a
commit may come later than a higher one.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from server.store.engine import make_engine, retrying
from server.store.hub import PostgresHub
from server.store.migrate import upgrade
from sync.feed import finish
from sync.record import Key
from sync.store import Batch, FeedPosition
from sync.view import View
from tests.contract.hub_contract import NOW, OFFICE, work_order

WRITERS = 16
PUSHES = 12  # of each writer
RECORDS = 30  # contended: each push takes some of them
PER_PUSH = 4


@pytest.fixture
def engine(make_database: Callable[[], str]) -> Iterator[Engine]:
    url = make_database()
    upgrade(url)
    engine = make_engine(url, pool_size=WRITERS + 2, lock_timeout_ms=15_000)
    yield engine
    engine.dispose()


def write(store: PostgresHub, chance: random.Random) -> dict[Key, int]:
    """Change some records, in an order of its own, and dawdle before the commit. Returns the versions written."""
    keys = [Key("work_order", f"WO-{n}") for n in chance.sample(range(RECORDS), PER_PUSH)]
    with store.begin() as uow:
        view = View(uow.load(keys, ()), locked=keys)
        batch = Batch(NOW, OFFICE)
        for key in keys:
            batch.before[key] = view.records.get(key)
            held = view.records.get(key)
            record = work_order(key.id, held.version + 1 if held else 1)
            batch.records[key] = view.records[key] = replace(record, scopes=("tech:T-1",))
        finish(batch, view)
        uow.save(batch)
        time.sleep(chance.random() * 0.003)
        uow.commit()
    return {key: record.version for key, record in batch.records.items()}


def test_a_continuous_reader_misses_nothing_that_sixteen_writers_commit(engine: Engine) -> None:
    store = PostgresHub(engine)
    written: dict[Key, int] = {}
    failures: list[BaseException] = []
    lock, done = threading.Lock(), threading.Event()

    def run(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(PUSHES):
                versions = retrying(lambda: write(store, chance))
                with lock:
                    for key, version in versions.items():
                        written[key] = max(version, written.get(key, 0))
        except BaseException as error:
            failures.append(error)

    read: dict[Key, int] = {}
    seqs: list[int] = []
    behind: list[tuple[int, int]] = []

    def follow() -> None:
        cursor = 0
        try:
            while True:
                last_look = done.is_set()
                slice_ = store.read_feed([FeedPosition("tech:T-1", cursor, 0)], 7, None)
                for row in slice_.rows:
                    if row.seq <= cursor:
                        behind.append((row.seq, cursor))
                    assert row.version is not None
                    read[row.key] = max(row.version, read.get(row.key, 0))
                    seqs.append(row.seq)
                cursor = slice_.rows[-1].seq if len(slice_.rows) == 7 else slice_.head
                if last_look and not slice_.rows:
                    return
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=[seed]) for seed in range(WRITERS)]
    reader = threading.Thread(target=follow)
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    reader.join(30)

    assert failures == []
    assert behind == []
    assert all(earlier < later for earlier, later in itertools.pairwise(seqs))
    assert read == written
    assert store.read_feed([], 1, None).head == WRITERS * PUSHES * PER_PUSH
    whole = store.read_feed([FeedPosition("tech:T-1", 0, 0)], 1000, None)
    assert {row.key: row.version for row in whole.rows} == written
    assert whole.tallies["tech:T-1"][0] == len(written)
