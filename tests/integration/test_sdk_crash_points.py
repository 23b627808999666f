"""The device's process dies before every single statement that it sends to SQLite, one after the other.

Run as a script, this file plays a technician's day once for every point of death, each in a forked process that ends
there at once. The tests then open what is left: everything that was reported as saved is there exactly once, what is
shown and the cursor fit together, and the next syncs bring everything through to the server, once.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client_sdk.replica import SqliteReplica
from sync.errors import MutationGap, ReplicaForked
from sync.feed import checksum_text, row_hash
from sync.mutation import Result, payload_hash
from sync.protocol import Change, Page, PullRequest, Push, PushResult, ScopeTally
from sync.record import Key
from sync.replica import Draft
from sync.session import sync_once
from sync.wire import result_to_wire

WO, NOTE = Key("work_order", "WO-1"), Key("note", "N-1")
SCOPE = "tech:T-1"
AT = "2026-11-20T10:11:12.123+01:00"
DIED = 77


class DiskServer:
    """A server that remembers in a file what it accepted, so that it outlives the device's process."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "server.jsonl"

    def accepted(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._file.read_text().splitlines()] if self._file.exists() else []

    def accept(self, replica: str, n: int, name: tuple[str, int], digest: str) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps({"replica": replica, "n": n, "name": name, "hash": digest}) + "\n")

    def push(self, push: Push) -> PushResult:
        known = {(row["replica"], row["n"]): row["hash"] for row in self.accepted()}
        last_n = max((n for replica, n in known if replica == push.replica), default=0)
        results: list[Result] = []
        for mutation in push.mutations:
            digest = payload_hash(mutation.body).hex()
            before = known.get((push.replica, mutation.n))
            if before is None and mutation.n > last_n + 1:
                raise MutationGap(expected=last_n + 1)
            if before is not None and before != digest:
                raise ReplicaForked(forked_at=mutation.n, results=[result_to_wire(result) for result in results])
            if before is None:
                self.accept(push.replica, mutation.n, tuple(mutation.named(push.replica)), digest)
                last_n = mutation.n
            version = 10 + mutation.n
            record = {**mutation.key._asdict(), "version": version, "clock": {}, "data": {"title": f"after {version}"}}
            results.append(Result(mutation.n, "merged", before is not None, version, record=record))
        return PushResult(results, last_n, committed_seq=len(self.accepted()))

    def pull(self, request: PullRequest) -> Page:
        rows = self.accepted()
        last_n = max((row["n"] for row in rows if row["replica"] == request.replica), default=0)
        head, total = 100 + len(rows), 0
        changes = []
        for place, key in enumerate((WO, NOTE, Key("part", "P-1"))):
            changes.append(
                Change(head + place - 2, "put", SCOPE, *key, 1000 + head, {"hub": 1000 + head}, {"title": str(head)})
            )
            total += row_hash(*key, 1000 + head)
        if request.limit == 1:
            changes = []
        cursor = f"{head}:{'b' if request.cursor != f'{head}:a' else 'c'}"
        if request.cursor is None or not request.cursor.startswith(f"{head}:"):
            return Page(changes[:2], f"{head}:a", True, head, last_n=last_n, durable_n=max(0, last_n - 1))
        tallies = [ScopeTally(SCOPE, 3, checksum_text(total))]
        return Page(changes[2:], cursor, False, head, tallies, last_n=last_n, durable_n=max(0, last_n - 1))


