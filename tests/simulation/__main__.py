"""The command line of the simulation; see the package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.simulation.runner import (
    STORES,
    Progress,
    Setup,
    never_fired,
    play_seed,
    report,
    run,
    shrink_seed,
    table,
    trace_of,
)
from tests.simulation.violation import Violation

SHRUNK = 3  # failing histories are made short; the others are named


def main(arguments: list[str] | None = None) -> int:
    """Run histories. Returns 1 if an invariant broke or a fault never happened."""
    args = _parser().parse_args(arguments)
    setup = Setup(args.store, args.devices, args.steps)
    if args.trace:
        print(trace_of(args.seeds, setup))
        return 0
    if args.seed is not None:
        return _replay(args.seed, setup)
    progress = Progress(len(args.seeds))
    outcome = run(args.seeds, setup, args.jobs, progress)
    seconds = max(progress.seconds, 0.001)
    never = never_fired(outcome)
    print(table(outcome, seconds, setup))
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(report(outcome, seconds, never), encoding="utf-8")
    for failed in sorted(outcome.failed, key=lambda failed: failed.seed)[:SHRUNK]:
        print()
        _replay(failed.seed, setup)
    for failed in sorted(outcome.failed, key=lambda failed: failed.seed)[SHRUNK:]:
        print(f"seed {failed.seed}: {failed.invariant}")
    for name in never:
        print(f"It never came to {name.replace('_', ' ')}: this run says nothing about it. Play more histories.")
    return 1 if outcome.failed or never else 0


def _replay(seed: int, setup: Setup) -> int:
    with STORES[setup.store]() as new_hub:
        try:
            faults = play_seed(seed, new_hub, setup)
        except Violation as violation:
            print(f"seed {seed} breaks {violation.invariant}: {violation.detail}")
            print(shrink_seed(seed, violation, new_hub, setup))
            more = f" --store {setup.store} --devices {setup.devices} --steps {setup.steps}"
            print(f"Replay it with: python -m tests.simulation --seed {seed}{more}")
            return 1
    print(f"seed {seed}: nothing broke; {dict(sorted(faults.items()))}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=_range, default=range(2_000), metavar="A:B", help="from A up to before B")
    parser.add_argument("--seed", type=int, help="replay one history, and shrink it if it fails")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--store", choices=sorted(STORES), default="memory", help="the hub's store (memory)")
    parser.add_argument("--devices", type=int, default=4, help="devices at the beginning (4)")
    parser.add_argument("--steps", type=int, default=40, help="steps of chaos in a history (40)")
    parser.add_argument("--out", default="build/simulation.json", help="where the figures go")
    parser.add_argument("--trace", action="store_true", help="print one hash of all that happened, and nothing else")
    return parser


def _range(text: str) -> range:
    first, colon, end = text.partition(":")
    return range(int(first), int(end)) if colon else range(int(first))


if __name__ == "__main__":
    sys.exit(main())
