"""FieldClient: a technician's device.

Everything works without a network. A call that changes something has put it on the disk when it returns; `sync` brings
device and server together whenever there is a connection.
"""

from __future__ import annotations

import platform as host
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from client_sdk.background import INTERVAL_S, BackgroundSync
from client_sdk.collection import Collection
from client_sdk.ids import mint_id, mint_replica
from client_sdk.replica import SqliteReplica
from client_sdk.retry import Retries
from client_sdk.transport import HttpTransport, Tokens
from sync.clock import Origin
from sync.entities import (
    Discrepancy,
    Location,
    Note,
    Part,
    PartConsumption,
    Rma,
    Task,
    Technician,
    ToolkitItem,
    WorkOrder,
)
from sync.entity import ENTITY_TYPES
from sync.errors import Conflicting, DeviceRevoked, SyncError, Unauthorized
from sync.moments import parse_moment
from sync.mutation import Decision, Problem, Result
from sync.protocol import SyncServer
from sync.record import Key
from sync.replica import Draft, Entry
from sync.session import SyncReport, sync_once

APP_VERSION = "1.0"

Now = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Trouble:
    """A change that did not go through as it was made. key: the record. values: what was entered; nothing of it is
    lost. why: what the server says about it."""

    name: Origin
    key: Key
    status: str
    values: dict[str, Any]
    why: str
    problem: Problem | None = None
    decisions: tuple[Decision, ...] = ()
    review_id: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """How the device stands. str() of it says so in words. last_sync: when the last sync was complete, if ever."""

    enrolled: bool
    unsent: int
    parked: int
    rejected: int
    last_sync: datetime | None
    last_error: str | None

    def __str__(self) -> str:
        sentences = [
            "Everything is sent." if not self.unsent else
            f"{_count(self.unsent, 'change')} saved on this device, not sent yet."
        ]  # fmt: skip
        if self.parked:
            sentences.append(f"{_count(self.parked, 'change')} with the office for a decision.")
        if self.rejected:
            sentences.append(f"{_count(self.rejected, 'change')} not accepted; look at the reasons.")
        if self.last_sync:
            sentences.append(f"Last synced on {self.last_sync:%Y-%m-%d at %H:%M}.")
        else:
            sentences.append("Never synced yet.")
        if not self.enrolled:
            sentences.append("This device is not enrolled: ask the office for a code.")
        if self.last_error:
            sentences.append(f"The last try failed: {self.last_error}")
        return " ".join(sentences)


def _count(n: int, thing: str) -> str:
    return f"1 {thing} is" if n == 1 else f"{n} {thing}s are"


