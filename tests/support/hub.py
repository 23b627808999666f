"""A hub in memory with a small company in it, for tests that push to it and pull from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.services.changes import Reader, pull_changes, push_changes
from server.services.records import write_records
from sync.clock import HUB
from sync.entity import ADMIN, DISPATCHER, TECHNICIAN
from sync.memory import MemoryHub
from sync.moments import format_moment, parse_moment
from sync.mutation import Result
from sync.protocol import Change, Page, PullRequest, Push, PushResult
from sync.record import Key, Record
from sync.store import Actor, Case
from sync.validate import parse_mutation

MORNING = parse_moment("2026-11-20T08:00:00Z")
MINUTE = 60_000
HOUR = 60 * MINUTE
SECRET = b"a secret of the tests"

OFFICE = Actor("user", "user:ada", DISPATCHER, "fsm", ("*",))
ADMINISTRATOR = Actor("user", "user:root", ADMIN, "platform", ("*",))

COMPANY: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("location", "D-1"): {"name": "Depot", "kind": "warehouse", "depot_id": "D-1"},
    ("technician", "T-1"): {"name": "Ada", "depot_id": "D-1"},
    ("technician", "T-2"): {"name": "Ben", "depot_id": "D-1"},
    ("location", "VAN-1"): {"name": "Van 1", "kind": "van", "depot_id": "D-1", "assigned_to": "T-1"},
    ("part", "P-1"): {"number": "100", "name": "Belt", "status": "active"},
    ("work_order", "WO-1"): {"title": "Fix it", "status": "assigned", "assignee_id": "T-1", "depot_id": "D-1"},
    ("work_order", "WO-2"): {"title": "Fix that", "status": "assigned", "assignee_id": "T-2", "depot_id": "D-1"},
    ("task", "TK-1"): {"work_order_id": "WO-1", "title": "Look"},
    ("note", "N-1"): {"parent": {"entity": "work_order", "id": "WO-1"}, "text": "Ring twice"},
}


def device(technician: str, name: str | None = None, depot: str = "D-1") -> Actor:
    """A device of a technician, with the scopes that a device has."""
    scopes = (f"tech:{technician}", f"stock:{depot}", "catalog:all")
    return Actor("device", f"device:{name or technician}", TECHNICIAN, "device", scopes, technician)


def mutation(n: int, op: str, entity: str, id: str, patch: Any = None, base: Any = None, **more: Any) -> dict[str, Any]:
    """A mutation as it stands on the wire."""
    body = {"n": n, "op": op, "entity": entity, "id": id, "base": base or {}, **more}
    return body if op == "delete" else {**body, "patch": patch or {}}


class Hub:
    """A MemoryHub, a clock that ticks when told to, and the two calls."""

    def __init__(self, company: Mapping[tuple[str, str], Mapping[str, Any]] = COMPANY) -> None:
        self.store = MemoryHub()
        self.now = MORNING
        for (entity, id), values in company.items():
            self.office("create", entity, id, values)
        self.now += MINUTE

    def office(self, op: str, entity: str, id: str, values: Mapping[str, Any] | None = None) -> Result:
        """A write by the office that has read what stands now."""
        body = mutation(1, op, entity, id, values, occurred_at=format_moment(self.now))
        (result,) = write_records(self.store, ADMINISTRATOR, [parse_mutation(body)], self.now)
        assert result.problem is None, result.problem
        return result

    def push(self, actor: Actor, *mutations: dict[str, Any], replica: str | None = None) -> PushResult:
        """Push as a device."""
        name = replica or "r_" + actor.name.partition(":")[2]
        return push_changes(self.store, actor, Push(name, [parse_mutation(body) for body in mutations]), self.now)

    def one(self, actor: Actor, body: dict[str, Any], replica: str | None = None) -> Result:
        """Push one mutation."""
        return self.push(actor, body, replica=replica).results[0]

    def page(self, actor: Actor, cursor: str | None = None, limit: int = 1_000, **more: Any) -> Page:
        """One page of the feed."""
        request = PullRequest(cursor=cursor, limit=limit, **more)
        return pull_changes(self.store, Reader(actor.name, actor.scopes), request, SECRET, self.now)

    def pull(
        self, actor: Actor, cursor: str | None = None, limit: int = 1_000, **more: Any
    ) -> tuple[list[Change], Page]:
        """All pages up to the last, and the last one."""
        changes: list[Change] = []
        while True:
            page = self.page(actor, cursor, limit, **more)
            changes += page.changes
            if not page.more:
                return changes, page
            cursor = page.cursor
            more.pop("scope", None)

    def record(self, entity: str, id: str) -> Record:
        """A record as it stands."""
        return self.store.state.records[Key(entity, id)]

    def data(self, entity: str, id: str) -> Mapping[str, Any]:
        """Its values."""
        return self.record(entity, id).data

    def base(self, entity: str, id: str, **own: int) -> dict[str, int]:
        """The clock of a record for somebody who has just pulled it, with own pending mutations."""
        return {HUB: self.record(entity, id).version, **own}

    def case(self, id: str | None) -> Case:
        """A review case."""
        assert id is not None
        return self.store.state.cases[id]

    def open_cases(self) -> list[Case]:
        """Cases that nobody has decided."""
        return [case for case in self.store.state.cases.values() if case.status == "open"]
