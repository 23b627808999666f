"""The device SDK: what an app sees, HTTP, retries, the file, the command line."""

from __future__ import annotations

import gzip
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from client_sdk import FieldClient, Retries, StorageFailed, StorageTooNew, add, append, increment, remove
from client_sdk.background import BackgroundSync
from client_sdk.cli import main
from client_sdk.collection import decode, encode
from client_sdk.ids import mint_id
from client_sdk.replica import SqliteReplica
from client_sdk.schema import UPGRADES
from client_sdk.transport import HttpTransport, Tokens
from sync.entities import ENTITY_TYPES, WorkOrder
from sync.errors import (
    CaptureRefused,
    Conflicting,
    DeviceRevoked,
    EpochChanged,
    InvalidGrant,
    Refused,
    ReplicaForked,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from sync.mutation import Decision, Problem, Result
from sync.protocol import Change, Page, PullRequest, Push, PushResult, ScopeTally
from sync.record import Key
from sync.replica import Draft
from sync.wire import page_to_wire

WO = Key("work_order", "WO-1")
BERLIN = timezone(timedelta(hours=1))
NOW = datetime(2026, 11, 20, 10, 11, 12, 123_000, tzinfo=BERLIN)
TALLY = ScopeTally("tech:T-1", 1, "d19af6add068b1c7")  # work_order WO-1 at version 17
JOB = {"title": "Boiler", "status": "assigned", "assignee_id": "T-1", "depot_id": "D-1"}


class OneJobServer:
    """Has one work order and answers every mutation with `outcome`. fails: raised by the next calls, in order."""

    def __init__(self, outcome: Callable[[int], Result] = lambda n: Result(n, "applied"), fails: Any = ()) -> None:
        self.pushed: list[Push] = []
        self._outcome, self._fails = outcome, list(fails)

    def push(self, push: Push) -> PushResult:
        if self._fails:
            raise self._fails.pop(0)
        self.pushed.append(push)
        last_n = max((m.n for m in push.mutations), default=0)
        return PushResult([self._outcome(m.n) for m in push.mutations], last_n, 17)

    def pull(self, request: PullRequest) -> Page:
        if self._fails:
            raise self._fails.pop(0)
        rows = [Change(17, "put", "tech:T-1", *WO, 17, {"hub": 17}, JOB)]
        last_n = max((m.n for push in self.pushed for m in push.mutations), default=0)
        return Page([] if request.cursor else rows, "c", False, 17, [TALLY], last_n=last_n)


@pytest.fixture
def open_client(tmp_path: Path) -> Iterator[Callable[..., FieldClient]]:
    opened: list[FieldClient] = []

    def open_(server: Any = None, name: str = "device.db", **more: Any) -> FieldClient:
        more.setdefault("now", lambda: NOW)
        opened.append(FieldClient.open(tmp_path / name, server, **more))
        return opened[-1]

    yield open_
    for client in opened:
        client.close()


# -- collections --------------------------------------------------------------------------------------------------


def test_every_entity_has_a_collection(open_client: Callable[..., FieldClient]) -> None:
    client = open_client()

    assert all(hasattr(client, entity.plural.replace("-", "_")) for entity in ENTITY_TYPES.values())


def test_records_are_python_values(open_client: Callable[..., FieldClient]) -> None:
    client = open_client(OneJobServer())
    client.sync()
    client.work_orders.update("WO-1", meter_reading=Decimal("120.50"), tags=add("wet"), actual_start=NOW)
    job = client.work_orders.get("WO-1")

    assert isinstance(job, WorkOrder)
    assert (job.id, job.title) == ("WO-1", "Boiler")
    assert (job.meter_reading, job.tags, job.actual_start) == (Decimal("120.50"), ("wet",), NOW)
    assert client.work_orders.find(status="assigned") == [job]
    assert client.work_orders.find(status="completed") == []
    assert client.work_orders.get("WO-2") is None


def test_a_new_record_gets_an_id_and_is_there_at_once(open_client: Callable[..., FieldClient]) -> None:
    client = open_client()
    id = client.notes.create(parent=WO, text="Ring at the side door")
    note = client.notes.get(id)

    assert len(id) == 26
    assert note is not None
    assert note.parent == {"entity": "work_order", "id": "WO-1"}


def test_the_time_of_a_change_is_the_local_one_with_its_offset(open_client: Callable[..., FieldClient]) -> None:
    client = open_client()
    client.work_orders.update("WO-1", resolution="x")
    [entry] = client.replica.outbox()

    assert entry.mutation.body["occurred_at"] == "2026-11-20T10:11:12.123+01:00"


def test_a_deleted_record_is_gone_at_once(open_client: Callable[..., FieldClient]) -> None:
    client = open_client(OneJobServer())
    client.sync()
    client.work_orders.delete("WO-1")

    assert client.work_orders.get("WO-1") is None


@pytest.mark.parametrize(
    "change",
    [{"titel": "x"}, {"status": "no such state"}, {"meter_reading": 1.5}, {"actual_start": datetime(2026, 1, 1)}],
)
def test_what_can_never_be_accepted_is_refused_before_it_says_saved(
    open_client: Callable[..., FieldClient], change: dict[str, Any]
) -> None:
    client = open_client()

    with pytest.raises(CaptureRefused):
        client.work_orders.update("WO-1", **change)
    assert client.replica.outbox() == []


def test_operators_have_names() -> None:
    assert increment(-2) == {"$inc": "-2"}
    assert increment(Decimal("1E+1")) == {"$inc": "10"}
    assert append({"by": "T-1"}) == {"$append": [{"by": "T-1"}]}
    assert remove("a", "b") == {"$remove": ["a", "b"]}


def test_values_come_back_as_they_were_given() -> None:
    fields = ENTITY_TYPES["work_order"].fields
    for name, value in (("meter_reading", Decimal("2.500")), ("scheduled_start", NOW), ("tags", ("a", "b"))):
        assert decode(fields[name], encode(fields[name], value)) == value
    assert decode(fields["meter_reading"], "a lot") == "a lot"


# -- groups -------------------------------------------------------------------------------------------------------


def test_a_group_is_saved_when_it_ends(open_client: Callable[..., FieldClient]) -> None:
    client = open_client()
    with client.group():
        client.notes.create(parent=WO, text="a")
        client.work_orders.update("WO-1", resolution="x")
        inside = client.replica.outbox()
    groups = {entry.mutation.group for entry in client.replica.outbox()}

    assert inside == []
    assert len(client.replica.outbox()) == 2
    assert len(groups) == 1
    assert None not in groups


def test_a_group_that_fails_saves_nothing(open_client: Callable[..., FieldClient]) -> None:
    client = open_client()

    def group(fail: Callable[[], None]) -> None:
        with client.group():
            client.notes.create(parent=WO, text="a")
            fail()

    with pytest.raises(CaptureRefused):
        group(lambda: client.work_orders.update("WO-1", status="no such state"))
    with pytest.raises(ZeroDivisionError):
        group(lambda: print(1 / 0))
    client.notes.create(parent=WO, text="b")

    assert [entry.mutation.patch["text"] for entry in client.replica.outbox()] == ["b"]


def test_groups_do_not_nest(open_client: Callable[..., FieldClient]) -> None:
    client = open_client()
    with client.group(), pytest.raises(Conflicting), client.group():
        pass


# -- what a person is told ----------------------------------------------------------------------------------------


def test_the_status_speaks_in_words(open_client: Callable[..., FieldClient]) -> None:
    outcomes = {1: "applied", 2: "parked", 3: "rejected"}
    server = OneJobServer(lambda n: Result(n, outcomes[n], problem=Problem("p", "why not")))  # type: ignore[arg-type]
    client = open_client(server)
    before = str(client.status())
    for text in "abc":
        client.work_orders.update("WO-1", resolution=text)
    unsent = str(client.status())
    client.sync()

    assert before == "Everything is sent. Never synced yet."
    assert unsent.startswith("3 changes are saved on this device, not sent yet.")
    assert str(client.status()) == (
        "Everything is sent. 1 change is with the office for a decision. 1 change is not accepted; look at the reasons."
        " Last synced on 2026-11-20 at 10:11."
    )
    assert [(t.values, t.why) for t in client.rejected()] == [({"resolution": "c"}, "why not")]
    client.dismiss(client.parked()[0])
    assert client.parked() == []


def test_an_app_hears_of_changes_decisions_and_troubles(open_client: Callable[..., FieldClient]) -> None:
    decision = Decision("resolution", "merge3", "waiting", "changed in two places")
    client = open_client(OneJobServer(lambda n: Result(n, "parked", decisions=(decision,), review_id="c_1")))
    heard: list[Any] = []
    client.on_change(lambda keys: heard.append(set(keys)))
    client.on_decision(lambda key, result: heard.append((key, result.decisions)))
    client.on_parked(lambda trouble: heard.append((trouble.key, trouble.why)))
    client.work_orders.update("WO-1", resolution="x")
    client.sync()

    assert heard == [{WO}, {WO}, (WO, (decision,)), (WO, "changed in two places")]


# -- revocation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reason", "kept"), [("retired", 1), ("lost", 0)])
def test_a_revoked_device_keeps_its_unsent_work_unless_it_was_lost(
    open_client: Callable[..., FieldClient], tmp_path: Path, reason: str, kept: int
) -> None:
    server = OneJobServer()
    client = open_client(server)
    client.sync()
    client.replica.set_settings(access_token="a", refresh_token="r")
    client.work_orders.update("WO-1", resolution="canary in the cellar")
    server._fails = [DeviceRevoked(reason=reason)]
    with pytest.raises(DeviceRevoked):
        client.sync()

    assert client.work_orders.get("WO-1") is None
    assert client.replica.setting("refresh_token") is None
    assert len(client.replica.outbox()) == kept
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert (b"canary" in files) == bool(kept)


# -- the file -----------------------------------------------------------------------------------------------------


def test_what_was_saved_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "device.db"
    with FieldClient.open(path) as client:
        client.work_orders.update("WO-1", resolution="x")
        name = client.replica.position.replica
    with FieldClient.open(path) as client:
        client.work_orders.update("WO-1", resolution="y")

        assert [(e.replica, e.n) for e in client.replica.outbox()] == [(name, 1), (name, 2)]


def test_a_copied_file_goes_on_under_another_name(tmp_path: Path) -> None:
    original, copy = tmp_path / "a.db", tmp_path / "b.db"
    with SqliteReplica(original) as replica:
        replica.capture([Draft("update", WO, {"resolution": "x"})], NOW.isoformat())
        name = replica.position.replica
    copy.write_bytes(original.read_bytes())
    with SqliteReplica(copy) as replica:
        replica.capture([Draft("update", WO, {"resolution": "y"})], NOW.isoformat())
        names = [(entry.replica == name, entry.n) for entry in replica.outbox()]
    with SqliteReplica(copy) as replica:
        stays = replica.position.replica
        assert stays == replica.outbox()[-1].replica
    with SqliteReplica(original) as replica:
        assert replica.position.replica == name

    assert names == [(True, 1), (False, 1)]


def test_an_upgrade_keeps_the_outbox(tmp_path: Path) -> None:
    path = tmp_path / "device.db"
    with SqliteReplica(path) as replica:
        replica.capture([Draft("update", WO, {"resolution": "x"})], NOW.isoformat())
    newer = (*UPGRADES, ("CREATE TABLE photo (name TEXT PRIMARY KEY)",))
    with SqliteReplica(path, steps=newer) as replica:
        assert len(replica.outbox()) == 1
        assert replica._rows("SELECT * FROM photo") == []
    with pytest.raises(StorageTooNew):
        SqliteReplica(path)


def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "device.db"
    with SqliteReplica(path) as replica:
        replica.capture([Draft("update", WO, {"resolution": "x"})], NOW.isoformat())
    with pytest.raises(StorageFailed):
        SqliteReplica(path, steps=(*UPGRADES, ("CREATE TABLE photo (name TEXT)", "this is no SQL")))
    with SqliteReplica(path) as replica:
        assert len(replica.outbox()) == 1
        assert replica._rows("SELECT name FROM sqlite_master WHERE name = 'photo'") == []


def test_a_full_disk_is_told_before_it_says_saved(tmp_path: Path) -> None:
    with SqliteReplica(tmp_path / "device.db") as replica:
        (pages,) = replica._rows("PRAGMA page_count")[0]
        replica._rows(f"PRAGMA max_page_count = {pages}")

        def work_on() -> None:
            for _ in range(50):
                replica.capture([Draft("update", WO, {"resolution": "x" * 2_000})], NOW.isoformat())

        with pytest.raises(StorageFailed):
            work_on()
        saved = [entry.n for entry in replica.outbox()]

        assert saved == list(range(1, len(saved) + 1))
        assert replica.position.next_n == len(saved) + 1


def test_damaged_server_state_is_fetched_again_and_work_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "device.db"
    replica = SqliteReplica(path)
    replica.capture([Draft("update", WO, {"resolution": "x"})], NOW.isoformat())
    rows = [Change(n, "put", "tech:T-1", "note", f"N-{n}", n, {"hub": n}, {"text": "y" * 900}) for n in range(1, 200)]
    replica.stage(Page(rows, "c", False, 200, [TALLY]))
    replica._db.close()  # an unclean end
    with sqlite3.connect(path) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'record'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    db.close()
    content = bytearray(path.read_bytes())
    content[(root - 1) * size : root * size] = b"\xff" * size
    path.write_bytes(content)
    with SqliteReplica(path) as replica:
        assert [entry.mutation.patch for entry in replica.outbox()] == [{"resolution": "x"}]
        assert (replica.position.cursor, replica.position.fresh, replica.position.next_n) == (None, True, 2)
        assert path.with_name("device.db.damaged").exists()


def test_two_threads_may_use_one_client(open_client: Callable[..., FieldClient]) -> None:
    client = open_client()

    def write() -> None:
        for _ in range(20):
            client.work_orders.update("WO-1", resolution="x")

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [entry.n for entry in client.replica.outbox()] == list(range(1, 61))


def test_ids_sort_by_time() -> None:
    ids = [mint_id(at, chance) for at, chance in ((1, 5), (2, 0), (1_795_166_100_000, 1))]

    assert ids == sorted(ids)
    assert mint_id(0, 0) == "0" * 26
    assert mint_id((1 << 48) - 1, (1 << 80) - 1) == "7" + "Z" * 25


# -- HTTP ---------------------------------------------------------------------------------------------------------


def problem(status: int, code: str, headers: Any = None, **more: Any) -> httpx.Response:
    content = json.dumps({"type": "x", "title": "x", "status": status, "detail": "said so", "code": code, **more})
    return httpx.Response(status, text=content, headers={"Content-Type": "application/problem+json", **(headers or {})})


class Wire:
    """An httpx transport with scripted answers that notes the requests."""

    def __init__(self, *answers: Any) -> None:
        self.requests: list[httpx.Request] = []
        self._answers = iter(answers)
        self.saved: list[Tokens] = []
        self.http = HttpTransport("http://server", self.load, self.saved.append, http=httpx.MockTransport(self.answer))

    def load(self) -> Tokens:
        return self.saved[-1] if self.saved else Tokens("access-1", "refresh-1")

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, httpx.Response)
        return answer


