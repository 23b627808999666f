"""How often somebody may be wrong: guesses at codes and secrets are counted, and then have to wait.

Counted in the memory of one process. With several, somebody gets as many tries in each; what is guarded has 60 bits
and more, so that the bound is there to make guessing visible and cheap to refuse, not to make it impossible.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

from sync.errors import TooManyRequests

_MAX_NAMES: Final = 10_000  # of callers remembered; then the oldest is forgotten


class Throttle:
    """At most `failures` failures of one caller in `window_s` seconds. Safe to share between threads."""

    def __init__(self, failures: int, window_s: int) -> None:
        self._failures, self._window_ms = failures, window_s * 1000
        self._lock = threading.Lock()
        self._seen: dict[str, deque[int]] = {}

    def check(self, name: str, now: int) -> None:
        """Raises TooManyRequests if `name` failed too often. now: ms."""
        with self._lock:
            failed = self._recent(name, now)
            if failed is not None and len(failed) >= self._failures:
                wait_ms = failed[0] + self._window_ms - now
                raise TooManyRequests("Too many wrong tries. Wait a little.", retry_after_s=max(1, -(-wait_ms // 1000)))

    def failed(self, name: str, now: int) -> None:
        """Counts a failure of `name`."""
        with self._lock:
            if name not in self._seen and len(self._seen) >= _MAX_NAMES:
                del self._seen[next(iter(self._seen))]
            self._seen.setdefault(name, deque(maxlen=self._failures)).append(now)

    def _recent(self, name: str, now: int) -> deque[int] | None:
        failed = self._seen.get(name)
        while failed and failed[0] <= now - self._window_ms:
            failed.popleft()
        if failed is not None and not failed:
            del self._seen[name]
            return None
        return failed
