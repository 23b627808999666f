"""One history: a hub, its devices, a clock, and the steps that are done to them."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import client_sdk.ids
from server.services.changes import HubServer
from server.services.records import write_records
from sync.clock import Dot
from sync.errors import EpochChanged, SyncError, Unavailable
from sync.moments import format_moment, parse_moment
from sync.mutation import Result
from sync.protocol import Push
from sync.record import Key
from sync.session import SyncReport
from sync.validate import parse_mutation
from sync.wire import page_to_wire, pull_from_query, push_from_wire, push_result_to_wire
from tests.simulation import checks, fieldwork, office
from tests.simulation.company import ADMINISTRATOR, COMPANY, TECHNICIANS, device_actor, with_canary
from tests.simulation.device import SimDevice
from tests.simulation.history import Step
from tests.simulation.hubs import SimHub
from tests.simulation.journal import Entry, Journal, content_of
from tests.simulation.link import sealed_error
from tests.simulation.observer import Observer
from tests.simulation.violation import Violation, demand

MORNING = parse_moment("2026-11-20T08:00:00Z")
HOUR_MS = 3_600_000
TEN_YEARS_MS = 3_652 * 24 * HOUR_MS
SECRET = b"a secret of the simulation"
PAGE_SIZES = (1, 2, 3, 7, 50, 1_000)
MOST_CLONES = 2
MOST_BACKUPS = 3
CANARY = re.compile(r"canary-\d+-\d+\.")


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup of the hub, and what the simulator knew then."""

    state: Any
    seq: int
    journal: Journal


@dataclass(frozen=True, slots=True)
class Captured:
    """A mutation that a device said was saved."""

    key: Key
    device: str


