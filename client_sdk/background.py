"""Syncing on its own: after every change, now and then, and again after a failure, until everything is through."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from client_sdk.retry import Retries
from sync.errors import InvariantBroken, SyncError

LOG = logging.getLogger(__name__)
INTERVAL_S = 30.0  # news from the office reach an idle device this late at most


class BackgroundSync:
    """A thread that calls `sync` until stop().

    on_connectivity: called with True or False when the server becomes reachable or unreachable. on_error: with every
    error. Both are called in the thread, and what they raise is logged: nothing ends the thread but stop().
    """

    def __init__(
        self, sync: Callable[[], object], *, interval_s: float = INTERVAL_S, retries: Retries | None = None,
        on_connectivity: Callable[[bool], None] = lambda online: None,
        on_error: Callable[[SyncError], None] = lambda error: None,
    ) -> None:  # fmt: skip
        self._sync, self._interval_s, self._retries = sync, interval_s, retries or Retries()
        self._on_connectivity, self._on_error = on_connectivity, on_error
        self._wake, self._stopped = threading.Event(), threading.Event()
        self._online: bool | None = None
        self._thread = threading.Thread(target=self._run, name="backhaul sync", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something to send, or the network is back: sync now, unless the server asked to be left alone."""
        self._wake.set()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread; a sync under way may go on to its end."""
        self._stopped.set()
        self._wake.set()
        if threading.current_thread() is not self._thread:  # a callback may well decide to stop
            self._thread.join(timeout_s)

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            self._wake.clear()
            error = self._attempt()
            if error is not None:
                failures += 1
                self._tell(False if error.retryable else self._online)
                self._guarded(partial(self._on_error, error))
                # Waiting needs no new change to end: what failed once is tried again by itself. And no change cuts it
                # short: a technician who types must not turn into a storm.
                self._stopped.wait(self._retries.delay(failures, error))
            else:
                failures = 0
                self._tell(True)
                self._wake.wait(self._interval_s)

    def _attempt(self) -> SyncError | None:
        try:
            self._sync()
        except SyncError as error:
            return error
        except Exception as error:
            # Work that stays unsent because a thread died unseen would be worse than any error.
            LOG.exception("A background sync failed in a way that it should not.")
            return InvariantBroken(f"The sync failed unexpectedly ({type(error).__name__}). Work is kept.")
        return None

    def _guarded(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            LOG.exception("A callback of the background sync failed.")

    def _tell(self, online: bool | None) -> None:
        if online is not None and online != self._online:
            self._online = online
            self._guarded(partial(self._on_connectivity, online))
