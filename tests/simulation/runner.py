"""Playing many histories: seeds over processes, progress, the table at the end."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import multiprocessing.util
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation.history import FAULTS, Step, plan
from tests.simulation.hubs import SimHub, memory_hubs, postgres_hubs
from tests.simulation.shrink import shrink
from tests.simulation.violation import Violation
from tests.simulation.world import play

TWICE = 50  # every so many seeds one is played twice
STORES: dict[str, Callable[[], AbstractContextManager[Callable[[], SimHub]]]] = {
    "memory": memory_hubs,
    "postgres": postgres_hubs,
}


@dataclass(frozen=True, slots=True)
class Setup:
    """What a run consists of, beside its seeds."""

    store: str = "memory"
    devices: int = 4
    steps: int = 40


@dataclass(frozen=True, slots=True)
class Failed:
    """A history in which an invariant broke."""

    seed: int
    invariant: str
    detail: str


@dataclass(slots=True)
class Outcome:
    """What some histories came to."""

    seeds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failed: list[Failed] = field(default_factory=list)


# -- one history --------------------------------------------------------------------------------------------------


def play_steps(
    seed: int, steps: Iterable[Step], new_hub: Callable[[], SimHub], setup: Setup
) -> tuple[str, Counter[str]]:
    """Play a history in a folder of its own; its trace and the faults in it. Raises Violation."""
    folder = Path(tempfile.mkdtemp(prefix=f"sim-{seed}-", dir=_fast_folder()))
    try:
        world = play(seed, steps, new_hub(), folder, setup.devices)
        return world.trace, world.faults
    finally:
        shutil.rmtree(folder)


def play_seed(seed: int, new_hub: Callable[[], SimHub], setup: Setup) -> Counter[str]:
    """Play history `seed`, some of them twice; the faults in it. Raises Violation."""
    steps = plan(seed, setup.steps)
    trace, faults = play_steps(seed, steps, new_hub, setup)
    if seed % TWICE == 0 and play_steps(seed, steps, new_hub, setup)[0] != trace:
        raise Violation("determinism", "played twice, the history was not the same")
    return faults


def shrink_seed(seed: int, violation: Violation, new_hub: Callable[[], SimHub], setup: Setup) -> str:
    """The shortest history in which the same invariant breaks, as text."""

    def try_(steps: Sequence[Step]) -> Violation | None:
        try:
            play_steps(seed, steps, new_hub, setup)
        except Violation as found:
            return found
        return None

    steps, last = shrink(plan(seed, setup.steps), violation, try_)
    lines = [f"   {step}" for step in steps]
    return "\n".join(
        [f"{len(steps)} of its {setup.steps} steps are enough:", *lines, f"   {last.invariant}: {last.detail}"]
    )


def _fast_folder() -> str | None:
    # Devices sync every commit to the disk, which is a formality on a file system in memory.
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


# -- many ---------------------------------------------------------------------------------------------------------


def run(
    seeds: range, setup: Setup, jobs: int = 1, progress: Callable[[Outcome], None] = lambda outcome: None
) -> Outcome:
    """Play all `seeds`."""
    total = Outcome()
    with _parts(seeds, setup, jobs) as parts:
        for part in parts:
            total.seeds += part.seeds
            total.faults += part.faults
            total.failed += part.failed
            progress(total)
    return total


@contextmanager
def _parts(seeds: range, setup: Setup, jobs: int) -> Iterator[Iterator[Outcome]]:
    if jobs <= 1:
        with STORES[setup.store]() as new_hub:
            yield (_play(seed, new_hub, setup) for seed in seeds)
        return
    # Fresh processes: a fork would share connections and threads.
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, _begin, (setup,)) as pool:
        yield pool.imap_unordered(_play_here, seeds, chunksize=4)
        pool.close()
        pool.join()


def _play(seed: int, new_hub: Callable[[], SimHub], setup: Setup) -> Outcome:
    try:
        return Outcome(1, play_seed(seed, new_hub, setup))
    except Violation as violation:
        return Outcome(1, failed=[Failed(seed, violation.invariant, violation.detail)])


_here: list[tuple[Callable[[], SimHub], Setup]] = []


def _begin(setup: Setup) -> None:
    hubs = STORES[setup.store]()
    _here.append((hubs.__enter__(), setup))
    # multiprocessing ends its children without atexit, but not without its own finalisers.
    multiprocessing.util.Finalize(None, hubs.__exit__, (None, None, None), exitpriority=10)


def _play_here(seed: int) -> Outcome:
    return _play(seed, *_here[0])


# -- telling ------------------------------------------------------------------------------------------------------


class Progress:
    """A line that is written over as histories are played."""

    def __init__(self, seeds: int) -> None:
        self._seeds, self._began, self._last = seeds, time.monotonic(), 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def __call__(self, outcome: Outcome) -> None:
        if time.monotonic() - self._last < (0.5 if sys.stderr.isatty() else 15):
            return
        self._last = time.monotonic()
        rate = outcome.seeds / max(self.seconds, 0.001)
        line = f"{outcome.seeds} of {self._seeds} histories, {rate:.1f} a second, {len(outcome.failed)} violations"
        print(line, end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)


def table(outcome: Outcome, seconds: float, setup: Setup) -> str:
    """What a run came to, for a person."""
    lines = [
        f"{'store':28} {setup.store}",
        f"{'histories':28} {outcome.seeds}",
        f"{'histories a second':28} {outcome.seeds / seconds:.1f}",
        f"{'violations':28} {len(outcome.failed)}",
        *(f"{name.replace('_', ' '):28} {outcome.faults[name]}" for name in FAULTS),
    ]
    return "\n".join(lines)


def never_fired(outcome: Outcome) -> list[str]:
    """The faults that a run did not see: it says nothing about them."""
    return [name for name in FAULTS if not outcome.faults[name]]


def report(outcome: Outcome, seconds: float, never: Sequence[str]) -> str:
    """The same as JSON."""
    document = {
        "seeds": outcome.seeds,
        "violations": len(outcome.failed) + len(never),
        "histories_per_s": round(outcome.seeds / seconds, 1),
        "faults": {name: outcome.faults[name] for name in FAULTS},
    }
    return json.dumps(document, indent=2) + "\n"


def trace_of(seeds: range, setup: Setup) -> str:
    """One hash over the traces of `seeds`, to compare processes by."""
    digest = hashlib.sha256()
    with STORES[setup.store]() as new_hub:
        for seed in seeds:
            digest.update(play_steps(seed, plan(seed, setup.steps), new_hub, setup)[0].encode())
    return digest.hexdigest()
