"""Waking those who wait for news: long polls and streams, at most `waiters` of them in one process.

One thread listens for all. When there may be news it looks once at the heads of every scope that somebody waits for,
and wakes those for whom something is there; a busy company does not wake the whole fleet.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sync.errors import SyncError

Listen = Callable[[threading.Event], Iterator[None]]
Heads = Callable[[Collection[str]], Mapping[str, int]]
_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Waiter:
    """Somebody who waits for a change after `after` in one of `scopes`. head: the change that came, 0 until it does."""

    scopes: frozenset[str]
    after: int
    head: int = 0
    woken: threading.Event = field(default_factory=threading.Event)


class Pokes:
    """Who waits in this process. Listening begins with the first who does, so a fork before that is harmless."""

    def __init__(self, listen: Listen, heads: Heads, waiters: int) -> None:
        """listen: yields when there may be news, until the event is set. heads: the last change of each scope."""
        self._listen, self._heads = listen, heads
        self._slots = threading.BoundedSemaphore(waiters) if waiters else None
        self._lock = threading.Lock()
        self._waiting: set[_Waiter] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = 0

    def enter(self) -> bool:
        """Takes a place to wait in; False if all are taken. Give it back with `leave`."""
        return self._slots is not None and self._slots.acquire(blocking=False)

    def leave(self) -> None:
        """Gives the place back."""
        if self._slots is not None:
            self._slots.release()

    def head(self, scopes: Collection[str]) -> int:
        """The position of the last change in any of `scopes`, 0 if there never was one."""
        return max(self._heads(scopes).values(), default=0)

    def wait(self, scopes: Collection[str], after: int, timeout_s: float) -> int | None:
        """The position of a change after `after` in one of `scopes`, as soon as there is one; None if none came.

        Call it between `enter` and `leave`.
        """
        waiter = _Waiter(frozenset(scopes), after)
        with self._lock:
            self._waiting.add(waiter)
            self._start()
        try:
            self._look([waiter])  # something may have come between reading the feed and this line
            waiter.woken.wait(timeout_s)
        finally:
            with self._lock:
                self._waiting.discard(waiter)
        return waiter.head or None

    def close(self) -> None:
        """Stops listening; those who wait are told nothing and leave when their time is over."""
        self._stop.set()
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join(timeout=5)

    def _start(self) -> None:
        if self._pid != os.getpid():  # a thread does not survive a fork
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(self._stop,), name="pokes", daemon=True)
            self._pid = os.getpid()
            self._thread.start()

    def _run(self, stop: threading.Event) -> None:
        for _ in self._listen(stop):
            with self._lock:
                waiting = list(self._waiting)
            try:
                self._look(waiting)
            except SyncError:
                _log.warning("the heads of %d waiting requests could not be read", len(waiting))

    def _look(self, waiting: Iterable[_Waiter]) -> None:
        wanted = {scope for waiter in waiting for scope in waiter.scopes}
        heads = self._heads(wanted) if wanted else {}
        for waiter in waiting:
            head = max((heads.get(scope, 0) for scope in waiter.scopes), default=0)
            if head > waiter.after:
                waiter.head = head
                waiter.woken.set()
