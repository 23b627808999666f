"""`backhaul run`: everything on one machine, from nothing: database, API and, if wanted, a demo company at work."""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx

from server.cli.options import Subparsers, add_command, fail, now_ms, settings_of
from server.embedded import EmbeddedError, EmbeddedPostgres
from server.settings import Settings

if TYPE_CHECKING:
    from server.cli.children import ApiProcess

READY_S = 60  # recovery of the database after a crash included
WATCH_S = 2


def add(subparsers: Subparsers) -> None:
    """Add `run`."""
    parser = add_command(
        subparsers,
        "run",
        run,
        summary="run everything on this machine: PostgreSQL, migrations and the API",
        details="Without DATABASE_URL a PostgreSQL is started in the data directory. Prints `ready http://HOST:PORT` "
        "when the API answers; Ctrl-C or SIGTERM stops all that was started.",
        examples="  backhaul run\n  backhaul run --demo --port 0 --data-dir /tmp/demo",
    )
    parser.add_argument("--host", metavar="ADDRESS", help="the address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, metavar="N", help="the port to listen on; 0 picks one (8080)")
    parser.add_argument(
        "--demo", action="store_true", help="load a small demo company and play a day of two technicians without signal"
    )


def run(args: argparse.Namespace) -> int:
    """Start what is needed, and stay until told to stop."""
    from server.cli.children import ApiProcess, Interruptions
    from server.cli.serve import listen, url_of

    settings = settings_of(args)
    interruptions = Interruptions()
    with ExitStack() as started:
        try:
            interruptions.listen()
            listener = started.enter_context(listen(settings))
            url = url_of(listener)
            postgres = None if settings.database_url else EmbeddedPostgres(settings.data_dir)
            if postgres:
                started.callback(postgres.stop)
                with interruptions.held():
                    settings = replace(settings, database_url=postgres.start())
            _prepare(settings, demo=args.demo)
            api = ApiProcess(settings, listener, settings.data_dir / "logs" / "server.log")
            started.enter_context(api)
            if not _becomes_ready(api, url):
                return fail(f"the API did not start. The end of its log:\n{api.last_words()}")
            print(f"ready {url}", flush=True)
            if args.demo:
                from server.cli.story import play

                play(settings, url)
            print(f"Running at {url}, log in {api.log_file}. Ctrl-C stops it.", flush=True)
            return _watch(api, postgres)
        except KeyboardInterrupt:
            print("\nStopping.", flush=True)
            return 0
        finally:
            interruptions.ignore()


def _prepare(settings: Settings, demo: bool) -> None:
    """Migrate and, for the demo, load the small company."""
    from server.store.migrate import upgrade

    assert settings.database_url
    print("Preparing the database …", flush=True)
    upgrade(settings.database_url)
    if demo:
        from server.cli.data import load
        from server.services.demo import DemoSize

        load(settings, DemoSize(technicians=4, parts=200, work_orders=40, depots=1), datetime.now(UTC).date(), now_ms())


def _becomes_ready(api: ApiProcess, url: str) -> bool:
    """Whether /readyz answers 200 in good time."""
    end = time.monotonic() + READY_S
    while api.is_alive() and time.monotonic() < end:
        try:
            if httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200:
                return True
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    return False


def _watch(api: ApiProcess, postgres: EmbeddedPostgres | None) -> int:
    """Look after what runs: a database that died is started again; without the API there is nothing to stay for."""
    while api.is_alive():
        time.sleep(WATCH_S)
        if postgres and not postgres.is_running():
            try:
                postgres.start()
            except EmbeddedError as error:
                return fail(f"the database stopped and cannot be started again: {error}")
    return fail(f"the API stopped. The end of its log:\n{api.last_words()}")
