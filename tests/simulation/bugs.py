"""Bugs put into shipped code on purpose, to see that the simulation would find them.

    python -m tests.simulation.bugs                  all of them; exit 1 if one is not caught within 200 histories
    python -m tests.simulation.bugs --only NAME      one of them

Each is a piece of one module's source, exchanged as the module is imported in a process of its own. A bug whose piece
is not found is an error: then the code has changed, and the bug has to follow.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

MOST_SEEDS = 200
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Bug:
    """first: the seed to begin with, one that caught it before. what: the mistake, in words.

    shipped, broken: a piece of `module`'s source, and what it becomes.
    """

    name: str
    first: int
    what: str
    module: str
    shipped: str
    broken: str


BUGS = (
    Bug(
        "no_dedup", 0, "a push that comes again is processed again",
        "server.services.changes",
        "    fresh = [mutation for mutation in mutations if mutation.n > replica.last_n]\n",
        "    fresh, known = list(mutations), {}\n",
    ),
    Bug(
        "cursor_before_rows", 32, "the cursor of a page is stored before its rows",
        "client_sdk.replica",
        '        with self._writing():\n            self._run_many(\n                "INSERT OR REPLACE INTO staged',
        '        self._put("cursor", page.cursor)\n'
        '        with self._writing():\n            self._run_many(\n                "INSERT OR REPLACE INTO staged',
    ),
    Bug(
        "fork_by_one", 4, "after a fork the forked mutation keeps its name",
        "sync.session",
        "_rename(replica, server, batch[0].replica, forked_at, report)",
        "_rename(replica, server, batch[0].replica, forked_at + 1, report)",
    ),
    Bug(
        "base_at_send", 9, "the base is that of the record when it is sent, not when it was captured",
        "sync.session",
        "[as_sent(entry.mutation) for entry in batch]",
        '[as_sent(__import__("sync.wire").wire.rebased(e.mutation, '
        "h.clock if (h := replica.held(e.key)) else {})) for e in batch]",
    ),
    Bug(
        "loser_forgotten", 2, "a write that lost is not kept beside the field",
        "sync.merge",
        "stands = FieldState(verdict.winner.dot, writes)",
        "stands = FieldState(verdict.winner.dot, (verdict.winner,))",
    ),
    Bug(
        "last_write_clobbers", 2, "a write replaces others that it has not seen",
        "sync.merge",
        "survivors = tuple(w for w in state.writes if not contains(base, w.dot)) if state else ()",
        "survivors: tuple[Write, ...] = ()",
    ),
    Bug(
        "remove_wins", 102, "taking an element out of a set undoes additions that were not seen",
        "sync.merge",
        "        held[element] = uncovered(held.get(element, ()), base)\n",
        "        held[element] = ()\n",
    ),
    Bug(
        "evict_ignored", 0, "a device keeps what left its scopes",
        "client_sdk.replica",
        "(scope, entity, id) IN (SELECT scope, entity, id FROM staged)",
        "(scope, entity, id) IN (SELECT scope, entity, id FROM staged WHERE op != 'evict')",
    ),
    Bug(
        "tombstone_as_put", 5, "a deleted record is announced as a live one",
        "sync.feed",
        'op = "delete" if after.deleted else "put"',
        'op = "put"',
    ),
    Bug(
        "restart_forgets", 41, "after a restore of the hub a device does not offer again what was acknowledged",
        "client_sdk.replica",
        '"UPDATE outbox SET acknowledged = 0 WHERE wanted"',
        '"UPDATE outbox SET acknowledged = 0 WHERE wanted AND 0"',
    ),
    Bug(
        "sent_out_of_outbox", 89, "a mutation leaves the outbox when it is sent, before it was answered",
        "sync.session",
        "        name = batch[0].replica\n        try:\n",
        "        name = batch[0].replica\n"
        "        replica.settle([(e, Result(e.n, \"applied\")) for e in batch], 0)\n        try:\n",
    ),
    Bug(
        "tally_without_version", 0, "the running checksum ignores versions",
        "sync.feed",
        "weight = sign * row_hash(record.entity, record.id, record.version)",
        "weight = sign * row_hash(record.entity, record.id, 1)",
    ),
    Bug(
        "clock_not_clamped", 1, "what a device says about the time is believed",
        "sync.view",
        "at = min(max(mutation.occurred_at, lower), now)",
        "at = mutation.occurred_at",
    ),
    Bug(
        "clock_not_suspected", 115, "a clock that is years ahead decides like any other",
        "sync.view",
        "suspect = not lower - SKEW_BOUND_MS <= mutation.occurred_at <= now + SKEW_BOUND_MS",
        "suspect = False",
    ),
    Bug(
        "group_not_atomic", 3, "the members of a group are merged one by one",
        "sync.hub",
        "if groups and mutation.group is not None and groups[-1][-1].group == mutation.group:",
        "if groups and mutation.n < 0:",
    ),
    Bug(
        "pages_shown_at_once", 0, "each page is shown as it comes",
        "client_sdk.replica",
        "return set() if page.more else self._show(page)",
        "return self._show(page)",
    ),
    Bug(
        "last_n_by_one", 3, "the last of a device's own mutations stays on top of server state that contains it",
        "client_sdk.replica",
        "UPDATE outbox SET covered = (CASE WHEN replica = ? THEN n <= ? ELSE acknowledged END)",
        "UPDATE outbox SET covered = (CASE WHEN replica = ? THEN n < ? ELSE acknowledged END)",
    ),
    Bug(
        "own_work_hidden", 0, "unsent work is not shown on top of server state",
        "sync.replica",
        "return [entry.mutation for entry in entries if not entry.covered]",
        "return [entry.mutation for entry in entries if not entry.covered and entry.acknowledged]",
    ),
    Bug(
        "scope_check_missing", 0, "the answer to a push shows records whoever sent it",
        "sync.hub",
        "decisions, readable = merged.decisions, sender.actor.sees(after.scopes)",
        "decisions, readable = merged.decisions, True",
    ),
    Bug(
        "children_stay", 0, "what refers to a record stays in its old scopes when the record moves",
        "sync.feed",
        "    if any(_moved(batch.before[key], record) for key, record in batch.records.items()):\n",
        "    if batch.now < 0:\n",
    ),
    Bug(
        "grant_not_filled", 0, "a scope granted later is not filled in",
        "sync.feed",
        "fresh = {scope: 0 for scope in held if scope not in self.scopes}",
        "fresh: dict[str, int] = {}",
    ),
    Bug(
        "epoch_ignored", 4, "a cursor of a lost timeline is served",
        "server.services.changes",
        "    if cursor and cursor.epoch != slice_.epoch:\n",
        "    if cursor and cursor.epoch < 0:\n",
    ),
    Bug(
        "versions_again", 4, "after a restore versions are issued a second time",
        "sync.clock",
        "return max(version + 1, (epoch << EPOCH_BITS) + 1) if epoch else version + 1",
        "return version + 1",
    ),
    Bug(
        "dropped_before_durable", 6, "acknowledged work is dropped before every backup contains it",
        "client_sdk.replica",
        "wanted AND replica = ? AND n <= ? AND acknowledged AND covered",
        "wanted AND replica = ? AND ? >= 0 AND acknowledged AND covered",
    ),
)  # fmt: skip


# -- with one bug -------------------------------------------------------------------------------------------------


class _Broken(importlib.machinery.SourceFileLoader):
    """Loads a module with a bug in it."""

    bug: Bug

    def get_code(self, fullname: str) -> CodeType:
        source = Path(self.path).read_text(encoding="utf-8")
        if source.count(self.bug.shipped) != 1:
            raise SystemExit(f"{self.bug.name}: {self.bug.module} no longer holds its piece once; let the bug follow.")
        code: CodeType = compile(source.replace(self.bug.shipped, self.bug.broken), self.path, "exec")
        return code


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the one module that has the bug."""

    def __init__(self, bug: Bug) -> None:
        self._bug = bug

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._bug.module:
            return None
        found = importlib.machinery.PathFinder.find_spec(name, path)
        assert found is not None
        assert found.origin is not None
        loader = _Broken(name, found.origin)
        loader.bug = self._bug
        return importlib.util.spec_from_file_location(name, found.origin, loader=loader)