class World:
    """The state of one history. Everything in it follows from `seed` and the steps."""

    def __init__(self, seed: int, hub: SimHub, folder: Path, devices: int) -> None:
        self.seed, self.hub, self.folder = seed, hub, folder
        self.now = MORNING
        self.epoch = 0  # how often it was restored
        self.faults: Counter[str] = Counter()
        self.journal = Journal()
        self.canaries: dict[str, Key] = {}
        self.captured: dict[str, Captured] = {}
        self.groups: dict[str, str] = {}
        self.delayed: list[tuple[str, str, str]] = []
        self.cases: set[str] = set()
        self.dead: dict[Key, Dot] = {}
        self.revived: set[Key] = set()
        self.ever_dead: set[Key] = set()
        self.backups: list[Backup] = []
        self.cursors: dict[str, int] = {}
        self._digest = hashlib.sha256()
        self._canary_count = 0
        self._step = "start"
        self._found_company()
        self.observer = Observer(self)
        self.backups.append(self._backup())
        self.devices = [
            SimDevice(self, n, f"device:d{n}", TECHNICIANS[n % len(TECHNICIANS)], folder / f"d{n}.db")
            for n in range(devices)
        ]

    def begin(self) -> None:
        """The devices fetch what is theirs."""
        for device in self.devices:
            outcome = device.sync(1_000, None)
            demand(isinstance(outcome, SyncReport), "I13 liveness", f"the first sync failed: {outcome}")
            device.epoch = self.epoch

    def _found_company(self) -> None:
        bodies = [
            {"n": 1, "op": "create", "entity": entity, "id": id, "base": {}, "occurred_at": format_moment(self.now),
             "patch": with_canary(entity, values, self.mint(entity, id))}
            for (entity, id), values in COMPANY.items()
        ]  # fmt: skip
        write_records(self.hub.store, ADMINISTRATOR, [parse_mutation(body) for body in bodies], self.now)

    def close(self) -> None:
        for device in self.devices:
            device.close()

    # -- what is written down -------------------------------------------------------------------------------------

    def mint(self, entity: str, id: str) -> str:
        """A text that belongs to one record and to nothing else."""
        self._canary_count += 1
        canary = f"canary-{self.seed}-{self._canary_count}."
        self.canaries[canary] = Key(entity, id)
        return canary

    def saw(self, fault: str) -> None:
        """Count something that has to have happened in a run."""
        self.faults[fault] += 1

    def note(self, line: str) -> None:
        """Add to the trace, by which two runs of a history are compared."""
        self._digest.update(line.encode())
        self._digest.update(b"\n")

    @property
    def trace(self) -> str:
        """The hash of all that was sent, answered and done."""
        return self._digest.hexdigest()

    # -- the hub, called ------------------------------------------------------------------------------------------

    def serve(self, name: str, technician: str, kind: str, text: str) -> str:
        """Carry a request to the hub; the text of its answer, or of the error that it gave."""
        self.note(f"{name} > {kind} {text}")
        server = HubServer(
            self.hub.store, lambda: device_actor(name, technician, self.hub.records()), SECRET, lambda: self.now
        )
        try:
            document = json.loads(text)
            if kind == "push":
                answer = self._serve_push(server, name, technician, text)
            else:
                request = pull_from_query(document)
                stale = request.cursor is not None and self.cursors.get(request.cursor) != self.epoch
                if stale:
                    self._expect_epoch_changed(server, request)
                page = server.pull(request)
                self.cursors[page.cursor] = self.epoch
                answer = json.dumps(page_to_wire(page), ensure_ascii=False)
        except SyncError as error:
            if error.code in ("replica_forked", "mutation_gap"):
                self.saw(error.code)
            demand(error.status != 500, "I18 no 5xx", f"{type(error).__name__}: {error.detail}")
            answer = sealed_error(error)
        checks.no_foreign_canary(self, name, technician, answer)
        self.note(f"{name} < {answer}")
        return answer

    def _expect_epoch_changed(self, server: HubServer, request: Any) -> None:
        try:
            server.pull(request)
        except EpochChanged:
            return
        raise Violation("I16 epoch", "a cursor of a lost timeline was served")

    def _serve_push(self, server: HubServer, name: str, technician: str, text: str) -> str:
        push = push_from_wire(json.loads(text))
        failure = self.hub.failure
        failure.happened = None
        before = dict(self.dead)
        try:
            answer = server.push(push)
        except Unavailable:
            if failure.happened == "after_commit":
                self._note_results(push, name, technician, text, *self._ledger_of(push), before)
            raise
        finally:
            failure.armed = None
        self._note_results(push, name, technician, text, list(answer.results), answer.committed_seq, before)
        return json.dumps(push_result_to_wire(answer), ensure_ascii=False)

    def _ledger_of(self, push: Push) -> tuple[list[Result], int]:
        """What a push that was committed would have been answered."""
        if not push.mutations:
            return [], self.head()
        with self.hub.store.begin() as uow:
            ledger = uow.ledger(push.replica, push.mutations[0].n, push.mutations[-1].n)
        # Whether an answer of the ledger was one to a known mutation under a new name cannot be told from it.
        results = [self._as_first_time(push, entry.result) for entry in ledger]
        return results, self.head()

    def _as_first_time(self, push: Push, result: Result) -> Result:
        mutation = next(m for m in push.mutations if m.n == result.n)
        known = (push.replica, result.n) in self.journal.answers or self.journal.knows(mutation)
        return replace(result, duplicate=known)

    def _note_results(
        self, push: Push, name: str, technician: str, text: str, results: list[Result], seq: int,
        before: Mapping[Key, Dot],
    ) -> None:  # fmt: skip
        fresh = self.journal.note_push(push, results, seq, self.now)
        self.journal.requests.append((name, technician, text))
        for entry in fresh:
            if entry.result.status == "parked":
                self.saw("parked")
            if entry.result.review_id:
                self.cases.add(entry.result.review_id)
            if entry.result.problem and entry.result.problem.code == "group_failed":
                self.saw("group_refused")
        checks.nothing_rose(self, fresh)

    def head(self) -> int:
        """The position of the feed."""
        return self.hub.store.read_feed([], 1, None).head

    # -- the chaos ------------------------------------------------------------------------------------------------

    def do(self, step: Step) -> None:
        """One step of the chaos, and a look at what must hold at any time."""
        self._step = str(step)
        self.now += step.wait_ms
        self.note(str(step))
        self.revived.clear()
        device = self.devices[step.device % len(self.devices)]
        self._act(step, device, Random(f"step {self.seed} {step.place}"))
        checks.nothing_rose(self, ())
        self.observer.poll()
        checks.own_work_is_shown(self, device)
        checks.groups_are_whole(self, device)

    def _act(self, step: Step, device: SimDevice, chance: Random) -> None:
        new_id = f"x{step.place}"
        match step.kind:
            case "edit":
                self._edit(device, chance, new_id)
            case "group":
                token = f"group-{step.place}-{device.number}."
                fieldwork.group(device.client, chance, new_id, token)
                self._note_captured(device)
            case "sync":
                self._sync(device, chance, chance)
            case "crash_in_capture":
                self.saw(step.kind)
                device.die_in(chance.randint(1, 12), lambda: fieldwork.edit(device.client, chance, new_id, self.mint))
                self._note_captured(device)
            case "crash_in_sync":
                self.saw(step.kind)
                device.die_in(chance.randint(1, 120), lambda: self._sync(device, chance, chance))
            case "clone":
                self._clone(device, chance)
            case "clock_jump":
                self.saw(step.kind)
                device.offset_ms = chance.choice((TEN_YEARS_MS, TEN_YEARS_MS, -TEN_YEARS_MS, 45_000))
            case "late_request":
                self._deliver_late(chance)
            case "epoch_rotation":
                self._restore(chance)
            case "backup":
                self.backups = [*self.backups, self._backup()][-MOST_BACKUPS:]
                self.hub.keep_until(self.backups[0].seq)
            case "durable":
                self.backups = self.backups[-chance.randint(1, 2) :]
                self.hub.keep_until(self.backups[0].seq)
            case _:
                self._office(step.kind, chance, new_id)

    def _office(self, kind: str, chance: Random, new_id: str) -> None:
        match kind:
            case "office_write":
                office.write(self, chance)
            case "office_delete":
                office.delete(self, chance)
            case "office_create":
                office.create(self, chance, f"o{new_id}")
            case "reassignment":
                office.reassign(self, chance)
            case "technician_moved":
                office.move_technician(self, chance)
            case "stock":
                office.count_stock(self, chance)
            case "review":
                office.decide(self, chance)

    def _edit(self, device: SimDevice, chance: Random, new_id: str) -> None:
        for place in range(chance.randint(1, 2)):
            fieldwork.edit(device.client, chance, f"{new_id}-{place}", self.mint)
            self.now += 1_000
            self._note_captured(device)

    def _note_captured(self, device: SimDevice) -> None:
        """Whatever is in the outbox now was saved, and has to come through."""
        for entry in device.client.replica.outbox():
            content = content_of(entry.voided or entry.mutation.body)
            self.captured.setdefault(content, Captured(entry.key, f"{device.name} #{device.number}"))
            if entry.mutation.group:
                self.groups.setdefault(entry.mutation.group, "")

    def _sync(self, device: SimDevice, chance: Random, loss: Random | None) -> SyncReport | SyncError:
        page_size = chance.choice(PAGE_SIZES)
        if page_size == 1:
            self.saw("page_of_one")
        outcome = device.sync(page_size, loss)
        if isinstance(outcome, SyncReport):
            device.epoch = self.epoch
            checks.report_is_clean(device, outcome)
            self.note(f"synced {len(outcome.answered)} {outcome.pulled} {outcome.restarts} {sorted(outcome.changed)}")
        else:
            demand(isinstance(outcome, Unavailable), "I13 liveness", f"{type(outcome).__name__}: {outcome}")
            self.note(f"failed {outcome.code}")
        return outcome

    def _clone(self, device: SimDevice, chance: Random) -> None:
        if sum(1 for one in self.devices if one.number >= 100) >= MOST_CLONES:
            return
        whole = chance.random() < 0.6
        self.saw("clone_of_the_whole_phone" if whole else "clone")
        number = 100 + len(self.devices)
        self.devices.append(device.clone(number, self.folder / f"d{number}.db", whole))

    def _deliver_late(self, chance: Random) -> None:
        if self.delayed:
            name, technician, text = self.delayed.pop(chance.randrange(len(self.delayed)))
            self.saw("late_request")
            self.serve(name, technician, "push", text)

    def _backup(self) -> Backup:
        return Backup(self.hub.backup(), self.head(), self.journal.copy())

    def _restore(self, chance: Random) -> None:
        self.saw("epoch_rotation")
        self.now += HOUR_MS  # a restore takes its time; epochs are counted in hours
        place = chance.randrange(len(self.backups))
        backup = self.backups[place]
        self.backups = self.backups[: place + 1]  # later ones belong to a timeline that is lost
        self.hub.restore(backup.state, self.now)
        self.journal = backup.journal.copy()
        self.epoch += 1
        self.dead = {key: r.deleted for key, r in self.hub.records().items() if r.deleted is not None}
        self.observer.expect_restart()

    # -- afterwards -----------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """Everything works again: what was captured comes through in two rounds of syncs, and the third is silent."""
        self._step = "healing"
        for device in self.devices:
            device.offset_ms = 0
        self.revived.clear()
        while self.delayed:
            self._deliver_late(Random(0))
        chance = Random(f"heal {self.seed}")
        for round_ in range(3):
            order = list(self.devices)
            chance.shuffle(order)
            for device in order:
                self.now += 60_000
                before = self.head()
                outcome = self._sync(device, chance, None)
                demand(isinstance(outcome, SyncReport), "I13 liveness", f"a sync failed on a good network: {outcome}")
                assert isinstance(outcome, SyncReport)
                if round_ == 2:
                    quiet = not outcome.answered and not outcome.pulled and self.head() == before
                    demand(quiet, "I13 liveness", f"device {device.number} is not done after two syncs: {outcome}")
                unsent = [entry.name for entry in device.client.replica.outbox() if not entry.acknowledged]
                demand(not unsent, "I13 liveness", f"device {device.number} still has unsent work: {unsent}")
                checks.groups_are_whole(self, device)
            self.observer.poll()

    def check(self) -> None:
        """What must hold once everything has come through."""
        self._step = "the end"
        checks.everything(self)

    @property
    def where(self) -> str:
        """The step under way, for the report of a violation."""
        return self._step