class FieldClient:
    """A device. Open it with `FieldClient.open`, close it with `close` or a `with` block.

    Its collections are attributes named after the entities: `client.work_orders`, `client.part_consumptions` and so on.
    """

    discrepancies: Collection[Discrepancy]
    locations: Collection[Location]
    notes: Collection[Note]
    parts: Collection[Part]
    part_consumptions: Collection[PartConsumption]
    rmas: Collection[Rma]
    tasks: Collection[Task]
    technicians: Collection[Technician]
    toolkit_items: Collection[ToolkitItem]
    work_orders: Collection[WorkOrder]

    def __init__(
        self, replica: SqliteReplica, server: SyncServer | None, now: Now, retries: Retries,
        http: httpx.BaseTransport | None = None,
    ) -> None:  # fmt: skip
        """Use `open`."""
        self.replica = replica
        self._server, self._now, self._retries, self._http = server, now, retries, http
        self._syncing = threading.Lock()
        self._group = threading.local()
        self._background: BackgroundSync | None = None
        self._on_change: list[Callable[[frozenset[Key]], None]] = []
        self._on_decision: list[Callable[[Key, Result], None]] = []
        self._on_parked: list[Callable[[Trouble], None]] = []
        for entity in ENTITY_TYPES.values():
            setattr(self, entity.plural.replace("-", "_"), self.collection(entity.name))

    @classmethod
    def open(
        cls, path: Path | str, transport: SyncServer | None = None, *, now: Now | None = None,
        retries: Retries | None = None, http: httpx.BaseTransport | None = None,
    ) -> FieldClient:  # fmt: skip
        """The device whose database is the file `path`, made if there is none.

        transport: the server, if not the one that the device was enrolled at. now: the local time, with its offset.
        http: an httpx transport, for tests. Raises StorageFailed or StorageTooNew.
        """
        return cls(SqliteReplica(path), transport, now or _local_time, retries or Retries(), http)

    def __enter__(self) -> FieldClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop syncing and close the file. Nothing that was saved is lost without it either."""
        self.stop()
        if isinstance(self._server, HttpTransport):
            self._server.close()
        self.replica.close()

    # -- records --------------------------------------------------------------------------------------------------

    def collection(self, entity: str) -> Collection[Any]:
        """The records of an entity by its name. Raises KeyError if there is no such entity."""
        return Collection(ENTITY_TYPES[entity], lambda: self.replica, self._submit)

    @contextmanager
    def group(self) -> Iterator[None]:
        """Changes made in this block are saved together when it ends, and take effect together or not at all.

        Nothing is saved, and nothing is shown, before its end; if the block raises, nothing is saved at all.
        """
        if getattr(self._group, "drafts", None) is not None:
            raise Conflicting("A group is open already; groups do not nest.")
        drafts: list[Draft] = []
        self._group.drafts = drafts
        try:
            yield
        finally:
            self._group.drafts = None
        if drafts:
            self._save(drafts, mint_id() if len(drafts) > 1 else None)

    def _submit(self, draft: Draft) -> None:
        drafts: list[Draft] | None = getattr(self._group, "drafts", None)
        if drafts is not None:
            drafts.append(draft)
        else:
            self._save([draft], None)

    def _save(self, drafts: Sequence[Draft], group: str | None) -> None:
        self.replica.capture(drafts, self._now().isoformat(timespec="milliseconds"), group)
        self._tell_changed({draft.key for draft in drafts})
        if self._background:
            self._background.wake()

    # -- server ---------------------------------------------------------------------------------------------------

    def join(self, url: str, code: str, name: str = "") -> str:
        """Enrol this device at the server `url` with a code from the office; the technician's id.

        Raises InvalidGrant for a code that is not valid, Conflicting if unsent work of another technician is on it.
        """
        transport = HttpTransport(url, lambda: None, lambda tokens: None, app_version=APP_VERSION, http=self._http)
        try:
            before = self.replica.setting("technician_id")
            enrolment = transport.enrol(code, name or host.node() or "device", host.system().lower(), APP_VERSION)
        finally:
            transport.close()
        if before is not None and before != enrolment.technician_id:
            if self.replica.unsent():
                raise Conflicting(
                    f"Unsent work of technician {before} is on this device. Enrol it for {before} again and sync first."
                )
            self.replica.start_over(mint_replica())
        elif before is not None:
            self.replica.restart()
        self.replica.set_settings(
            url=url, device_id=enrolment.device_id, technician_id=enrolment.technician_id,
            access_token=enrolment.tokens.access, refresh_token=enrolment.tokens.refresh, last_error=None,
        )  # fmt: skip
        if isinstance(self._server, HttpTransport):
            self._server.close()
            self._server = None
        return enrolment.technician_id

    def sync(self, tries: int = 1, page_size: int = 1_000) -> SyncReport:
        """Send what was saved here and fetch what is new. tries: how often to try if the server cannot be reached.

        Raises SyncError, DeviceRevoked among them. What was saved stays saved, and the next sync goes on from there.
        """
        server = self._server if self._server is not None else self._enrolled_server()
        with self._syncing:
            try:
                report = self._retries.call(lambda: self._sync(server, page_size), tries)
            except DeviceRevoked as error:
                self._seal(error)
                raise
            except SyncError as error:
                self.replica.set_settings(last_error=error.detail)
                raise
        return report

    def _sync(self, server: SyncServer, page_size: int) -> SyncReport:
        report = SyncReport()
        try:
            sync_once(
                self.replica,
                server,
                page_size=page_size,
                now=lambda: _ms(self._now()),
                report=report,
            )
            self.replica.set_settings(last_sync=self._now().isoformat(timespec="seconds"), last_error=None)
        finally:
            self._tell(report)
        return report

    def _enrolled_server(self) -> HttpTransport:
        url = self.replica.setting("url")
        if url is None:
            raise Unauthorized("This device is not enrolled. Enrol it with a code from the office.")
        self._server = HttpTransport(
            url, self._load_tokens, self._save_tokens, app_version=APP_VERSION, http=self._http
        )
        return self._server

    def _load_tokens(self) -> Tokens | None:
        access, refresh = self.replica.setting("access_token"), self.replica.setting("refresh_token")
        return Tokens(access, refresh) if access and refresh else None

    def _save_tokens(self, tokens: Tokens) -> None:
        self.replica.set_settings(access_token=tokens.access, refresh_token=tokens.refresh)

    def _seal(self, error: DeviceRevoked) -> None:
        """The office took this device out of service: nothing of the company's stays readable on it.

        Unsent work is kept until the device is enrolled again, unless it was reported lost.
        """
        self.replica.set_settings(access_token=None, refresh_token=None, last_error=error.detail)
        if error.extras.get("reason") == "lost":
            self.replica.set_settings(technician_id=None, device_id=None)
            self.replica.start_over(mint_replica())
        else:
            self.replica.clear(outbox=False)

    # -- on its own -----------------------------------------------------------------------------------------------

    def start(
        self, *, interval_s: float = INTERVAL_S, on_connectivity: Callable[[bool], None] = lambda online: None,
        on_error: Callable[[SyncError], None] = lambda error: None,
    ) -> None:  # fmt: skip
        """Sync in the background from now on: after every change, every `interval_s`, and again after failures."""
        if self._background is None:
            self._background = BackgroundSync(
                self.sync, interval_s=interval_s, retries=self._retries,
                on_connectivity=on_connectivity, on_error=on_error,
            )  # fmt: skip

    def stop(self) -> None:
        """End syncing in the background."""
        if self._background is not None:
            self._background.stop()
            self._background = None

    # -- what a person should know --------------------------------------------------------------------------------

    def status(self) -> Status:
        """How the device stands, for a screen."""
        troubles = self.replica.troubles()
        last_sync = self.replica.setting("last_sync")
        return Status(
            enrolled=self._load_tokens() is not None or not isinstance(self._server, HttpTransport | None),
            unsent=sum(1 for entry in self.replica.unsent() if not entry.acknowledged),
            parked=sum(1 for entry in troubles if entry.result and entry.result.status == "parked"),
            rejected=sum(1 for entry in troubles if entry.result and entry.result.status == "rejected"),
            last_sync=datetime.fromisoformat(last_sync) if last_sync else None,
            last_error=self.replica.setting("last_error"),
        )

    def parked(self) -> list[Trouble]:
        """Changes that wait for a decision of the office."""
        return [trouble for trouble in self._troubles() if trouble.status == "parked"]

    def rejected(self) -> list[Trouble]:
        """Changes that were not accepted, with the reasons."""
        return [trouble for trouble in self._troubles() if trouble.status == "rejected"]

    def dismiss(self, trouble: Trouble) -> None:
        """It was read; do not list it any more."""
        self.replica.dismiss(trouble.name)

    def _troubles(self) -> list[Trouble]:
        return [_trouble(entry, entry.result) for entry in self.replica.troubles() if entry.result]

    def on_change(self, call: Callable[[frozenset[Key]], None]) -> None:
        """Call with the keys of records that look different now, whoever changed them."""
        self._on_change.append(call)

    def on_decision(self, call: Callable[[Key, Result], None]) -> None:
        """Call for every change of this device in which a rule or a person had to decide about a field."""
        self._on_decision.append(call)

    def on_parked(self, call: Callable[[Trouble], None]) -> None:
        """Call for every change of this device that waits for the office or was not accepted."""
        self._on_parked.append(call)

    def _tell(self, report: SyncReport) -> None:
        self._tell_changed(report.changed)
        for entry, result in report.answered:
            for decided in self._on_decision if result.decisions else ():
                decided(entry.key, result)
            for parked in self._on_parked if result.status in ("parked", "rejected") else ():
                parked(_trouble(entry, result))

    def _tell_changed(self, keys: set[Key]) -> None:
        for changed in self._on_change if keys else ():
            changed(frozenset(keys))


def _trouble(entry: Entry, result: Result) -> Trouble:
    captured = entry.voided or entry.mutation.body
    why = result.problem.detail if result.problem else "; ".join(decision.why for decision in result.decisions)
    return Trouble(
        name=entry.name, key=entry.key, status=result.status, values=dict(captured.get("patch", {})), why=why,
        problem=result.problem, decisions=result.decisions, review_id=result.review_id,
    )  # fmt: skip


def _local_time() -> datetime:
    return datetime.now().astimezone()


def _ms(moment: datetime) -> int:
    return parse_moment(moment.isoformat(timespec="milliseconds"))
