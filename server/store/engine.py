"""Connections: one pool per process, with bounds on everything that could wait for ever."""

from __future__ import annotations

import os
import random
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Connection, Engine, Pool, create_engine, event
from sqlalchemy import exc as sqlalchemy_errors

from sync.errors import InvariantBroken, Unavailable

POOL_TIMEOUT_S = 2  # then 503: a caller that waits longer has given up, and its work would be done for nobody
RECYCLE_S = 1_800  # shorter than the idle timeouts of common proxies
IDLE_TIMEOUT_MS = 15_000  # a transaction left open holds locks and stops vacuum
ATTEMPTS = 4  # the first and three more

T = TypeVar("T")


class Contended(Unavailable):
    """Others changed the same records at the same moment. Nothing was changed; try again."""

    code = "contended"


class UnsafeDatabase(InvariantBroken):
    """PostgreSQL runs with synchronous_commit=off, so acknowledged work would be lost in a crash. Set it to on."""

    code = "unsafe_database"


def make_engine(
    url: str,
    *,
    pool_size: int = 8,
    statement_timeout_ms: int = 15_000,
    lock_timeout_ms: int = 5_000,
    application_name: str = "backhaul",
    prepare_threshold: int | None = 5,
    allow_lossy_commit: bool = False,
) -> Engine:
    """The pool of this process. It connects when first used; after a fork the child starts with an empty one.

    prepare_threshold: statements are prepared when used that often; None never, for PgBouncer before 1.21.
    allow_lossy_commit: for tests and throwaway data; otherwise a server without synchronous commit is refused.
    """
    options = {
        "statement_timeout": statement_timeout_ms,
        "lock_timeout": lock_timeout_ms,
        "idle_in_transaction_session_timeout": IDLE_TIMEOUT_MS,
        "jit": "off",  # compiling costs more than any statement here takes
        "timezone": "UTC",
    }
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
        pool_pre_ping=True,
        pool_recycle=RECYCLE_S,
        connect_args={
            "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
            "application_name": application_name,
            "prepare_threshold": prepare_threshold,
        },
    )
    if not allow_lossy_commit:
        event.listen(engine, "connect", _check_durability)
    _ENGINES.add(engine)
    return engine


def _check_durability(connection: Any, record: Any) -> None:
    with connection.cursor() as cursor:
        value = cursor.execute("SHOW synchronous_commit").fetchone()[0]
    connection.rollback()
    if value == "off":
        raise UnsafeDatabase


# -- after a fork -------------------------------------------------------------------------------------------------

_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()
_INHERITED: list[Pool] = []


def _start_anew() -> None:
    """Sockets of the parent must be neither used nor closed by the child: both would break the parent's sessions."""
    for engine in _ENGINES:
        # Kept, so that no finaliser ever runs on the parent's connections.
        _INHERITED.append(engine.pool)
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_start_anew)


# -- using it -----------------------------------------------------------------------------------------------------


@contextmanager
def driver(engine: Engine, *, autocommit: bool = False) -> Iterator[psycopg.Connection[Any]]:
    """A psycopg connection from the pool; what was not committed is rolled back. autocommit: each statement alone."""
    with foreign_errors():
        pooled = engine.raw_connection()
        try:
            connection: psycopg.Connection[Any] = pooled.driver_connection  # type: ignore[assignment]  # by the URL
            if not autocommit:
                yield connection
                return
            connection.autocommit = True
            try:
                yield connection
            finally:
                if not connection.closed:
                    connection.autocommit = False
        finally:
            pooled.close()


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A SQLAlchemy connection whose work is committed at the end of the block."""
    with foreign_errors(), engine.begin() as connection:
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A SQLAlchemy connection for single reads: no BEGIN, no ROLLBACK, each statement its own snapshot."""
    with foreign_errors(), engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


_CONTENDED = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)


@contextmanager
def foreign_errors() -> Iterator[None]:
    """Tell the driver's and the pool's errors in our own words."""
    try:
        yield
    except sqlalchemy_errors.TimeoutError as error:
        raise Unavailable("All database connections are in use.") from error
    except (sqlalchemy_errors.DBAPIError, psycopg.Error) as error:
        told = _told(error.orig if isinstance(error, sqlalchemy_errors.DBAPIError) else error)
        if told is None:
            raise
        raise told from error


def _told(error: BaseException | None) -> Exception | None:
    if isinstance(error, _CONTENDED):
        return Contended()
    # Lost connections, timeouts of statements and locks, shutdowns: all of them OperationalErrors.
    if isinstance(error, psycopg.OperationalError):
        return Unavailable("The database does not answer right now.")
    return None


def retrying(
    work: Callable[[], T], *, jitter: Callable[[], float] = random.random, sleep: Callable[[float], None] = time.sleep
) -> T:
    """What `work` gives. It is run again, up to three times, if it met a deadlock or a serialization failure.

    work: a whole unit of work, from its input on. jitter: 0 to 1, drawn before each new try.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return work()
        except Contended:
            sleep(0.05 * attempt * (0.5 + jitter()))
    return work()
