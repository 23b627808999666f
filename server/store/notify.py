"""News from the database: a commit that moved the feed says so, and one connection a process listens.

A notification carries nothing that is relied on: it may be lost with its connection, so every new connection counts as
news. Who waits then looks at the heads of their own scopes, in one statement for all of them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Final

import psycopg
from sqlalchemy import Engine, select

from server.store.engine import reading
from server.store.saving import CHANNEL
from server.store.tables import scope_head

GATHER_S: Final = 0.02  # notifications this close together are one: a surge of pushes costs 50 looks a second at most
_LOOK_UP_S: Final = 0.5  # how often a listener that hears nothing looks whether it should stop
_RETRY_S: Final = 1.0
_log = logging.getLogger(__name__)


def listen(engine: Engine, stop: threading.Event) -> Iterator[None]:
    """Yields when there may be news, until `stop` is set. Connects again by itself, on a connection beside the pool."""
    while not stop.is_set():
        try:
            with _connect(engine) as connection:
                connection.execute(f"LISTEN {CHANNEL}")
                yield
                while not stop.is_set():
                    if list(connection.notifies(timeout=_LOOK_UP_S, stop_after=1)):
                        list(connection.notifies(timeout=GATHER_S))
                        yield
        except psycopg.Error as error:
            _log.warning("listening was interrupted: %s", type(error).__name__)
            stop.wait(_RETRY_S)


def scope_heads(engine: Engine, scopes: Collection[str]) -> dict[str, int]:
    """The position of the last change in each of `scopes`; a scope in which nothing ever happened is left out."""
    with reading(engine) as connection:
        rows = connection.execute(
            select(scope_head.c.scope, scope_head.c.seq).where(scope_head.c.scope.in_(sorted(scopes)))
        )
        return {scope: seq for scope, seq in rows}


def _connect(engine: Engine) -> psycopg.Connection[tuple[object, ...]]:
    arguments, options = engine.dialect.create_connect_args(engine.url)
    connect: Callable[..., psycopg.Connection[tuple[object, ...]]] = psycopg.connect
    return connect(*arguments, **options, autocommit=True, application_name="backhaul listen")