@contextmanager
def seeded_ids(seed: int) -> Iterator[None]:
    """The SDK's random ids from a seed."""
    chance = Random(f"ids {seed}")
    real = client_sdk.ids.secrets, client_sdk.ids.time
    client_sdk.ids.secrets = SimpleNamespace(randbits=chance.getrandbits)  # type: ignore[assignment]
    client_sdk.ids.time = SimpleNamespace(time_ns=lambda: MORNING * 1_000_000)  # type: ignore[assignment]
    try:
        yield
    finally:
        client_sdk.ids.secrets, client_sdk.ids.time = real


def play(seed: int, steps: Iterable[Step], hub: SimHub, folder: Path, devices: int) -> World:
    """A whole history. Raises Violation, with the step in its detail; returns the world for its trace and counts."""
    with seeded_ids(seed):
        world = World(seed, hub, folder, devices)
        try:
            world.begin()
            for step in steps:
                world.do(step)
            world.heal()
            world.check()
        except Violation as violation:
            violation.detail += f"\n      during: {world.where}"
            raise
        except Exception as error:
            # Neither side may meet an error that it does not know.
            raise Violation("I18 no 5xx", f"{type(error).__name__}: {error}\n      during: {world.where}") from error
        finally:
            world.close()
    return world


__all__ = ["Backup", "Captured", "Entry", "World", "play"]
