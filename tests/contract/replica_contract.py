"""What every place for a device's records and work must do. A new one costs a fixture."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from sync.clock import Origin
from sync.errors import CaptureRefused
from sync.feed import checksum_text, row_hash
from sync.mutation import Problem, Result
from sync.protocol import Change, Page, ScopeTally
from sync.record import Key
from sync.replica import Draft, Replica

WO = Key("work_order", "WO-1")
NOTE = Key("note", "N-1")
MINE, DEPOT = "tech:T-1", "stock:D-1"
AT = "2026-11-20T10:11:12.123+01:00"


def put(key: Key, version: int, seq: int = 0, scope: str = MINE, clock: Any = None, **data: Any) -> Change:
    return Change(seq or version, "put", scope, key.entity, key.id, version, clock or {"hub": version}, data)


def gone(op: Literal["delete", "evict"], key: Key, seq: int, scope: str = MINE, version: int | None = None) -> Change:
    return Change(seq, op, scope, key.entity, key.id, version, {"hub": version} if version else None)


def page(*changes: Change, as_of: int = 0, more: bool = False, last_n: int = 0, scopes: Any = (MINE, DEPOT)) -> Page:
    as_of = as_of or max((change.seq for change in changes), default=0)
    tallies = [] if more else [ScopeTally(scope, 0, "0" * 16) for scope in scopes]
    return Page(list(changes), f"cursor-{as_of}", more, as_of, tallies, last_n=last_n)


def update(key: Key = WO, **patch: Any) -> Draft:
    return Draft("update", key, patch)


def create(key: Key, **patch: Any) -> Draft:
    return Draft("create", key, patch)


def answered(n: int, status: Any = "applied", version: int | None = None, **data: Any) -> Result:
    """A result; with values, also the record."""
    record = {"entity": WO.entity, "id": WO.id, "version": version, "clock": {"hub": version}, "data": data}
    return Result(n, status, version=version, record=record if data else None)


class ReplicaContract:
    @pytest.fixture
    def replica(self) -> Replica:
        raise NotImplementedError

    # -- showing --------------------------------------------------------------------------------------------------

    def test_pages_are_shown_all_at_once_with_the_last_one(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 1, title="a"), more=True))
        before = replica.shown(WO)
        changed = replica.stage(page(put(NOTE, 2, text="b")))

        assert before is None
        assert changed == {WO, NOTE}
        assert replica.shown(WO) == {"title": "a"}
        assert replica.shown_all("note") == {"N-1": {"text": "b"}}
        assert replica.position.as_of == 2

    def test_the_cursor_moves_with_every_page(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 1), more=True))

        assert replica.position.cursor == "cursor-1"
        assert replica.position.as_of == 0

    def test_an_older_version_is_not_taken(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 5, title="new")))
        replica.stage(page(put(WO, 4, seq=6, title="old")))

        assert replica.shown(WO) == {"title": "new"}

    def test_a_deleted_record_is_gone(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 1, title="a")))
        changed = replica.stage(page(gone("delete", WO, 2, version=2)))

        assert changed == {WO}
        assert replica.shown(WO) is None
        assert replica.shown_all("work_order") == {}

    def test_a_record_leaves_with_its_last_scope(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 1), put(WO, 1, seq=2, scope=DEPOT)))
        replica.stage(page(gone("evict", WO, 3)))
        after_one = replica.held(WO)
        replica.stage(page(gone("evict", WO, 4, scope=DEPOT)))

        assert after_one is not None
        assert replica.held(WO) is None

    def test_a_scope_that_is_not_named_any_more_ends(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 1), put(NOTE, 2, scope=DEPOT)))
        replica.stage(page(as_of=3, scopes=(MINE,)))

        assert replica.held(WO) is not None
        assert replica.held(NOTE) is None

    def test_a_record_stays_while_unsent_work_is_about_it(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 1, title="a")))
        [entry] = replica.capture([create(NOTE, parent={"entity": "work_order", "id": "WO-1"}, text="hi")], AT)
        replica.stage(page(gone("evict", WO, 2)))
        meanwhile = replica.shown(WO)
        replica.settle([(entry, Result(1, "applied"))], 3)
        replica.stage(page(as_of=3, last_n=1))

        assert meanwhile == {"title": "a"}
        assert replica.shown(WO) is None

    def test_the_tally_counts_live_records_of_a_scope(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 17), put(Key("part", "P-100"), 3, seq=18), put(NOTE, 1, seq=19, scope=DEPOT)))
        count, total = replica.tally(MINE)

        assert (count, checksum_text(total)) == (2, "4abbe4ee32d11f24")
        assert replica.tally("catalog:all") == (0, 0)

    def test_deleted_records_are_not_counted(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 17), put(NOTE, 3, seq=18)))
        replica.stage(page(gone("delete", NOTE, 19, version=4)))

        assert replica.tally(MINE) == (1, row_hash("work_order", "WO-1", 17))

    # -- starting afresh ------------------------------------------------------------------------------------------

    def test_a_restart_replaces_what_is_held_whatever_the_versions(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 9, title="lost timeline"), put(NOTE, 10, text="lost too")))
        replica.restart()
        started = replica.position
        replica.stage(page(put(WO, 3, title="restored")))

        assert (started.cursor, started.fresh) == (None, True)
        assert replica.shown(WO) == {"title": "restored"}
        assert replica.shown(NOTE) is None
        assert not replica.position.fresh

    def test_until_the_new_state_is_complete_the_old_one_is_shown(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 9, title="old")))
        replica.restart()
        replica.stage(page(put(WO, 3, title="new"), more=True))

        assert replica.shown(WO) == {"title": "old"}

    def test_after_a_restart_acknowledged_work_is_sent_again(self, replica: Replica) -> None:
        [entry] = replica.capture([create(NOTE, text="a", parent={"entity": "work_order", "id": "WO-1"})], AT)
        replica.settle([(entry, Result(1, "applied"))], 1)
        replica.restart()

        assert [e.acknowledged for e in replica.outbox()] == [False]

    def test_a_staged_pull_is_forgotten_by_a_restart(self, replica: Replica) -> None:
        replica.stage(page(put(NOTE, 1, text="half"), more=True))
        replica.restart()
        replica.stage(page(put(WO, 2, title="a")))

        assert replica.shown(NOTE) is None

    def test_a_repair_replaces_one_scope(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 1, title="a"), put(NOTE, 2, text="stray"), put(Key("part", "P"), 3, scope=DEPOT)))
        part = Key("part", "P-2")
        replica.repair(MINE, [page(put(WO, 1, title="right")), page(put(part, 4, name="missed"))])

        assert replica.shown(WO) == {"title": "right"}
        assert replica.shown(NOTE) is None
        assert replica.shown(part) == {"name": "missed"}
        assert replica.tally(DEPOT)[0] == 1

    # -- own work -------------------------------------------------------------------------------------------------

    def test_what_is_captured_is_shown_and_numbered(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 7, title="a", status="assigned")))
        entries = [replica.capture([update(status=to)], AT)[0] for to in ("en_route", "in_progress")]

        assert [entry.n for entry in entries] == [1, 2]
        assert replica.shown(WO) == {"title": "a", "status": "in_progress"}
        assert replica.position.next_n == 3

    def test_a_mutation_names_what_its_author_had_seen(self, replica: Replica) -> None:
        name = replica.position.replica
        replica.stage(page(put(WO, 7, status="assigned", clock={"hub": 7, "r_other": 3})))
        replica.capture([update(status="en_route")], AT)
        [entry] = replica.capture([update(status="in_progress", resolution="x")], AT)

        assert entry.mutation.base == {"hub": 7, "r_other": 3, name: 1}
        assert entry.mutation.was == {"status": "en_route", "resolution": None}
        assert entry.mutation.seen == 7
        assert entry.mutation.body["occurred_at"] == AT

    def test_a_create_has_seen_nothing(self, replica: Replica) -> None:
        [entry] = replica.capture([create(NOTE, text="hi", parent={"entity": "work_order", "id": "WO-1"})], AT)

        assert entry.mutation.base == {}

    def test_what_can_never_be_accepted_is_not_saved(self, replica: Replica) -> None:
        with pytest.raises(CaptureRefused):
            replica.capture([update(resolution="fine"), update(status="no such state")], AT, group="g")

        assert replica.outbox() == []
        assert replica.position.next_n == 1

    def test_members_of_a_group_know_their_number(self, replica: Replica) -> None:
        entries = replica.capture([update(resolution="a"), update(resolution="b")], AT, group="g1")

        assert [(e.mutation.group, e.mutation.group_size) for e in entries] == [("g1", 2), ("g1", 2)]
        assert entries[1].mutation.was == {"resolution": None}

    def test_a_captured_mutation_never_changes(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 1, title="a")))
        [entry] = replica.capture([update(resolution="x")], AT)
        replica.stage(page(put(WO, 2, resolution="theirs")))

        assert [e.mutation for e in replica.outbox()] == [entry.mutation]
        assert replica.shown(WO) == {"resolution": "x"}

    def test_work_is_shown_until_the_server_state_contains_it(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 1, meter_reading="1", tags=[])))
        [entry] = replica.capture([update(tags={"$add": ["wet"]}, meter_reading="5")], AT)
        replica.settle([(entry, answered(1))], 9)
        acknowledged = replica.shown(WO)
        replica.stage(page(put(WO, 2, seq=10, meter_reading="8", tags=["wet"]), last_n=1))

        assert acknowledged == {"meter_reading": "5", "tags": ["wet"]}
        assert replica.shown(WO) == {"meter_reading": "8", "tags": ["wet"]}

    def test_a_record_from_an_answer_hides_work_on_that_record_only(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 1, title="a"), put(NOTE, 2, text="n")))
        first, second = replica.capture([update(resolution="mine"), update(NOTE, text="edited")], AT)
        changed = replica.settle([(first, answered(1, "merged", 5, title="a", resolution="theirs"))], 9)

        assert changed == {WO}
        assert replica.shown(WO) == {"title": "a", "resolution": "theirs"}
        assert replica.shown(NOTE) == {"text": "edited"}
        assert replica.position.push_seq == 9
        assert [e.n for e in replica.outbox() if not e.acknowledged] == [second.n]

    def test_later_work_stays_on_top_of_a_record_from_an_answer(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 1, title="a")))
        [first] = replica.capture([update(resolution="one")], AT)
        replica.capture([update(resolution="two")], AT)
        replica.settle([(first, answered(1, "merged", 5, resolution="theirs"))], 9)

        assert replica.shown(WO) == {"resolution": "two"}

    def test_an_answer_with_an_older_record_is_only_noted(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 7, title="new")))
        [entry] = replica.capture([update(resolution="x")], AT)
        changed = replica.settle([(entry, answered(1, "merged", 6, title="old"))], 9)

        assert changed == set()
        assert replica.shown(WO) == {"title": "new", "resolution": "x"}

    def test_a_record_from_an_answer_outlives_a_pull_that_is_older(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 1, title="a")))
        [entry] = replica.capture([update(resolution="x")], AT)
        replica.settle([(entry, answered(1, "merged", 5, resolution="both"))], 20)
        replica.stage(page(gone("evict", WO, 8)))

        assert replica.shown(WO) == {"resolution": "both"}

    def test_rejected_work_disappears_from_view_but_not_from_the_list(self, replica: Replica) -> None:
        replica.stage(page(put(WO, 1, title="a")))
        [entry] = replica.capture([update(resolution="x")], AT)
        problem = Problem("not_permitted", "no")
        replica.settle([(entry, Result(1, "rejected", problem=problem))], 2)
        changed = replica.stage(page(as_of=2, last_n=1))
        replica.forget(entry.replica, 1)
        [trouble] = replica.troubles()

        assert changed == {WO}
        assert replica.shown(WO) == {"title": "a"}
        assert replica.outbox() == []
        assert trouble.result is not None
        assert trouble.result.problem == problem
        assert trouble.mutation.patch == {"resolution": "x"}

    def test_a_trouble_can_be_dismissed(self, replica: Replica) -> None:
        entries = replica.capture([update(resolution="x"), update(resolution="y")], AT)
        replica.settle([(entry, Result(entry.n, "parked", review_id="c_1")) for entry in entries], 2)
        replica.dismiss(entries[0].name)
        kept = len(replica.outbox())
        replica.stage(page(as_of=2, last_n=2))
        replica.forget(entries[0].replica, 2)
        replica.dismiss(entries[1].name)

        assert kept == 2
        assert replica.troubles() == []

    def test_durable_work_is_forgotten_once_it_is_acknowledged_and_shown(self, replica: Replica) -> None:
        one, two = replica.capture([update(resolution="a"), update(resolution="b")], AT)
        replica.settle([(one, Result(1, "applied"))], 1)
        replica.forget(one.replica, 2)
        too_early = len(replica.outbox())
        replica.stage(page(as_of=1, last_n=1))
        replica.forget(one.replica, 2)

        assert too_early == 2
        assert [e.n for e in replica.outbox()] == [two.n]

    def test_what_is_unsent_begins_with_the_first_unacknowledged_of_each_name(self, replica: Replica) -> None:
        old = replica.position.replica
        entries = [replica.capture([update(resolution=str(n))], AT)[0] for n in range(4)]
        replica.settle([(entries[n], Result(n + 1, "applied")) for n in (0, 2)], 1)
        replica.rename(old, 4, "r_new", {})

        assert [(e.replica, e.n) for e in replica.unsent()] == [(old, 2), (old, 3), ("r_new", 1)]
        assert replica.names() == {old, "r_new"}

    def test_what_the_server_lost_is_opened_again(self, replica: Replica) -> None:
        entries = [replica.capture([update(resolution=str(n))], AT)[0] for n in range(4)]
        replica.settle([(entry, Result(entry.n, "applied")) for entry in entries], 1)
        replica.reopen(entries[0].replica, 3)

        assert [e.acknowledged for e in replica.outbox()] == [True, True, False, False]

    def test_a_voided_mutation_fills_its_number_and_keeps_its_body(self, replica: Replica) -> None:
        [entry] = replica.capture([update(resolution="x")], AT)
        replica.void(entry, Problem("malformed", "unreadable"))
        [void] = replica.outbox()

        assert (void.n, void.mutation.op, void.key) == (1, "void", WO)
        assert void.mutation.body["problem"] == {"code": "malformed", "detail": "unreadable"}
        assert void.voided == entry.mutation.body

    def test_after_a_fork_the_own_work_goes_on_under_a_new_name(self, replica: Replica) -> None:
        old = replica.position.replica
        replica.stage(page(put(WO, 7, title="a")))
        for n in range(1, 4):
            replica.capture([update(resolution=str(n))], AT)
        replica.rename(old, 2, "r_new", {})
        [later] = replica.capture([update(resolution="4")], AT)
        names = [(e.replica, e.n, e.mutation.origin) for e in replica.outbox()]
        bases = [dict(e.mutation.base) for e in replica.outbox()]

        assert names == [
            (old, 1, None), ("r_new", 1, Origin(old, 2)), ("r_new", 2, Origin(old, 3)), ("r_new", 3, None)
        ]  # fmt: skip
        assert bases == [
            {"hub": 7}, {"hub": 7, old: 1}, {"hub": 7, old: 1, "r_new": 1}, {"hub": 7, old: 1, "r_new": 2}
        ]  # fmt: skip
        assert all(e.mutation.body["base"] == e.mutation.base for e in replica.outbox())
        assert replica.shown(WO) == {"title": "a", "resolution": "4"}
        assert later.n == 3
