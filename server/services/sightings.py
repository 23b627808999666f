"""When devices were last seen: gathered in memory and written now and then, in one statement for all of them.

These are figures to look at, not facts to rely on: a process that is killed loses the last few seconds of them. In
return no request waits for them, and no two requests of a device contend for its row.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sync.errors import SyncError

WRITE_EVERY_S: Final = 3.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sighting:
    """What is new about a device; None: nothing. Moments are ms. cursor_seq: up to where it has read the feed."""

    device_id: str
    seen_at: int
    pulled_at: int | None = None
    pushed_at: int | None = None
    cursor_seq: int | None = None
    clock_skew_ms: int | None = None
    app_version: str | None = None


class Sightings:
    """What was seen and not yet written. Safe to share between threads."""

    def __init__(self, write: Callable[[Sequence[Sighting]], None], every_s: float = WRITE_EVERY_S) -> None:
        """write: stores them. every_s: seconds between the first sighting and the writing."""
        self._write, self._every_s = write, every_s
        self._lock = threading.Lock()
        self._unwritten: dict[str, Sighting] = {}
        self._timer: threading.Timer | None = None

    def note(self, sighting: Sighting) -> None:
        """Keeps it until the next writing, over what it replaces."""
        with self._lock:
            known = self._unwritten.get(sighting.device_id)
            self._unwritten[sighting.device_id] = _newer(known, sighting) if known else sighting
            if self._timer is None or not self._timer.is_alive():
                self._timer = threading.Timer(self._every_s, self._write_quietly)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Writes what there is, now."""
        with self._lock:
            unwritten, self._unwritten = self._unwritten, {}
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        if unwritten:
            self._write([unwritten[device_id] for device_id in sorted(unwritten)])

    def _write_quietly(self) -> None:
        try:
            self.flush()
        except SyncError as error:
            _log.warning("sightings of devices were not written: %s", error.code)


def _newer(known: Sighting, later: Sighting) -> Sighting:
    said = {name: value for name in Sighting.__slots__ if (value := getattr(later, name)) is not None}
    return replace(known, **said)
