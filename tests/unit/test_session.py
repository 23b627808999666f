"""A device's sync, against the hub in memory; scripted servers only for what a hub cannot be made to do."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from server.services.changes import HubServer
from server.services.records import create_record, update_record
from sync.device_memory import MemoryReplica
from sync.errors import EpochChanged, InvariantBroken, Malformed, MutationGap, ReplicaForked, TooLarge, Unavailable
from sync.memory import MemoryHub
from sync.mutation import Result
from sync.protocol import Page, PullRequest, Push, PushResult, ScopeTally, SyncServer
from sync.record import Key
from sync.replica import Draft
from sync.session import SyncReport, sync_once
from sync.store import Actor
from sync.wire import result_to_wire

AT = "2027-01-15T09:00:00+01:00"
WO, NOTE = Key("work_order", "WO-1"), Key("note", "N-1")
ADMIN = Actor("user", "user:ada", "admin", "platform", ("*",))


class Field:
    """A hub with an office, and devices of technicians T-1 and T-2."""

    def __init__(self) -> None:
        self.hub = MemoryHub()
        self._now = itertools.count(1_800_000_000_000, 1_000)
        self._names = (f"r_{n}" for n in itertools.count(1))
        self.office("location", "D-1", name="Depot", kind="warehouse")
        for technician in ("T-1", "T-2"):
            self.office("technician", technician, name=technician, depot_id="D-1")
        self.office("work_order", "WO-1", title="Boiler", status="assigned", assignee_id="T-1", depot_id="D-1")

    def clock(self) -> int:
        return next(self._now)

    def mint(self) -> str:
        return next(self._names)

    def office(self, entity: str, id: str, **values: Any) -> None:
        create_record(self.hub, ADMIN, Key(entity, id), values, self.clock())

    def change(self, key: Key, **values: Any) -> None:
        version = self.hub.state.records[key].version
        update_record(self.hub, ADMIN, key, values, version, self.clock())

    def server(self, technician: str = "T-1") -> HubServer:
        scopes = (f"tech:{technician}", "stock:D-1", "catalog:all")
        actor = Actor("device", f"device:{technician}", "technician", "device", scopes, technician)
        return HubServer(self.hub, lambda: actor, b"secret", self.clock)

    def device(self) -> MemoryReplica:
        replica = MemoryReplica(self.mint())
        self.sync(replica)
        return replica

    def sync(self, replica: MemoryReplica, server: SyncServer | None = None, **more: Any) -> SyncReport:
        return sync_once(replica, server or self.server(), now=self.clock, **more)

    def values(self, key: Key) -> Any:
        return self.hub.state.records[key].data

    def moves(self) -> int:
        return sum(len(entries) for entries in self.hub.state.history.values())


class Between:
    """Stands between a device and a server and does to each call what it is told."""

    def __init__(
        self, server: SyncServer, push: Callable[[Push], None] = lambda push: None, lose_answers: int = 0
    ) -> None:  # fmt: skip
        self._server, self._check, self._lose = server, push, lose_answers
        self.pushes: list[Push] = []

    def push(self, push: Push) -> PushResult:
        self.pushes.append(push)
        self._check(push)
        answer = self._server.push(push)
        if self._lose:
            self._lose -= 1
            raise Unavailable
        return answer

    def pull(self, request: PullRequest) -> Page:
        return self._server.pull(request)


@pytest.fixture
def field() -> Field:
    return Field()


def edit(replica: MemoryReplica, key: Key = WO, **patch: Any) -> None:
    replica.capture([Draft("update", key, patch)], AT)


def note(replica: MemoryReplica, id: str, text: str = "hello") -> None:
    parent = {"entity": "work_order", "id": "WO-1"}
    replica.capture([Draft("create", Key("note", id), {"parent": parent, "text": text})], AT)


# -- the plain way ------------------------------------------------------------------------------------------------


def test_two_devices_come_to_see_the_same(field: Field) -> None:
    a, b = field.device(), field.device()
    edit(a, resolution="belt replaced")
    edit(b, meter_reading="120.5")
    for device in (a, b, a):
        field.sync(device)

    assert a.shown(WO) == b.shown(WO) == field.values(WO)
    assert field.values(WO)["resolution"] == "belt replaced"
    assert field.values(WO)["meter_reading"] == "120.5"


def test_a_sync_reports_what_it_did(field: Field) -> None:
    a = field.device()
    edit(a, resolution="x")
    report = field.sync(a)

    assert [(entry.n, result.status) for entry, result in report.answered] == [(1, "applied")]
    assert report.changed == {WO}
    assert report.pulled == 1
    assert report.repaired == []


@pytest.mark.parametrize("page_size", [1, 2, 3, 100])
def test_whatever_the_page_size_a_device_ends_with_everything(field: Field, page_size: int) -> None:
    a = field.device()
    for n in range(5):
        note(a, f"N-{n}")
    field.sync(a)
    b = MemoryReplica("r_b")
    field.sync(b, page_size=page_size)

    assert b.shown_all("note") == a.shown_all("note")
    assert len(b.shown_all("note")) == 5


def test_more_than_one_push_is_sent_in_order(field: Field) -> None:
    a = field.device()
    for n in range(600):
        note(a, f"N-{n}")
    between = Between(field.server())
    field.sync(a, between)

    assert [len(push.mutations) for push in between.pushes] == [500, 100]
    assert all(entry.acknowledged for entry in a.outbox())


def test_an_own_edit_follows_an_own_edit_without_conflict(field: Field) -> None:
    a = field.device()
    edit(a, resolution="one")
    field.sync(a)
    edit(a, resolution="two")
    edit(a, resolution="three")
    report = field.sync(a)

    assert [result.status for _, result in report.answered] == ["applied", "applied"]
    assert field.values(WO)["resolution"] == "three"


# -- lost answers -------------------------------------------------------------------------------------------------


def test_work_whose_answer_was_lost_counts_once(field: Field) -> None:
    a = field.device()
    note(a, "N-1")
    with pytest.raises(Unavailable):
        field.sync(a, Between(field.server(), lose_answers=1))
    history = field.moves()
    report = field.sync(a)

    assert field.moves() == history
    assert [(result.status, result.duplicate) for _, result in report.answered] == [("applied", True)]


def test_a_sync_that_raises_still_tells_what_it_did(field: Field) -> None:
    a = field.device()
    for n in range(501):
        note(a, f"N-{n}")
    sent = itertools.count()

    def second_fails(push: Push) -> None:
        if next(sent):
            raise Unavailable

    report = SyncReport()
    with pytest.raises(Unavailable):
        field.sync(a, Between(field.server(), second_fails), report=report)

    assert len(report.answered) == 500


# -- copies -------------------------------------------------------------------------------------------------------


def copied(replica: MemoryReplica) -> MemoryReplica:
    return copy.deepcopy(replica)


def test_of_a_copied_phone_and_its_original_nothing_is_lost(field: Field) -> None:
    a = field.device()
    note(a, "N-before")
    b = copied(a)
    note(a, "N-a1")
    note(a, "N-a2")
    note(b, "N-b1")
    edit(b, Key("note", "N-b1"), text="changed")
    first, second = field.sync(a), field.sync(b)
    again = field.sync(b)
    field.sync(a)

    assert first.renamed == again.renamed == []
    assert [old for old, _ in second.renamed] == ["r_1"]
    assert a.shown_all("note") == b.shown_all("note")
    assert {id: data["text"] for id, data in b.shown_all("note").items()} == {
        "N-before": "hello", "N-a1": "hello", "N-a2": "hello", "N-b1": "changed"
    }  # fmt: skip
    assert all(entry.acknowledged for entry in b.outbox())


def test_a_renamed_push_whose_answer_was_lost_counts_once(field: Field) -> None:
    a = field.device()
    b = copied(a)
    note(a, "N-a")
    note(b, "N-b")
    edit(b, Key("note", "N-b"), text="changed")
    field.sync(a)
    forks: list[Push] = []
    between = Between(field.server(), forks.append, lose_answers=1)
    with pytest.raises(Unavailable):
        field.sync(b, between)
    history = field.moves()
    report = field.sync(b)

    assert field.moves() == history
    assert report.renamed == []
    assert [(entry.n, result.duplicate) for entry, result in report.answered] == [(1, True), (2, True)]


def test_two_copies_that_hold_the_same_unsent_work_send_it_once(field: Field) -> None:
    a = field.device()
    b = copied(a)
    note(b, "N-b")
    c = copied(b)
    note(a, "N-a")
    for device in (a, b, c):
        field.sync(device)

    assert len(field.hub.state.history[Key("note", "N-b")]) == 1
    assert b.shown_all("note") == c.shown_all("note")


def test_copies_send_work_that_builds_on_own_work_once_too(field: Field) -> None:
    a = field.device()
    b = copied(a)
    edit(b, labour={"$append": [{"minutes": 10}]})
    edit(b, labour={"$append": [{"minutes": 20}]})
    c = copied(b)
    note(c, "N-c")
    note(a, "N-a")
    for device in (a, b, c, b):
        field.sync(device)

    assert field.values(WO)["labour"] == [{"minutes": 10}, {"minutes": 20}]
    assert b.shown_all("note") == c.shown_all("note")
    assert b.shown_all("note").keys() == {"N-a", "N-c"}


def test_what_the_server_has_of_another_name_is_not_touched_by_a_fork(field: Field) -> None:
    a = field.device()
    backup = field.hub.backup()
    b = copied(a)
    edit(b, resolution="one")
    b.rename("r_1", 2, "r_later", {})
    edit(b, resolution="two")
    field.sync(b)
    field.hub.restore(backup, epoch=7)
    note(a, "N-a")
    field.sync(a)
    report = field.sync(b)

    assert [old for old, _ in report.renamed] == ["r_1"]
    assert field.values(WO)["resolution"] == "two"
    assert all(entry.acknowledged for entry in b.outbox())


def test_results_of_a_fork_may_be_documents(field: Field) -> None:
    a = field.device()
    note(a, "N-1")
    note(a, "N-2")

    def forked(push: Push) -> None:
        if len(push.mutations) == 2:
            raise ReplicaForked(forked_at=2, results=[result_to_wire(Result(1, "applied"))])

    report = field.sync(a, Between(field.server(), forked))
    [(_, new)] = report.renamed

    assert [(entry.replica, entry.n) for entry, _ in report.answered] == [("r_1", 1), (new, 1)]


# -- restored servers ---------------------------------------------------------------------------------------------


def test_what_a_restored_server_lost_is_offered_again(field: Field) -> None:
    a = field.device()
    note(a, "N-1")
    field.sync(a)
    backup = field.hub.backup()
    note(a, "N-2")
    edit(a, resolution="done")
    field.sync(a)
    field.hub.restore(backup, epoch=7)
    report = field.sync(a)

    assert field.values(Key("note", "N-2"))["text"] == "hello"
    assert field.values(WO)["resolution"] == "done"
    assert report.answered == []  # no news: the answers are those that it had before
    assert a.shown_all("note").keys() == {"N-1", "N-2"}
    assert a.shown(WO) == field.values(WO)


def test_new_work_reaches_a_restored_server_before_the_device_knows_of_it(field: Field) -> None:
    a = field.device()
    backup = field.hub.backup()
    note(a, "N-1")
    field.sync(a)
    field.hub.restore(backup, epoch=7)
    note(a, "N-2")
    report = field.sync(a)

    assert report.restarts == 1
    assert {"N-1", "N-2"} <= {key.id for key in field.hub.state.records}


def test_a_restore_between_a_push_and_the_first_page_is_noticed(field: Field) -> None:
    """Without a cursor nothing says that the server is another one than the one that took the work."""
    a = field.device()
    backup = field.hub.backup()
    field.hub.restore(backup, epoch=7)
    edit(a, resolution="x")

    class CutOff(Between):
        def pull(self, request: PullRequest) -> Page:
            if request.cursor is None:
                raise Unavailable
            return super().pull(request)

    with pytest.raises(Unavailable):
        field.sync(a, CutOff(field.server()))
    field.hub.restore(backup, epoch=8)
    field.sync(a)

    assert field.values(WO)["resolution"] == "x"
    assert a.shown(WO) == field.values(WO)


def test_what_is_in_every_backup_is_kept_no_longer(field: Field) -> None:
    a = field.device()
    note(a, "N-1")
    field.sync(a)
    field.hub.state.durable_seq = field.hub.state.head
    note(a, "N-2")
    field.sync(a)

    assert [entry.n for entry in a.outbox()] == [2]


def test_a_device_that_has_no_more_what_the_server_lost_starts_a_new_name(field: Field) -> None:
    a = field.device()
    backup = field.hub.backup()
    note(a, "N-1")
    field.sync(a)
    field.hub.state.durable_seq = field.hub.state.head
    field.sync(a)
    field.hub.restore(backup, epoch=7)  # although it was said that no such backup would be restored any more
    note(a, "N-2")
    report = field.sync(a)

    assert [old for old, _ in report.renamed] == ["r_1"]
    assert Key("note", "N-2") in field.hub.state.records
    assert a.outbox()[0].name == ("r_1", 2)


def test_work_under_a_former_name_is_let_go_when_it_is_durable(field: Field) -> None:
    a = field.device()
    b = copied(a)
    note(a, "N-a")
    note(b, "N-same")
    field.sync(a)
    field.sync(b)
    former = copied(b)
    field.hub.state.durable_seq = field.hub.state.head
    field.sync(b)

    assert len(former.outbox()) == 1
    assert b.outbox() == []


def test_a_server_that_never_lets_a_device_in_does_not_hold_it_for_ever(field: Field) -> None:
    a = field.device()
    note(a, "N-1")

    def gap(push: Push) -> None:
        raise MutationGap(expected=1)

    with pytest.raises(MutationGap):
        field.sync(a, Between(field.server(), gap))
    assert len(a.outbox()) == 1


# -- poison -------------------------------------------------------------------------------------------------------


def refusing(text: str, error: type[Exception]) -> Callable[[Push], None]:
    def check(push: Push) -> None:
        if any(mutation.patch.get("text") == text for mutation in push.mutations):
            raise error

    return check


@pytest.mark.parametrize("error", [Malformed, TooLarge])
def test_one_mutation_that_cannot_be_sent_does_not_block_the_others(field: Field, error: type[Exception]) -> None:
    a = field.device()
    for n in range(10):
        note(a, f"N-{n}", "poison" if n == 6 else "fine")
    report = field.sync(a, Between(field.server(), refusing("poison", error)))
    [trouble] = a.troubles()

    assert {key.id for key in field.hub.state.records if key.entity == "note"} == {
        f"N-{n}" for n in range(10) if n != 6
    }
    assert [entry.n for entry in report.voided] == [7]
    assert trouble.voided is not None
    assert trouble.voided["patch"]["text"] == "poison"


def test_a_group_with_a_poisoned_member_is_given_up_whole(field: Field) -> None:
    a = field.device()
    parent = {"entity": "work_order", "id": "WO-1"}
    drafts = [Draft("create", Key("note", f"G-{t}"), {"parent": parent, "text": t}) for t in ("fine", "poison")]
    a.capture(drafts, AT, group="g1")
    note(a, "N-after")
    report = field.sync(a, Between(field.server(), refusing("poison", Malformed)))

    assert [entry.n for entry in report.voided] == [1, 2]
    assert {key.id for key in field.hub.state.records if key.entity == "note"} == {"N-after"}


def test_a_proxy_that_refuses_everything_voids_nothing(field: Field) -> None:
    a = field.device()
    note(a, "N-1")

    def refuse(push: Push) -> None:
        raise Malformed

    with pytest.raises(Malformed):
        field.sync(a, Between(field.server(), refuse))
    assert [entry.voided for entry in a.outbox()] == [None]


def test_a_server_that_refuses_even_the_filler_is_told_of_to_the_caller(field: Field) -> None:
    a = field.device()
    note(a, "N-1")

    def refuse(push: Push) -> None:
        if push.mutations:
            raise Malformed

    with pytest.raises(Malformed):
        field.sync(a, Between(field.server(), refuse))
    assert [entry.voided is not None for entry in a.outbox()] == [True]


# -- scopes and repairs -------------------------------------------------------------------------------------------


def test_a_job_that_was_given_away_stays_until_work_on_it_was_sent(field: Field) -> None:
    a = field.device()
    field.change(WO, assignee_id="T-2")
    edit(a, resolution="was there already")
    pulled = a.shown(WO)
    field.sync(a)

    assert pulled is not None
    assert a.shown(WO) is None
    assert a.shown_all("work_order") == {}


def test_a_damaged_scope_is_noticed_and_fetched_again(field: Field) -> None:
    a = field.device()
    del a._records[WO]
    report = field.sync(a)

    assert report.repaired == ["tech:T-1"]
    assert a.shown(WO) == field.values(WO)
    assert field.sync(a).repaired == []


# -- servers that break their word --------------------------------------------------------------------------------


class Scripted:
    """Answers from a list."""

    def __init__(self, *answers: Any) -> None:
        self._answers: Iterator[Any] = iter(answers)

    def push(self, push: Push) -> PushResult:
        answer: PushResult = next(self._answers)
        return answer

    def pull(self, request: PullRequest) -> Page:
        answer: Page = next(self._answers)
        return answer


def test_an_answer_that_names_other_mutations_is_not_believed() -> None:
    replica = MemoryReplica("r_1")
    note(replica, "N-1")

    with pytest.raises(InvariantBroken):
        sync_once(replica, Scripted(PushResult([Result(2, "applied")], 2, 1)))
    assert [entry.acknowledged for entry in replica.outbox()] == [False]


def test_a_fork_that_does_not_say_where_changes_nothing() -> None:
    replica = MemoryReplica("r_1")
    note(replica, "N-1")
    server = Between(Scripted(), push=lambda push: fail(ReplicaForked()))

    with pytest.raises(ReplicaForked):
        sync_once(replica, server)
    assert replica.names() == {"r_1"}


def test_a_fork_after_everything_that_was_sent_changes_nothing() -> None:
    replica = MemoryReplica("r_1")
    note(replica, "N-1")
    server = Between(Scripted(), push=lambda push: fail(ReplicaForked(forked_at=2)))

    with pytest.raises(ReplicaForked):
        sync_once(replica, server)
    assert replica.names() == {"r_1"}


def test_a_page_older_than_an_answer_is_not_compared() -> None:
    """A follower of the database lags behind: its tallies say nothing about records from the answer."""
    replica = MemoryReplica("r_1")
    replica.stage(Page([], "c", False, 1, [ScopeTally("tech:T-1", 0, "0" * 16)]))
    note(replica, "N-1")
    record = {"entity": "note", "id": "N-1", "version": 1, "clock": {"hub": 1}, "data": {"text": "merged"}}
    answer = PushResult([Result(1, "merged", record=record)], 1, committed_seq=9)
    page = Page([], "d", False, 8, [ScopeTally("tech:T-1", 7, "f" * 16)], last_n=1)
    report = sync_once(replica, Scripted(answer, page))

    assert report.repaired == []
    assert replica.shown(NOTE) == {"text": "merged"}


def test_a_device_that_is_sent_back_to_the_start_for_ever_gives_up(field: Field) -> None:
    a = field.device()
    server = Between(field.server(), push=lambda push: fail(EpochChanged()))
    note(a, "N-1")

    with pytest.raises(InvariantBroken):
        field.sync(a, server)


def fail(error: Exception) -> None:
    raise error


def test_a_feed_that_does_not_move_on_is_left() -> None:
    page = Page([], "c", True, 1)

    with pytest.raises(InvariantBroken):
        sync_once(MemoryReplica("r_1"), Scripted(page, page))
