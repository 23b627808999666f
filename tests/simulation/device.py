"""A device of a history: a real client on a file, with a clock of its own, that may die at any statement."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from client_sdk import FieldClient
from client_sdk.replica import SqliteReplica
from client_sdk.retry import Retries
from sync.errors import SyncError
from sync.session import SyncReport
from tests.simulation.link import DeviceDied, Link

if TYPE_CHECKING:
    from tests.simulation.world import World

SUFFIXES = ("", "-wal")  # what is on the disk; the rest of a database is in the process
MARKER = ".device"
_START = datetime(1970, 1, 1, tzinfo=UTC)


class SimDevice:
    """number: among the devices of the history. name: of its enrolment, which a clone shares. technician: whose it is.

    epoch: of the hub, as far as the device has shown a complete pull of it.
    """

    def __init__(self, world: World, number: int, name: str, technician: str, path: Path) -> None:
        self.number, self.name, self.technician, self.path = number, name, technician, path
        self.offset_ms = 0
        self.epoch: int | None = None
        self._world, self._countdown = world, -1
        self._image: dict[str, bytes] | None = None
        self._zone = timezone(timedelta(hours=number % 12 - 1))
        self.link = Link(world, self)
        self.client = self._open()

    def _open(self) -> FieldClient:
        retries = Retries(chance=lambda: 0.5, sleep=lambda seconds: None)
        return FieldClient(SqliteReplica(self.path, trace=self._count), self.link, self.now, retries)

    def now(self) -> datetime:
        """The time by the device's clock."""
        return (_START + timedelta(milliseconds=self._world.now + self.offset_ms)).astimezone(self._zone)

    def close(self) -> None:
        self.client.close()

    # -- syncing --------------------------------------------------------------------------------------------------

    def sync(self, page_size: int, chance: Random | None) -> SyncReport | SyncError:
        """One sync over the bad network, over a good one if there is no chance."""
        self.link.chance = chance
        try:
            return self.client.sync(page_size=page_size)
        except SyncError as error:
            return error
        finally:
            self.link.chance = None

    # -- dying ----------------------------------------------------------------------------------------------------

    @property
    def is_dead(self) -> bool:
        return self._image is not None

    def die_in(self, statements: int, doing: Callable[[], object]) -> None:
        """Do something, lose the process before one of its statements (or right after the last), and start again."""
        self._countdown = statements
        try:
            doing()
        except DeviceDied:
            pass
        finally:
            self._countdown = -1
        image = self._image if self._image is not None else self._look()
        self.client.close()
        for suffix in (*SUFFIXES, "-shm"):
            self._file(suffix).unlink(missing_ok=True)
        for suffix, content in image.items():
            self._file(suffix).write_bytes(content)
        self._image = None
        self.client = self._open()

    def _count(self, statement: str) -> None:
        if self._countdown > 0:
            self._countdown -= 1
            if self._countdown == 0:
                self._image = self._look()

    def _look(self) -> dict[str, bytes]:
        """The files as they are at this moment."""
        return {s: self._file(s).read_bytes() for s in SUFFIXES if self._file(s).exists()}

    def _file(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    # -- being copied ---------------------------------------------------------------------------------------------

    def clone(self, number: int, path: Path, whole: bool) -> SimDevice:
        """A second device with this one's database. whole: with all that lies outside of the database, too."""
        for suffix in (*SUFFIXES, MARKER) if whole else SUFFIXES:
            if self._file(suffix).exists():
                shutil.copyfile(self._file(suffix), path.with_name(path.name + suffix))
        copy = SimDevice(self._world, number, self.name, self.technician, path)
        copy.epoch, copy.offset_ms = self.epoch, self.offset_ms
        return copy
