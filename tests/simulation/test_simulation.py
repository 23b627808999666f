"""A short run of the simulation. Long ones: `make simulation`, `make simulation-postgres`, `make simulation-bugs`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from server.store.engine import make_engine
from server.store.migrate import upgrade
from tests.simulation.bugs import BUGS, ROOT, Bug, hunt
from tests.simulation.history import Step, plan
from tests.simulation.hubs import PostgresSimHub, SimHub
from tests.simulation.runner import Outcome, Setup, never_fired, play_seed, run
from tests.simulation.shrink import shrink
from tests.simulation.violation import Violation

CLEAN = range(max(100, *(bug.first + 1 for bug in BUGS)))
"""Nothing breaks in these; so what breaks in one of them with a bug is the bug's doing."""


def test_nothing_breaks_in_random_histories_and_every_fault_happens() -> None:
    outcome = run(CLEAN, Setup())

    assert outcome.failed == []
    assert never_fired(outcome) == []


def test_nothing_breaks_in_random_histories_on_postgresql(make_database: Callable[[], str]) -> None:
    with _hubs(make_database()) as new_hub:
        outcome = Outcome(10)
        for seed in range(1, 11):
            outcome.faults += play_seed(seed, new_hub, Setup("postgres"))

    assert outcome.faults["hub_fails_before_commit"]
    assert outcome.faults["hub_fails_after_commit"]
    assert outcome.faults["epoch_rotation"]


@contextmanager
def _hubs(url: str) -> Iterator[Callable[[], SimHub]]:
    upgrade(url)
    engine = make_engine(url)
    try:
        yield lambda: PostgresSimHub(engine)
    finally:
        engine.dispose()


def test_a_history_is_the_same_in_every_process() -> None:
    traces = [
        subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--trace", "--seeds", "0:8"],
            cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]  # fmt: skip

    assert len(traces[0].strip()) == 64
    assert traces[0] == traces[1]


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_a_bug_put_in_on_purpose_is_caught(bug: Bug) -> None:
    found = hunt(bug)

    assert found["invariant"], bug.what


def test_a_failing_history_is_made_as_short_as_it_can_be() -> None:
    def play(steps: Sequence[Step]) -> Violation | None:
        places = {step.place for step in steps}
        return Violation("I1 converge", "7 and 23") if {7, 23} <= places else None

    steps, violation = shrink(plan(1, 40), Violation("I1 converge", "as it was"), play)

    assert [step.place for step in steps] == [7, 23]
    assert violation.detail == "7 and 23"


def test_a_history_that_breaks_otherwise_is_not_taken_for_a_shorter_one() -> None:
    def play(steps: Sequence[Step]) -> Violation | None:
        return Violation("I1 converge" if len(steps) == 40 else "I3 no lost update", "…")

    steps, violation = shrink(plan(1, 40), Violation("I1 converge", "as it was"), play)

    assert len(steps) == 40
    assert violation.detail == "as it was"
