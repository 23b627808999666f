"""A reader that follows the whole feed from beginning to end, beside the devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.services.changes import Reader, pull_changes
from sync.errors import EpochChanged
from sync.protocol import Change, PullRequest
from sync.record import Key
from sync.store import FeedPosition
from tests.simulation.company import SCOPES
from tests.simulation.violation import Violation, demand

if TYPE_CHECKING:
    from tests.simulation.world import World

READER = Reader("user:observer", SCOPES)
SECRET = b"a secret of the observer"


class Observer:
    """I6: rows come in rising order, and none appears below a position that was served."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._start()

    def _start(self) -> None:
        self._cursor: str | None = None
        self._last = 0
        self._from = 0  # up to here only what was live then was served
        self._rows: dict[tuple[str, Key], Change] = {}
        self._must_restart = False

    def expect_restart(self) -> None:
        """The hub was restored: the next poll has to be refused."""
        self._must_restart = True

    def poll(self) -> None:
        """Read to the end of the feed."""
        limit = 1 + self._last % 40  # pages of any size
        while True:
            try:
                page = pull_changes(
                    self._world.hub.store, READER, PullRequest(self._cursor, limit), SECRET, self._world.now
                )
            except EpochChanged:
                demand(self._must_restart, "I16 epoch", "a cursor of this epoch was refused")
                self._start()
                continue
            if self._must_restart and self._cursor is not None:
                raise Violation("I16 epoch", "a cursor of a lost timeline was served")
            if self._cursor is None:
                self._from = page.as_of
            self._must_restart, self._cursor = False, page.cursor
            for row in page.changes:
                demand(row.seq > self._last, "I6 feed monotonic", f"row {row.seq} came after position {self._last}")
                self._last = row.seq
                self._rows[row.scope, row.key] = row
            if not page.more:
                self._last = max(self._last, page.as_of)
                return
            limit = 1_000

    def check(self) -> None:
        """What was served one by one is what stands in the feed now."""
        feed = self._world.hub.store.read_feed([FeedPosition(scope, 0, 0) for scope in SCOPES], 1_000_000, None)
        seqs = [row.seq for row in feed.rows]
        demand(len(set(seqs)) == len(seqs), "I6 feed monotonic", "two rows share a position")
        for row in feed.rows:
            if row.op != "put" and row.seq <= self._from:
                continue
            seen = self._rows.get((row.scope, row.key))
            served = seen is not None and (seen.seq, seen.op, seen.version) == (row.seq, row.op, row.version)
            demand(served, "I6 feed monotonic", f"row {row.seq} ({row.op} {row.key}) was never served; seen: {seen}")
