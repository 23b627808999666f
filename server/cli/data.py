"""`backhaul migrate` and `backhaul demo-data`: what is in the database."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from server.cli.options import Subparsers, add_command, database, fail, hub, now_ms, settings_of
from server.settings import Settings

if TYPE_CHECKING:
    from server.services.demo import DemoSize

BAR = 32  # characters


def add(subparsers: Subparsers) -> None:
    """Add `migrate` and `demo-data`."""
    add_command(
        subparsers,
        "migrate",
        migrate,
        summary="bring the database up to date",
        details="Safe to run at any time; makes the views of the schema `report` anew.",
        examples="  DATABASE_URL=postgresql://user:secret@db/backhaul backhaul migrate",
    )
    parser = add_command(
        subparsers,
        "demo-data",
        demo_data,
        summary="load a made-up company: depots, technicians, parts, stock and two weeks of work",
        details="The same numbers and seed give the same company. What is there already is left as it is.",
        examples="  backhaul demo-data\n  backhaul demo-data --technicians 500 --work-orders 20000 --depots 10",
    )
    for name, default in (("technicians", 50), ("parts", 5_000), ("work-orders", 2_000), ("depots", 4), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, metavar="N", default=default, help=f"({default})")


def migrate(args: argparse.Namespace) -> int:
    """Bring the database up to date."""
    from server.store.migrate import upgrade

    with database(settings_of(args)) as settings:
        assert settings.database_url
        upgrade(settings.database_url)
    print("The database is up to date.")
    return 0


def demo_data(args: argparse.Namespace) -> int:
    """Load the demo company."""
    from server.services.demo import DemoSize

    try:
        size = DemoSize(args.technicians, args.parts, args.work_orders, args.depots, args.seed)
    except ValueError as error:
        return fail(str(error), status=2)
    load(settings_of(args), size, datetime.now(UTC).date(), now_ms())
    return 0


def load(settings: Settings, size: DemoSize, today: date, now: int) -> None:
    """Load a demo company and say how that goes. now: ms."""
    from server.services.demo import load_demo

    began = time.monotonic()
    with hub(settings) as store:
        loaded = load_demo(store, size, today, now, _bar if sys.stdout.isatty() else _Lines())
    took_s = time.monotonic() - began
    print(f"Demo company: {loaded.created} records loaded, {loaded.present} were there before ({took_s:.1f} s).")


def _bar(done: int, total: int) -> None:
    """A bar that is drawn over itself."""
    full = BAR * done // max(total, 1)
    print(f"\r{'█' * full}{'·' * (BAR - full)} {done} of {total}", end="\n" if done >= total else "", flush=True)


class _Lines:
    """A line at every tenth of the way, for logs."""

    def __init__(self) -> None:
        self._tenths = -1

    def __call__(self, done: int, total: int) -> None:
        tenths = 10 * done // max(total, 1)
        if tenths > self._tenths:
            self._tenths = tenths
            print(f"{done} of {total} records", flush=True)