def page() -> httpx.Response:
    return httpx.Response(200, json=page_to_wire(Page([], "c", False, 1)))


def test_a_pull_asks_as_this_device() -> None:
    wire = Wire(page())
    wire.http.pull(PullRequest("opaque", 10, replica="r_1"))
    [request] = wire.requests

    assert str(request.url) == "http://server/v1/changes?limit=10&cursor=opaque&replica=r_1"
    assert request.headers["Authorization"] == "Bearer access-1"
    assert request.headers["X-App-Version"] == "1.0"


def test_a_large_push_is_compressed(open_client: Callable[..., FieldClient]) -> None:
    client = open_client()
    for _ in range(10):
        client.work_orders.update("WO-1", resolution="a long story " * 10)
    wire = Wire(httpx.Response(200, json={"results": [], "last_n": 0, "committed_seq": 0}))
    wire.http.push(Push("r_1", [entry.mutation for entry in client.replica.outbox()]))
    [request] = wire.requests

    assert request.headers["Content-Encoding"] == "gzip"
    assert len(json.loads(gzip.decompress(request.content))["mutations"]) == 10


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.ConnectError("no route"), Unavailable),
        (httpx.ReadTimeout("slow"), Unavailable),
        (httpx.Response(200, text="<html>Welcome to the hotel</html>"), Unavailable),
        (httpx.Response(200, json={"hello": "world"}), Unavailable),
        (httpx.Response(400, text="<html>Bad Request</html>"), Unavailable),
        (httpx.Response(413, text="nginx"), TooLarge),
        (httpx.Response(502, text="Bad Gateway"), Unavailable),
        (problem(410, "epoch_changed"), EpochChanged),
        (problem(401, "device_revoked", reason="lost"), DeviceRevoked),
        (problem(418, "teapot"), Refused),
        (problem(500, "teapot"), Unavailable),
    ],
)
def test_only_the_server_itself_is_believed(answer: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        Wire(answer).http.pull(PullRequest())
    assert type(caught.value) is error


def test_members_of_a_problem_come_with_the_error() -> None:
    with pytest.raises(ReplicaForked) as caught:
        Wire(problem(409, "replica_forked", forked_at=4, results=[])).http.push(Push("r_1", []))
    assert (caught.value.detail, caught.value.extras) == ("said so", {"forked_at": 4, "results": []})


def test_the_time_that_the_server_asks_for_is_heard() -> None:
    with pytest.raises(TooManyRequests) as caught:
        Wire(problem(429, "too_many_requests", {"Retry-After": "17"})).http.pull(PullRequest())
    assert caught.value.retry_after_s == 17


def test_new_tokens_are_stored_before_they_are_used() -> None:
    answers = iter([
        problem(401, "unauthorized"),
        httpx.Response(200, json={"access_token": "access-2", "refresh_token": "refresh-2", "expires_in": 900}),
        page(),
    ])  # fmt: skip
    events: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        events.append(f"{request.url.path} {request.headers.get('Authorization', '')}".strip())
        return next(answers)

    held = [Tokens("access-1", "refresh-1")]

    def save(tokens: Tokens) -> None:
        events.append(f"saved {tokens.refresh}")
        held[0] = tokens

    HttpTransport("http://server", lambda: held[0], save, http=httpx.MockTransport(answer)).pull(PullRequest())

    assert events == [
        "/v1/changes Bearer access-1", "/v1/token", "saved refresh-2", "/v1/changes Bearer access-2"
    ]  # fmt: skip


def test_a_refused_refresh_token_asks_for_a_new_enrolment() -> None:
    with pytest.raises(Unauthorized, match="enrolled again"):
        Wire(problem(401, "unauthorized"), problem(400, "invalid_grant")).http.pull(PullRequest())


def enrolment(technician: str = "T-1") -> httpx.Response:
    return httpx.Response(201, json={
        "device_id": "d_1", "technician_id": technician, "scopes": [f"tech:{technician}"], "access_token": "a-1",
        "expires_in": 900, "refresh_token": "r-1", "feed_epoch": "0",
    })  # fmt: skip


def test_a_device_joins_and_syncs(open_client: Callable[..., FieldClient]) -> None:
    wire = Wire(enrolment(), page())
    client = open_client(http=httpx.MockTransport(wire.answer))
    technician = client.join("http://server", "CODE", "Tina's phone")
    client.sync()

    assert technician == "T-1"
    assert json.loads(wire.requests[0].content)["code"] == "CODE"
    assert wire.requests[1].headers["Authorization"] == "Bearer a-1"
    assert client.status().enrolled


def test_unsent_work_is_not_given_to_another_technician(open_client: Callable[..., FieldClient]) -> None:
    wire = Wire(enrolment("T-1"), enrolment("T-2"), enrolment("T-1"))
    client = open_client(http=httpx.MockTransport(wire.answer))
    client.join("http://server", "CODE")
    client.work_orders.update("WO-1", resolution="x")

    with pytest.raises(Conflicting, match="T-1"):
        client.join("http://server", "CODE-2")
    assert client.join("http://server", "CODE-3") == "T-1"
    assert len(client.replica.outbox()) == 1


def test_another_technician_starts_with_an_empty_device(open_client: Callable[..., FieldClient]) -> None:
    wire = Wire(enrolment("T-1"), enrolment("T-2"))
    client = open_client(http=httpx.MockTransport(wire.answer))
    client.join("http://server", "CODE")
    before = client.replica.position.replica
    client.join("http://server", "CODE-2")

    assert client.replica.position.replica != before


def test_a_wrong_code_is_told(open_client: Callable[..., FieldClient]) -> None:
    wire = Wire(problem(400, "invalid_grant"))
    with pytest.raises(InvalidGrant):
        open_client(http=httpx.MockTransport(wire.answer)).join("http://server", "CODE")


def test_a_device_that_is_not_enrolled_says_so(open_client: Callable[..., FieldClient]) -> None:
    with pytest.raises(Unauthorized, match="not enrolled"):
        open_client().sync()


# -- trying again -------------------------------------------------------------------------------------------------


def test_retries_wait_with_full_jitter_and_as_the_server_asks() -> None:
    retries = Retries(chance=lambda: 0.5)

    assert [retries.delay(failures) for failures in (1, 2, 3)] == [1.0, 2.0, 4.0]
    assert retries.delay(99) == 150.0
    assert retries.delay(1, Unavailable(retry_after_s=30)) == 30.5


def test_a_call_is_tried_again_only_if_that_can_help() -> None:
    slept: list[float] = []
    retries = Retries(chance=lambda: 0.5, sleep=slept.append)
    answers = iter([Unavailable(), None])

    def attempt() -> str:
        error = next(answers)
        if error:
            raise error
        return "done"

    def refused() -> str:
        raise Unauthorized

    assert retries.call(attempt) == "done"
    assert slept == [2.5]
    with pytest.raises(Unauthorized):
        retries.call(refused)
    assert len(slept) == 1


def test_a_device_does_not_retry_without_end() -> None:
    retries, calls = Retries(chance=lambda: 0, sleep=lambda s: None), []

    def attempt() -> None:
        calls.append(1)
        raise Unavailable

    for _ in range(20):
        with pytest.raises(Unavailable):
            retries.call(attempt)
    assert len(calls) == 20 + 10


def test_a_sync_that_failed_drains_without_a_new_write(open_client: Callable[..., FieldClient]) -> None:
    server = OneJobServer(fails=[Unavailable(retry_after_s=0), Unavailable(retry_after_s=0)])
    client = open_client(server, retries=Retries(chance=lambda: 0.001))
    client.work_orders.update("WO-1", resolution="x")
    online, states = threading.Event(), []

    def connectivity(is_online: bool) -> None:
        states.append(is_online)
        if is_online:
            online.set()

    client.start(interval_s=60, on_connectivity=connectivity)

    assert online.wait(10)
    assert states == [False, True]
    assert client.status().unsent == 0


def test_a_write_is_sent_at_once_in_the_background(open_client: Callable[..., FieldClient]) -> None:
    synced = threading.Semaphore(0)
    client = open_client(OneJobServer())
    client._background = BackgroundSync(lambda: (client.sync(), synced.release()), interval_s=60)
    assert synced.acquire(timeout=10)
    client.work_orders.update("WO-1", resolution="x")

    assert synced.acquire(timeout=10)
    assert client.status().unsent == 0


# -- what a device needs ------------------------------------------------------------------------------------------


def test_a_device_needs_nothing_of_the_server() -> None:
    script = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("server", "flask", "sqlalchemy", "psycopg", "marshmallow", "orjson", "jwt", "rq"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nothing())
import client_sdk, client_sdk.cli
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False, timeout=60)

    assert done.returncode == 0


