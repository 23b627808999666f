"""The API in this process, on a real database, and those who call it: the office by role, and devices."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.datastructures import Headers
from werkzeug.test import TestResponse

from server.api.context import EXTENSION, Parts
from server.app import create_app
from server.services.tokens import issue_access
from server.settings import Settings
from server.store.engine import make_engine

ROLES = ("dispatcher", "inventory_controller", "reviewer", "integration", "auditor", "admin")


_numbers = itertools.count(1)


@dataclass
class Clock:
    """Real time, moved ahead at will; ms."""

    ahead_ms: int = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms

    def advance(self, *, seconds: float) -> None:
        self.ahead_ms += int(seconds * 1000)


@dataclass
class Api:
    """An app, its clock, and who has been made for a test."""

    app: Flask
    clock: Clock

    @property
    def parts(self) -> Parts:
        kept: Parts = self.app.extensions[EXTENSION]
        return kept

    def new(self, prefix: str) -> str:
        """An id that no other test uses."""
        return f"{prefix}-{next(_numbers)}"

    def token(self, role: str, scopes: Sequence[str] = ("*",), subject: str | None = None) -> str:
        kind = "system" if role == "integration" else "user"
        return issue_access(
            self.parts.keys,
            subject=subject or f"{kind}:{role}",
            role=role,
            scopes=scopes,
            system="erp" if role == "integration" else None,
            now=self.clock() / 1000,
            issuer=self.parts.settings.issuer,
        )

    def office(self, role: str = "admin", scopes: Sequence[str] = ("*",)) -> Caller:
        return Caller(self, self.token(role, scopes))

    def nobody(self) -> Caller:
        return Caller(self, None)

    def add_depot(self) -> str:
        """A warehouse that is its own depot."""
        depot = self.new("WH")
        got = self.office().post("/v1/locations", {"id": depot, "name": "Depot", "kind": "warehouse"})
        assert got.status_code == 201, got.text
        # A record cannot name itself before it exists.
        assert self.office().patch(f"/v1/locations/{depot}", {"depot_id": depot}, 1).status_code == 200
        return depot

    def add_technician(self, depot: str | None = None) -> str:
        technician = self.new("T")
        body = {"id": technician, "name": "Tim", **({"depot_id": depot} if depot else {})}
        got = self.office().post("/v1/technicians", body)
        assert got.status_code == 201, got.text
        return technician

    def add_work_order(self, technician: str | None, depot: str | None = None, **values: Any) -> str:
        order = self.new("WO")
        body = {"id": order, "title": "Fix the pump", **values}
        if technician:
            body["assignee_id"] = technician
        if depot:
            body["depot_id"] = depot
        got = self.office().post("/v1/work-orders", body)
        assert got.status_code == 201, got.text
        return order

    def enrol(self, technician: str) -> Device:
        code = self.office("dispatcher").post("/v1/enrolment-codes", {"technician_id": technician}).json["code"]
        got = self.nobody().post(
            "/v1/devices", {"code": code, "name": "Phone", "platform": "android", "app_version": "2.0"}
        )
        assert got.status_code == 201, got.text
        return Device(self, got.json["access_token"], got.json, technician, self.new("r"))


class Answer(Protocol):
    """What tests look at in an answer; its JSON is whatever they expect it to be."""

    status_code: int
    data: bytes
    headers: Headers
    mimetype: str | None

    @property
    def json(self) -> Any: ...
    @property
    def text(self) -> str: ...


def _answer(got: TestResponse) -> Answer:
    return cast(Answer, got)


@dataclass
class Caller:
    """Somebody with a token, or without."""

    api: Api
    access_token: str | None

    @property
    def client(self) -> FlaskClient:
        return self.api.app.test_client()

    def headers(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        own = {"Authorization": f"Bearer {self.access_token}"} if self.access_token else {}
        return {**own, **(more or {})}

    def call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        return _answer(self.client.open(path, method=method, json=body, headers=self.headers(headers)))

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return _answer(self.client.get(path, headers=self.headers(headers)))

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
        return _answer(self.client.post(path, json=body, headers=self.headers(headers)))

    def patch(self, path: str, body: Any, version: int | str | None = None) -> Answer:
        return _answer(self.client.patch(path, json=body, headers=self.headers(_if_match(version))))

    def delete(self, path: str, version: int | str | None = None) -> Answer:
        return _answer(self.client.delete(path, headers=self.headers(_if_match(version))))


def _if_match(version: int | str | None) -> dict[str, str]:
    return {} if version is None else {"If-Match": "*" if version == "*" else f'"{version}"'}


@dataclass
class Device(Caller):
    """An enrolled device with one replica. enrolment: what the server answered to it."""

    enrolment: dict[str, Any]
    technician: str
    replica: str
    n: int = 0

    def push(self, *mutations: Mapping[str, Any]) -> Answer:
        numbered = []
        for mutation in mutations:
            self.n += 1
            numbered.append({"n": self.n, "op": "update", "base": {}, **mutation})
        return self.post("/v1/push", {"replica": self.replica, "schema": 1, "mutations": numbered})

    def pull(self, **query: Any) -> Answer:
        return _answer(self.client.get("/v1/changes", query_string=query, headers=self.headers()))


@contextmanager
def open_api(database_url: str, folder: Path, **settings: Any) -> Iterator[Api]:
    """The API on a migrated database, its threads ended afterwards."""
    clock = Clock()
    engine = make_engine(database_url, pool_size=8)
    app = create_app(
        Settings(database_url=database_url, data_dir=folder, **{"waiters": 4, **settings}), engine=engine, clock=clock
    )
    api = Api(app, clock)
    try:
        yield api
    finally:
        api.parts.pokes.close()
        api.parts.sightings.flush()
        engine.dispose()
