"""What the commands share: their common options, the settings and database behind them, and how they fail.

A command gives 0, or 1 if it could not do its work, or 2 if it was asked wrongly; it says why on stderr in a line.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from server.embedded import EmbeddedError, EmbeddedPostgres
from server.settings import Settings, SettingsError, from_environ
from sync.errors import SyncError

if TYPE_CHECKING:
    from server.services.devices import Desk
    from server.store.hub import PostgresHub

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # argparse has no public name for it
OPERATOR = "user:operator"  # in the audit: whoever may run commands on the server
OURS = ("server", "sync", "migrations")  # one of these missing is our mistake, not an extra
Run = Callable[[argparse.Namespace], int]


def add_command(
    subparsers: Subparsers, name: str, run: Run, *, summary: str, details: str = "", examples: str = ""
) -> argparse.ArgumentParser:
    """A command's parser, to add its options to. run: gives the exit status."""
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=textwrap.fill(f"{summary[0].upper()}{summary[1:]}. {details}".rstrip(), 80),
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data-dir", type=Path, metavar="FOLDER", help="keys, logs and embedded database (.backhaul)")
    parser.set_defaults(run=_telling(run))
    return parser


def _telling(run: Run) -> Run:
    """`run`, with the failures that an operator can mend told in one line instead of a traceback."""

    def told(args: argparse.Namespace) -> int:
        try:
            return run(args)
        except SettingsError as error:
            return fail(str(error), status=2)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in OURS:
                raise
            return fail(f"this command needs {error.name}. Install it: pip install 'backhaul[server]'", status=2)
        except BrokenPipeError:
            raise  # the console script's
        except (EmbeddedError, SyncError, OSError) as error:
            return fail(str(error))

    return told


def fail(message: str, status: int = 1) -> int:
    """Say on stderr what went wrong; the exit status."""
    print(f"backhaul: {message}", file=sys.stderr)
    return status


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings of the environment, with what the command line gave over them. Raises SettingsError."""
    given = vars(args)
    return from_environ(**{name: given.get(name) for name in ("data_dir", "host", "port")})


@contextmanager
def database(settings: Settings) -> Iterator[Settings]:
    """The settings with a database URL in them: yours, or that of the embedded server in the data directory.

    The embedded one is joined if it runs, else started for as long as this takes, and brought up to date: it is ours.
    """
    if settings.database_url:
        yield settings
        return
    from server.store.migrate import is_current, upgrade

    with EmbeddedPostgres(settings.data_dir) as url:
        if not is_current(url):
            upgrade(url)
        yield replace(settings, database_url=url)


@contextmanager
def hub(settings: Settings) -> Iterator[PostgresHub]:
    """The store behind `settings`, for one thread."""
    from server.store.engine import make_engine
    from server.store.hub import PostgresHub

    with database(settings) as complete:
        assert complete.database_url
        engine = make_engine(complete.database_url, pool_size=1)
        try:
            yield PostgresHub(engine)
        finally:
            engine.dispose()


@contextmanager
def desk(settings: Settings) -> Iterator[Desk]:
    """What enrolling and signing in need, behind `settings`."""
    from server.services.devices import Desk
    from server.services.keys import KeyRing
    from server.store.engine import make_engine

    with database(settings) as complete:
        assert complete.database_url
        engine = make_engine(complete.database_url, pool_size=1)
        try:
            yield Desk(engine, KeyRing.open(complete.keys_dir), complete, now_ms)
        finally:
            engine.dispose()


def now_ms() -> int:
    """Now, ms since the Unix epoch."""
    return time.time_ns() // 1_000_000