# -- the command line ---------------------------------------------------------------------------------------------


def device(tmp_path: Path, command: str, *arguments: str) -> int:
    return main(["device", command, *arguments, "--path", str(tmp_path / "cli.db")])


def test_a_device_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    statuses = [
        device(tmp_path, "set", "note", "N-1", 'parent={"entity":"work_order","id":"WO-1"}', "text=a=b"),
        device(tmp_path, "set", "note", "N-1", "pinned=true"),
        device(tmp_path, "list", "note"),
        device(tmp_path, "status"),
    ]
    said = capsys.readouterr().out

    assert statuses == [0, 0, 0, 0]
    assert "Created note N-1" in said
    assert "Saved note N-1" in said
    assert "text=a=b" in said
    assert "2 changes are saved on this device" in said


def test_the_list_can_be_read_by_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device(tmp_path, "set", "task", "TK-1", "work_order_id=WO-1", "title=Check")
    capsys.readouterr()
    device(tmp_path, "list", "task", "--json")

    assert json.loads(capsys.readouterr().out)["title"] == "Check"


@pytest.mark.parametrize(
    ("arguments", "status", "hint"),
    [
        (("list", "unicorn"), 2, "there is no entity unicorn"),
        (("set", "note", "N-1", "colour=red"), 2, "no field colour"),
        (("set", "note", "N-1", "colour"), 2, "field=value"),
        (("set", "work_order", "WO-1", "title=x", "status=unheard of"), 1, "status"),
        (("sync",), 1, "not enrolled"),
    ],
)
def test_mistakes_are_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], status: int, hint: str
) -> None:
    assert device(tmp_path, *arguments) == status
    assert hint in capsys.readouterr().err


def test_without_the_server_its_commands_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Missing:
        name = "server"

        def load(self) -> Any:
            raise ModuleNotFoundError("No module named 'flask'", name="flask")

    monkeypatch.setattr("client_sdk.cli.entry_points", lambda group: [Missing()])

    assert main(["run"]) == 2
    assert "pip install 'backhaul[server]'" in capsys.readouterr().err


def test_other_commands_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Present:
        name = "server"

        def load(self) -> Any:
            return lambda commands: commands.add_parser("serve").set_defaults(run=lambda args: 7)

    monkeypatch.setattr("client_sdk.cli.entry_points", lambda group: [Present()])

    assert main(["serve"]) == 7


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "device" in capsys.readouterr().out


def test_what_lies_on_the_device_is_for_its_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "old.db").touch(0o644)
    for name in ("new.db", "old.db"):
        with FieldClient.open(tmp_path / name) as client:
            client.notes.create(parent={"entity": "work_order", "id": "WO-1"}, text="The key is under the mat.")

            assert {path.stat().st_mode & 0o777 for path in tmp_path.glob(f"{name}*")} == {0o600}
