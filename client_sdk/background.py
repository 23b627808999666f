"""Syncing on its own: after every change, now and then, and again after a failure, until everything is through."""

from __future__ import annotations

import threading
from collections.abc import Callable

from client_sdk.retry import Retries
from sync.errors import SyncError

INTERVAL_S = 30.0  # news from the office reach an idle device this late at most


class BackgroundSync:
    """A thread that calls `sync` until stop().

    on_connectivity: called with True or False when the server becomes reachable or unreachable. on_error: with every
    error. Both are called in the thread.
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
        self._thread.join(timeout_s)

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            self._wake.clear()
            try:
                self._sync()
            except SyncError as error:
                failures += 1
                self._tell(False if error.retryable else self._online)
                self._on_error(error)
                # Waiting needs no new change to end: what failed once is tried again by itself. And no change cuts it
                # short: a technician who types must not turn into a storm.
                self._stopped.wait(self._retries.delay(failures, error))
            else:
                failures = 0
                self._tell(True)
                self._wake.wait(self._interval_s)

    def _tell(self, online: bool | None) -> None:
        if online is not None and online != self._online:
            self._online = online
            self._on_connectivity(online)
