"""A tiny client of the wire contract. Every answer it sees is held to what is promised of all answers."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

Json = dict[str, Any]

BACKHAUL = str(Path(sys.executable).with_name("backhaul"))
PROBLEM = "application/problem+json"
APP_VERSION = "2.0.0"

_PROBLEM_KEYS = {"type", "title", "status", "detail", "code", "retryable", "correlation_id"}
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def new_id(prefix: str) -> str:
    """An id that no other test uses."""
    return f"{prefix}-{secrets.token_hex(6).upper()}"


def now(shift: timedelta = timedelta()) -> str:
    return (datetime.now(UTC) + shift).isoformat(timespec="milliseconds")


def is_moment(value: object) -> bool:
    """Whether this is an RFC 3339 time with an offset."""
    return isinstance(value, str) and _MOMENT.fullmatch(value) is not None


def checksum(records: Iterable[tuple[str, str, int]]) -> str:
    """A scope's checksum, from its definition: entity, id and version of each live record."""
    total = 0
    for entity, record_id, version in records:
        digest = hashlib.sha256(f"{entity}\n{record_id}\n{version}".encode()).digest()
        total += int.from_bytes(digest[:8], "big")
    return f"{total % 2**64:016x}"


def tell(answer: httpx.Response) -> str:
    """A call and its answer, for a message."""
    return f"{answer.request.method} {str(answer.request.url)[:300]} -> {answer.status_code} {answer.text[:2000]}"


def hold_to_the_conventions(answer: httpx.Response) -> None:
    """What is promised of every answer, whatever was asked."""
    request = answer.request
    told = tell(answer)
    assert answer.status_code < 500, told
    assert answer.headers.get("X-Correlation-Id"), told
    assert answer.status_code == 429 or "Retry-After" not in answer.headers, told
    if answer.status_code >= 400:
        assert answer.headers["Content-Type"].split(";")[0] == PROBLEM, told
        if request.method == "HEAD":
            return
        body = answer.json()
        assert body.keys() >= _PROBLEM_KEYS, told
        assert body["status"] == answer.status_code, told
        assert re.fullmatch(r"[a-z_]+", body["code"]), told
        assert body["retryable"] is (answer.status_code == 429), told
        assert body["correlation_id"] == answer.headers["X-Correlation-Id"], told