def play(folder: Path, die_before: int) -> None:
    """The day. Every capture is reported in a file of its own when it returned."""
    statements = itertools.count(1)

    def trace(statement: str) -> None:
        if next(statements) == die_before:
            os._exit(DIED)

    reports = (folder / "captured.jsonl").open("a", buffering=1)

    def capture(*drafts: Draft, group: str | None = None) -> None:
        for entry in replica.capture(drafts, AT, group):
            reports.write(json.dumps(entry.name) + "\n")

    server = DiskServer(folder)
    with SqliteReplica(folder / "device.db", trace=trace) as replica:
        capture(Draft("create", NOTE, {"parent": {"entity": "work_order", "id": "WO-1"}, "text": "a"}))
        capture(Draft("update", WO, {"resolution": "b"}), Draft("update", NOTE, {"text": "c"}), group="g")
        sync_once(replica, server, page_size=2)
        capture(Draft("update", WO, {"resolution": "d"}))
        # Meanwhile a copy of this database sent something else under our next number.
        server.accept(replica.position.replica, 4, ("the copy", 4), "another")
        sync_once(replica, server, page_size=2)
        replica.restart()
        sync_once(replica, server, page_size=2)


def die_everywhere(root: Path) -> None:
    for point in itertools.count(1):
        folder = root / f"{point:04}"
        folder.mkdir()
        child = os.fork()
        if child == 0:
            play(folder, point)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return
        assert os.waitstatus_to_exitcode(status) == DIED, f"point {point}: {status}"


@pytest.fixture(scope="module")
def remains() -> Iterator[list[Path]]:
    # What a dead process wrote survives it in memory too, and there the many commits cost nothing.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as root:
        # A process of its own, because one with threads must not fork.
        command = [sys.executable, "-m", __name__, root]
        subprocess.run(command, check=True, timeout=300, cwd=Path(__file__).parents[2])
        yield sorted(Path(root).iterdir())


def lines(path: Path) -> list[Any]:
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def reopened(remains: list[Path]) -> Iterator[tuple[Path, SqliteReplica, DiskServer]]:
    for folder in remains:
        with SqliteReplica(folder / "device.db") as replica:
            yield folder, replica, DiskServer(folder)


def test_the_process_really_died_in_many_places(remains: list[Path]) -> None:
    assert len(remains) > 100


def test_whatever_the_moment_nothing_is_lost_doubled_or_torn(remains: list[Path]) -> None:
    for folder, replica, server in reopened(remains):
        reported = lines(folder / "captured.jsonl")
        kept = [tuple(entry.name) for entry in replica.outbox()]
        accepted = [tuple(row["name"]) for row in server.accepted() if row["name"][0] != "the copy"]
        position = replica.position

        own = [entry for entry in replica.outbox() if entry.replica == position.replica]
        groups = Counter((e.mutation.group, e.mutation.group_size) for e in replica.outbox() if e.mutation.group)

        assert len(set(kept)) == len(kept), folder
        assert position.next_n == max((entry.n for entry in own), default=0) + 1 or not own, folder
        assert all(size == count for (_, size), count in groups.items() if ("r_0", 1) in kept), folder
        for entry in replica.outbox():
            held = replica.held(entry.key)
            assert not (entry.acknowledged and entry.replica == "r_0") or (held and held.version >= 10 + entry.n), (
                folder
            )
        # Only what the server keeps in every backup may have left the outbox.
        assert set(reported) <= {*kept, *accepted}, folder
        staged = replica._rows("SELECT count(*) FROM staged")[0][0]
        assert bool(staged) == (position.cursor is not None and position.cursor.endswith(":a")), folder
        assert (position.as_of == 0) == (replica.held(Key("part", "P-1")) is None), folder


def test_the_next_sync_brings_everything_through_once(remains: list[Path]) -> None:
    for folder, replica, server in reopened(remains):
        for _ in range(2):
            sync_once(replica, server, page_size=2)
        accepted = [tuple(row["name"]) for row in server.accepted() if row["name"][0] != "the copy"]

        assert len(set(accepted)) == len(accepted), folder
        assert set(lines(folder / "captured.jsonl")) <= set(accepted), folder
        assert all(entry.acknowledged for entry in replica.outbox()), folder
        assert replica.shown(WO) == replica.held(WO).data, folder  # type: ignore[union-attr]
        assert replica.position.cursor is not None


if __name__ == "__main__":
    die_everywhere(Path(sys.argv[1]))