def play_with(bug: Bug) -> dict[str, Any]:
    """Play histories until one fails. Only in a process that has imported nothing of the project yet."""
    if bug.module in sys.modules:
        raise SystemExit(f"{bug.module} was imported already, without its bug")
    sys.meta_path.insert(0, _Finder(bug))
    from tests.simulation.runner import STORES, Setup, play_seed
    from tests.simulation.violation import Violation

    setup = Setup()
    with STORES[setup.store]() as new_hub:
        for seed in (bug.first, *(seed for seed in range(MOST_SEEDS) if seed != bug.first)):
            try:
                play_seed(seed, new_hub, setup)
            except Violation as violation:
                return {"seed": seed, "invariant": violation.invariant, "detail": violation.detail}
    return {"seed": None, "invariant": None, "detail": ""}


# -- all of them --------------------------------------------------------------------------------------------------


def hunt(bug: Bug) -> dict[str, Any]:
    """What became of `bug`, in a process of its own."""
    began = time.monotonic()
    child = subprocess.run(
        [sys.executable, "-m", "tests.simulation.bugs", "--here", bug.name],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if child.returncode:
        raise RuntimeError(f"{bug.name}: {child.stderr[-2_000:]}")
    found: dict[str, Any] = json.loads(child.stdout)
    return {**found, "seconds": time.monotonic() - began}


def main(arguments: list[str] | None = None) -> int:
    """Hunt the bugs. Returns 1 if one was not caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.bugs", description=__doc__)
    names = [bug.name for bug in BUGS]
    parser.add_argument("--only", choices=names, help="hunt this one")
    parser.add_argument("--here", choices=names, help=argparse.SUPPRESS)
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    args = parser.parse_args(arguments)
    chosen = [bug for bug in BUGS if bug.name in (args.only or args.here or bug.name)]
    if args.here:
        print(json.dumps(play_with(chosen[0])))
        return 0
    missed = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for bug, found in zip(chosen, pool.map(hunt, chosen), strict=True):
            missed += found["invariant"] is None
            caught = f"seed {found['seed']:3}  {found['invariant']}" if found["invariant"] else "NOT CAUGHT"
            print(f"{bug.name:24} {caught:36} {found['seconds']:5.1f} s  {bug.what}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} bugs were caught within {MOST_SEEDS} histories each.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