class Api:
    """One caller: a base URL and, with it, a token."""

    used: set[tuple[str, str]] = set()  # noqa: RUF012 - shared on purpose: every call of the run that was answered well

    def __init__(self, url: str, token: str | None = None, app_version: str | None = APP_VERSION) -> None:
        headers = {} if app_version is None else {"X-App-Version": app_version}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self.url, self.token = url, token
        # No TLS here, and reading the certificates takes longer than a whole test.
        self.http = httpx.Client(base_url=url, headers=headers, timeout=40, verify=False)

    def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        answer = self.http.request(method, path, **more)
        hold_to_the_conventions(answer)
        if answer.status_code < 400:
            Api.used.add((method, answer.request.url.path))
        return answer

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.send("GET", path, params=params)

    def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return self.send("POST", path, json=body, headers=_dashed(headers))

    def patch(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return self.send("PATCH", path, json=body, headers=_dashed(headers))

    def delete(self, path: str, **headers: str) -> httpx.Response:
        return self.send("DELETE", path, headers=_dashed(headers))

    # What an office does all day, each expected to work.

    def create(self, plural: str, **fields: Any) -> Json:
        return ok(self.post(f"/v1/{plural}", fields), 201)

    def read(self, plural: str, record_id: str) -> Json:
        return ok(self.get(f"/v1/{plural}/{record_id}"))

    def change(self, plural: str, record_id: str, **fields: Any) -> Json:
        """Change what is there now, whatever it is."""
        etag = self.get(f"/v1/{plural}/{record_id}").headers["ETag"]
        return ok(self.patch(f"/v1/{plural}/{record_id}", fields, If_Match=etag))

    def remove(self, plural: str, record_id: str) -> None:
        etag = self.get(f"/v1/{plural}/{record_id}").headers["ETag"]
        ok(self.delete(f"/v1/{plural}/{record_id}", If_Match=etag), 204)

    def history(self, plural: str, record_id: str) -> list[Json]:
        return ok(self.get(f"/v1/{plural}/{record_id}/history"))["items"]

    def close(self) -> None:
        self.http.close()


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def ok(answer: httpx.Response, status: int = 200) -> Any:
    """The body of an answer that must be this status."""
    assert answer.status_code == status, tell(answer)
    return answer.json() if answer.content else None


def refused(answer: httpx.Response, status: int, code: str | None = None) -> Json:
    """The problem of an answer that must be this status, and this code."""
    body = ok(answer, status)
    assert code is None or body["code"] == code, body
    return body


@dataclass
class Device:
    """A joined device with one local database: it numbers what it pushes and keeps its cursor."""

    api: Api
    joined: Json
    replica: str = field(default_factory=lambda: new_id("r_"))
    n: int = 0
    cursor: str | None = None
    held: dict[tuple[str, str, str], Json] = field(default_factory=dict)
    """(scope, entity, id) -> the row that put it there."""

    @property
    def id(self) -> str:
        return self.joined["device_id"]

    def mutation(self, entity: str, record_id: str, op: str, patch: Json | None = None, **more: Any) -> Json:
        """A mutation with the next number, not sent yet."""
        self.n += 1
        made: Json = {"n": self.n, "entity": entity, "id": record_id, "op": op, "base": {}, "occurred_at": now()}
        if patch is not None:
            made["patch"] = patch
        return made | more

    def envelope(self, mutations: list[Json], **more: Any) -> Json:
        return {"replica": self.replica, "schema": 1, "sent_at": now(), "mutations": mutations} | more

    def send(self, *mutations: Json, **more: Any) -> httpx.Response:
        return self.api.post("/v1/push", self.envelope(list(mutations), **more))

    def push(self, *mutations: Json, **more: Any) -> list[Json]:
        """The results of a push that must be answered as a whole."""
        body = ok(self.send(*mutations, **more))
        check_push_answer(body, list(mutations))
        return body["results"]

    def do(self, entity: str, record_id: str, op: str, patch: Json | None = None, **more: Any) -> Json:
        """Push one mutation; its result."""
        return self.push(self.mutation(entity, record_id, op, patch, **more))[0]

    def pages(self, cursor: str | None, **params: Any) -> Iterator[Json]:
        """All pages from a cursor on, each held to what is promised of a page."""
        while True:
            asked = dict(params) if cursor is None else params | {"cursor": cursor}
            page = ok(self.api.get("/v1/changes", **asked))
            check_page(page)
            yield page
            if not page["more"]:
                return
            cursor = page["cursor"]

    def pull(self, **params: Any) -> list[Json]:
        """Follow the feed to its end, keep what it says, and compare with the hub's own count. The rows that came."""
        came = []
        fresh = self.cursor is None
        if fresh:
            self.held.clear()
        for page in self.pages(self.cursor, replica=self.replica, **params):
            came += page["changes"]
            for row in page["changes"]:
                self.take(row)
            self.cursor = page["cursor"]
        names = {scope["scope"] for scope in page["scopes"]}
        self.held = {key: row for key, row in self.held.items() if key[0] in names}
        assert self.counted() == {s["scope"]: (s["count"], s["checksum"]) for s in page["scopes"]} | {
            name: (0, "0" * 16) for name in names if not any(key[0] == name for key in self.held)
        }
        self.last = page
        return came

    def take(self, row: Json) -> None:
        key = (row["scope"], row["entity"], row["id"])
        if row["op"] == "put":
            self.held[key] = row
        else:
            self.held.pop(key, None)

    def counted(self) -> dict[str, tuple[int, str]]:
        """Count and checksum of each scope, from the rows that came and from nothing else."""
        newest: dict[tuple[str, str], int] = {}
        for (_, entity, record_id), row in self.held.items():
            newest[entity, record_id] = max(row["version"], newest.get((entity, record_id), 0))
        found: dict[str, list[tuple[str, str, int]]] = {}
        for scope, entity, record_id in self.held:
            found.setdefault(scope, []).append((entity, record_id, newest[entity, record_id]))
        return {scope: (len(records), checksum(records)) for scope, records in found.items()}

    def holds(self, entity: str, record_id: str) -> bool:
        return any(key[1:] == (entity, record_id) for key in self.held)

    def record(self, entity: str, record_id: str) -> Json:
        """The newest row of a record that this device holds."""
        rows = [row for key, row in self.held.items() if key[1:] == (entity, record_id)]
        return max(rows, key=lambda row: row["version"])

    def base(self, entity: str, record_id: str) -> Json:
        return self.record(entity, record_id)["clock"]


def check_push_answer(body: Json, sent: list[Json]) -> None:
    """What is promised of every answer to a push."""
    assert [result["n"] for result in body["results"]] == [mutation["n"] for mutation in sent]
    assert isinstance(body["last_n"], int)
    assert body["last_n"] >= (sent[-1]["n"] if sent else 0)
    assert isinstance(body["committed_seq"], int)
    for result in body["results"]:
        check_result(result)


def check_result(result: Json) -> None:
    assert result["status"] in {"applied", "merged", "parked", "rejected"}, result
    assert isinstance(result["duplicate"], bool), result
    if result["status"] in {"merged"}:
        assert result["decisions"], result
    if result["status"] == "parked":
        assert result["review_id"], result
    if result["status"] == "rejected":
        assert result["problem"]["code"], result
        assert result["problem"]["detail"], result
    for decision in result.get("decisions", []):
        assert decision.keys() >= {"field", "policy", "kept", "why"}, result
        assert decision["kept"] in {"incoming", "current", "combined", "waiting"}, result
        assert decision["why"], result
    if "clock" in result and "version" in result:
        assert result["clock"]["hub"] == result["version"], result
    if "record" in result:
        check_record(result["record"])
        assert not result["duplicate"], result


def check_record(record: Json) -> None:
    assert record.keys() >= {"entity", "id", "version", "clock", "data", "updated_at"}, record
    assert record["version"] == record["clock"]["hub"], record
    assert is_moment(record["updated_at"]), record


def check_page(page: Json) -> None:
    """What is promised of every page of the feed."""
    assert isinstance(page["cursor"], str)
    assert isinstance(page["more"], bool)
    assert isinstance(page["as_of"], int)
    assert is_moment(page["server_time"])
    for row in page["changes"]:
        assert row["op"] in {"put", "delete", "evict"}, row
        assert isinstance(row["seq"], int), row
        assert row["seq"] <= page["as_of"] or page["more"], row
        if row["op"] != "evict":
            assert row["version"] == row["clock"]["hub"], row
        assert ("data" in row) is (row["op"] == "put"), row
    if not page["more"]:
        for scope in page["scopes"]:
            assert isinstance(scope["count"], int), scope
            assert re.fullmatch(r"[0-9a-f]{16}", scope["checksum"]), scope


@dataclass
class Server:
    """A server that runs, and the commands beside it."""

    url: str
    data_dir: Path
    tokens: dict[tuple[str, ...], str] = field(default_factory=dict)
    callers: list[Api] = field(default_factory=list)
    offices: dict[tuple[str, ...], Api] = field(default_factory=dict)

    def command(self, *words: str) -> str:
        """What a backhaul command prints; it must succeed."""
        argv = [BACKHAUL, *words, "--data-dir", str(self.data_dir)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (argv, done.stdout, done.stderr)
        return done.stdout.strip()

    def token(self, role: str, *more: str) -> str:
        if (role, *more) not in self.tokens:
            self.tokens[role, *more] = self.command("token", "--role", role, "--subject", f"{role}-1", *more)
        return self.tokens[role, *more]

    def api(self, token: str | None = None, app_version: str | None = APP_VERSION) -> Api:
        made = Api(self.url, token, app_version)
        self.callers.append(made)
        return made

    def office(self, role: str, *more: str) -> Api:
        """Somebody with this role, and what else `backhaul token` takes."""
        if (role, *more) not in self.offices:
            self.offices[role, *more] = self.api(self.token(role, *more))
        return self.offices[role, *more]

    def join(self, technician: str, code: str | None = None, name: str = "phone") -> Device:
        """A new device of this technician."""
        if code is None:
            admin = self.office("admin")
            code = ok(admin.post("/v1/enrolment-codes", {"technician_id": technician}), 201)["code"]
        asked = {"code": code, "name": name, "platform": "android", "app_version": APP_VERSION}
        joined = ok(self.api().post("/v1/devices", asked), 201)
        return Device(self.api(joined["access_token"]), joined)


@dataclass
class Company:
    """A depot with a warehouse, a van and technicians of its own, apart from every other test's."""

    server: Server
    admin: Api
    depot: str
    technician: str
    colleague: str
    van: str
    part: str

    @classmethod
    def found(cls, server: Server) -> Company:
        admin = server.office("admin")
        depot, van, part = new_id("WH"), new_id("VAN"), new_id("P")
        technician, colleague = new_id("T"), new_id("T")
        admin.create("locations", id=depot, name="Depot", kind="warehouse", depot_id=None)
        admin.change("locations", depot, depot_id=depot)
        for one in (technician, colleague):
            admin.create("technicians", id=one, name="A technician", depot_id=depot)
        admin.create("locations", id=van, name="Van", kind="van", depot_id=depot, assigned_to=technician)
        admin.create("parts", id=part, number=part, name="Belt", uom="pcs", tracking="none", status="active")
        return cls(server, admin, depot, technician, colleague, van, part)

    def device(self, technician: str | None = None) -> Device:
        return self.server.join(technician or self.technician)

    def work_order(self, **fields: Any) -> str:
        made = {"id": new_id("WO"), "title": "Belt", "depot_id": self.depot, "assignee_id": self.technician}
        return self.admin.create("work-orders", **made | fields)["id"]

    def assigned(self, **fields: Any) -> str:
        """A work order that waits for its technician."""
        return self.work_order(status="assigned", **fields)


def in_wire_order(value: Any) -> str:
    """JSON text that tells the order of keys as well."""
    return json.dumps(value, ensure_ascii=False)
