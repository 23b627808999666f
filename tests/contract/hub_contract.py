"""What every HubStore promises. A class that inherits this and gives a `store` fixture is held to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from sync.clock import HUB, Dot, Origin
from sync.entities import ENTITY_TYPES
from sync.feed import EVERYTHING, MODULUS, finish, row_hash
from sync.mutation import Decision, Mutation, Problem, Result, content_hash, payload_hash
from sync.record import FieldState, Key, Record, Write
from sync.scopes import scopes_of
from sync.store import (
    Actor,
    Batch,
    Case,
    FeedPosition,
    FeedSlice,
    HistoryEntry,
    HubStore,
    LedgerEntry,
    ReplicaState,
    Waiting,
)
from sync.view import View

OFFICE = Actor("user", "user:ann", "dispatcher", "fsm", ("*",))
DEVICE = Actor("device", "device:d1", "technician", "device", ("tech:T-1",), "T-1")
NOW = 1_800_000_000_000


def written(key: Key, version: int, data: Mapping[str, Any], **more: Any) -> Record:
    """A record whose fields were all written by mutation `version` of the replica r_1."""
    dot, origin = Dot(version, "r_1", version), Origin("r_1", version)
    fields = {name: FieldState(dot, (Write(value, dot, origin, NOW, "device"),)) for name, value in data.items()}
    return Record(key.entity, key.id, version, data, fields, updated_at=NOW, **more)


def work_order(id: str, version: int = 1, assignee: str | None = "T-1", **data: Any) -> Record:
    values = {"assignee_id": assignee, "title": f"Job {id}", **data}
    return written(Key("work_order", id), version, {name: value for name, value in values.items() if value is not None})


def task(id: str, order: str, version: int = 1) -> Record:
    return written(Key("task", id), version, {"work_order_id": order, "title": f"Task {id}"})


def note(id: str, parent: Key, version: int = 1) -> Record:
    return written(Key("note", id), version, {"parent": parent._asdict(), "text": "…"})


def history(record: Record, name: str, before: Any, after: Any) -> HistoryEntry:
    field = {
        "name": name,
        "before": before,
        "after": after,
        "sent": after,
        "policy": None,
        "kept": "incoming",
        "why": None,
    }
    return HistoryEntry(record.key, record.version, NOW - 5, {"kind": "device", "id": "device:d1"}, [field])


def put(
    store: HubStore,
    *records: Record,
    now: int = NOW,
    actor: Actor = OFFICE,
    past: Sequence[HistoryEntry] = (),
    **more: Any,
) -> int:
    """Store `records` as a unit of work would: loaded, placed in their scopes, announced. Returns the feed position."""
    with store.begin() as uow:
        lock = uow.reach({record.key for record in records}, {record.key for record in records})
        view = View(uow.load(lock, ()), locked=lock)
        batch = Batch(now, OFFICE, history=list(past), **more)
        for record in records:
            batch.before[record.key] = view.records.get(record.key)
            view.records[record.key] = record
        for record in records:
            scopes = scopes_of(ENTITY_TYPES[record.entity], record.id, record.data, lambda key: _values(view, key))
            batch.records[record.key] = view.records[record.key] = replace(record, scopes=scopes)
        finish(batch, view)
        seq = uow.save(batch)
        uow.commit()
    return seq


def _values(view: View, key: Key) -> Mapping[str, Any] | None:
    found = view.records.get(key)
    return found.data if found else None


def body(n: int, **more: Any) -> dict[str, Any]:
    return {"n": n, "entity": "work_order", "id": "WO-1", "op": "update", "patch": {"title": f"T{n}"}, **more}


def pushed(replica: str, first_n: int, last_n: int, **more: Any) -> dict[str, Any]:
    """The parts of a batch that book mutations first_n to last_n of `replica`."""
    bodies = [body(n, **more) for n in range(first_n, last_n + 1)]
    results = [Result(n, "applied", version=n, clock={HUB: n, replica: n}) for n in range(first_n, last_n + 1)]
    return {
        "replica": ReplicaState(replica, "T-1", last_n, NOW - 7),
        "ledger": [LedgerEntry(r.n, payload_hash(b), r) for r, b in zip(results, bodies, strict=True)],
        "bodies": bodies,
    }


def case(id: str, key: Key, **more: Any) -> Case:
    given: dict[str, Any] = {
        "type": "field_conflict", "scopes": ("tech:T-1",), "fields": ("title",), "base": {"title": None},
        "current": {"title": "now"}, "incoming": {"title": "sent"}, "evidence": {"why": {"title": "twice"}},
        "technician_id": "T-1", "opened_at": NOW, "impact": 40,
    }  # fmt: skip
    return Case(id=id, entity=key.entity, record_id=key.id, **{**given, **more})


def waits(case_id: str, replica: str, n: int, key: Key, op: str = "create", **more: Any) -> Waiting:
    mutation = Mutation(n, key.entity, key.id, op, {"title": "x"}, body={"n": n}, **more)  # type: ignore[arg-type]
    return Waiting(case_id, replica, mutation, NOW - 3, False, DEVICE)


def read(store: HubStore, *scopes: str, after: int = 0, limit: int = 100, replica: str | None = None) -> FeedSlice:
    return store.read_feed([FeedPosition(scope, after, 0) for scope in scopes], limit, replica)


def load(store: HubStore, *keys: Key) -> dict[Key, Record]:
    with store.begin() as uow:
        return dict(uow.load((), keys))


WO1, WO2, TASK, NOTE = Key("work_order", "WO-1"), Key("work_order", "WO-2"), Key("task", "K-1"), Key("note", "N-1")


class HubContract:
    """Inherit it, and give a fixture `store` with an empty HubStore."""

    # -- units of work --------------------------------------------------------------------------------------------

    def test_what_is_saved_and_committed_is_there_unchanged(self, store: HubStore) -> None:
        record = work_order("WO-1", 3, priority="high", tags=["b", "a"], meter_reading="12.50")
        put(store, record)

        assert load(store, WO1) == {WO1: replace(record, scopes=("tech:T-1",))}

    def test_leaving_without_commit_undoes_everything(self, store: HubStore) -> None:
        with store.begin() as uow:
            uow.lock_replica("r_1", "T-1")
            uow.save(Batch(NOW, OFFICE, records={WO1: work_order("WO-1")}, before={WO1: None}))

        assert load(store, WO1) == {}
        with store.begin() as uow:
            assert uow.lock_replica("r_1", "T-2").technician_id == "T-2"

    def test_an_error_in_the_unit_of_work_reaches_the_caller(self, store: HubStore) -> None:
        def fail() -> None:
            with store.begin() as uow:
                uow.load({WO1}, ())
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            fail()

    def test_records_that_do_not_exist_can_be_locked_and_are_absent(self, store: HubStore) -> None:
        with store.begin() as uow:
            assert uow.load({WO1, WO2}, {TASK}) == {}

    def test_deleted_records_keep_their_values(self, store: HubStore) -> None:
        gone = replace(work_order("WO-1", 2), deleted=Dot(2, "r_1", 2))
        put(store, work_order("WO-1"))
        put(store, gone)

        assert load(store, WO1)[WO1] == replace(gone, scopes=("tech:T-1",))

    def test_a_first_install_has_feed_epoch_0(self, store: HubStore) -> None:
        with store.begin() as uow:
            assert uow.epoch == 0

    # -- the ledger -----------------------------------------------------------------------------------------------

    def test_a_new_replica_has_processed_nothing(self, store: HubStore) -> None:
        with store.begin() as uow:
            assert uow.lock_replica("r_1", "T-1") == ReplicaState("r_1", "T-1")

    def test_a_replica_is_remembered_with_its_owner_and_progress(self, store: HubStore) -> None:
        put(store, **pushed("r_1", 1, 3))

        with store.begin() as uow:
            assert uow.lock_replica("r_1", "T-9") == ReplicaState("r_1", "T-1", 3, NOW - 7)

    def test_the_ledger_gives_exactly_the_mutations_asked_for(self, store: HubStore) -> None:
        put(store, **pushed("r_1", 1, 3))
        put(store, **pushed("r_1", 4, 6))
        put(store, **pushed("r_2", 1, 9))

        with store.begin() as uow:
            assert [entry.n for entry in uow.ledger("r_1", 3, 5)] == [3, 4, 5]
            assert [entry.n for entry in uow.ledger("r_1", 1, 99)] == [1, 2, 3, 4, 5, 6]
            assert uow.ledger("r_1", 7, 9) == []
            assert uow.ledger("r_3", 1, 9) == []

    def test_a_stored_result_comes_back_as_it_was(self, store: HubStore) -> None:
        decision = Decision("title", "merge3", "waiting", "changed in two places")
        parked = Result(1, "parked", False, 7, {HUB: 7}, (decision,), "c_1", Problem("unknown_part", "no such part"))
        booked = pushed("r_1", 1, 1)
        hash = booked["ledger"][0].hash
        put(store, **{**booked, "ledger": [LedgerEntry(1, hash, parked)]})

        with store.begin() as uow:
            assert uow.ledger("r_1", 1, 1) == [LedgerEntry(1, hash, parked)]

    def test_a_mutation_is_known_by_its_own_name_and_content(self, store: HubStore) -> None:
        put(store, **pushed("r_1", 1, 3))
        hashes = {n: content_hash(body(n)) for n in (1, 2, 3)}

        with store.begin() as uow:
            known = uow.renamed(
                [(Origin("r_1", 2), hashes[2]), (Origin("r_1", 3), hashes[1]), (Origin("r_9", 1), hashes[1])], "T-1"
            )
        assert {name: result.n for name, result in known.items()} == {(Origin("r_1", 2), hashes[2]): 2}

    def test_a_renumbered_mutation_is_known_by_its_first_name(self, store: HubStore) -> None:
        put(store, **pushed("r_2", 5, 5, origin={"replica": "r_1", "n": 9}))

        with store.begin() as uow:
            name = Origin("r_1", 9), content_hash(body(5))
            known = uow.renamed([name], "T-1")
        assert known[name].n == 5

    def test_a_mutation_is_known_to_its_technician_only(self, store: HubStore) -> None:
        put(store, **pushed("r_2", 5, 5, origin={"replica": "r_1", "n": 9}))

        with store.begin() as uow:
            by_first_name = [(Origin("r_1", 9), content_hash(body(5)))]
            by_own_name = [(Origin("r_2", 5), content_hash(body(5)))]
            assert uow.renamed(by_first_name, "T-2") == uow.renamed(by_own_name, "T-2") == {}

    def test_a_mutation_is_known_whatever_its_base_calls_the_work_before_it(self, store: HubStore) -> None:
        put(store, **pushed("r_1", 1, 2, base={HUB: 3, "r_1": 1}))
        put(store, **pushed("r_2", 1, 1, base={HUB: 3, "r_2": 7}, origin={"replica": "r_0", "n": 4}))
        own = Origin("r_1", 2), content_hash(body(2, base={HUB: 3, "r_9": 1}))
        renamed = Origin("r_0", 4), content_hash(body(1, base={HUB: 3, "r_0": 3}))

        with store.begin() as uow:
            known = uow.renamed([own, renamed], "T-1")
        assert {name: result.n for name, result in known.items()} == {own: 2, renamed: 1}

    # -- scopes through references --------------------------------------------------------------------------------

    def test_reach_goes_up_to_the_records_that_scopes_are_read_from(self, store: HubStore) -> None:
        put(store, work_order("WO-1"), task("K-1", "WO-1"), note("N-1", TASK))

        with store.begin() as uow:
            assert uow.reach({NOTE}, ()) == {NOTE, TASK, WO1}
            assert uow.reach({WO1}, ()) == {WO1}

    def test_reach_goes_down_two_references_where_a_path_changes(self, store: HubStore) -> None:
        put(store, work_order("WO-1"), work_order("WO-2"), task("K-1", "WO-1"), note("N-1", TASK), task("K-2", "WO-2"))

        with store.begin() as uow:
            assert uow.reach({WO1}, {WO1}) == {WO1, TASK, NOTE}

    def test_reach_brings_the_other_parents_of_what_moves(self, store: HubStore) -> None:
        rma = written(Key("rma", "R-1"), 1, {"work_order_id": "WO-1", "from_location_id": "L-1"})
        shelf = written(Key("location", "L-1"), 1, {"name": "Shelf", "kind": "bin", "assigned_to": "T-2"})
        put(store, work_order("WO-1"), shelf, rma)

        with store.begin() as uow:
            assert uow.reach({WO1}, {WO1}) == {WO1, rma.key, shelf.key}

    def test_reach_names_records_that_do_not_exist_yet(self, store: HubStore) -> None:
        put(store, task("K-1", "WO-1"))

        with store.begin() as uow:
            assert uow.reach({TASK, WO2}, ()) == {TASK, WO1, WO2}

    def test_a_moved_parent_takes_its_dependants_along(self, store: HubStore) -> None:
        put(store, work_order("WO-1"), task("K-1", "WO-1"), note("N-1", TASK))
        put(store, work_order("WO-1", 2, assignee="T-2"))

        assert {record.scopes for record in load(store, WO1, TASK, NOTE).values()} == {("tech:T-2",)}
        moved = {"WO-1", "K-1", "N-1"}
        assert {(row.op, row.id) for row in read(store, "tech:T-1").rows} == {("evict", id) for id in moved}
        assert {(row.op, row.id) for row in read(store, "tech:T-2").rows} == {("put", id) for id in moved}

    # -- the feed -------------------------------------------------------------------------------------------------

    def test_an_empty_feed(self, store: HubStore) -> None:
        assert read(store, "tech:T-1") == FeedSlice([], 0, 0, {"tech:T-1": (0, 0)}, 0, 0)

    def test_every_row_has_a_position_of_its_own_in_rising_order(self, store: HubStore) -> None:
        first = put(store, work_order("WO-1"), work_order("WO-2"))
        second = put(store, work_order("WO-3"))

        rows = read(store, "tech:T-1").rows
        assert [row.seq for row in rows] == sorted({row.seq for row in rows})
        assert (rows[-2].seq, rows[-1].seq, read(store).head) == (first, second, second)

    def test_a_put_carries_the_record(self, store: HubStore) -> None:
        put(store, work_order("WO-1", 3))

        (row,) = read(store, "tech:T-1").rows
        assert (row.op, row.scope, row.key, row.version) == ("put", "tech:T-1", WO1, 3)
        assert (row.clock, row.data) == ({HUB: 3, "r_1": 3}, {"assignee_id": "T-1", "title": "Job WO-1"})

    def test_a_deletion_carries_version_and_clock_only(self, store: HubStore) -> None:
        put(store, work_order("WO-1"))
        put(store, replace(work_order("WO-1", 2), deleted=Dot(2, "r_2", 8)))

        (row,) = read(store, "tech:T-1").rows
        assert (row.op, row.version, row.clock, row.data) == ("delete", 2, {HUB: 2, "r_1": 2, "r_2": 8}, None)

    def test_an_eviction_carries_nothing(self, store: HubStore) -> None:
        put(store, work_order("WO-1"))
        put(store, work_order("WO-1", 2, assignee=None))

        (row,) = read(store, "tech:T-1").rows
        assert (row.op, row.key, row.version, row.clock, row.data) == ("evict", WO1, None, None, None)

    def test_a_change_moves_the_record_to_the_end(self, store: HubStore) -> None:
        put(store, work_order("WO-1"), work_order("WO-2"))
        put(store, work_order("WO-1", 2))

        assert [row.id for row in read(store, "tech:T-1").rows] == ["WO-2", "WO-1"]

    def test_a_page_begins_after_the_position_and_ends_at_the_limit(self, store: HubStore) -> None:
        put(store, *(work_order(f"WO-{n}") for n in range(1, 6)))
        rows = read(store, "tech:T-1").rows

        assert read(store, "tech:T-1", after=rows[1].seq, limit=2).rows == rows[2:4]
        assert read(store, "tech:T-1", after=rows[4].seq).rows == []

    def test_pages_of_several_scopes_are_in_one_order(self, store: HubStore) -> None:
        put(store, work_order("WO-1"), work_order("WO-2", assignee="T-2"), work_order("WO-3"))

        assert [row.id for row in read(store, "tech:T-2", "tech:T-1", limit=2).rows] == ["WO-1", "WO-2"]

    def test_each_scope_has_its_own_position(self, store: HubStore) -> None:
        put(store, work_order("WO-1"), work_order("WO-2", assignee="T-2"))
        middle = put(store, work_order("WO-3"), work_order("WO-4", assignee="T-2"))

        positions = [FeedPosition("tech:T-1", middle, 0), FeedPosition("tech:T-2", 0, 0)]
        assert [row.id for row in store.read_feed(positions, 10, None).rows] == ["WO-2", "WO-4"]

    def test_a_reader_that_holds_nothing_is_spared_deletions_and_evictions(self, store: HubStore) -> None:
        put(store, work_order("WO-1"), work_order("WO-2"), work_order("WO-3"))
        put(store, replace(work_order("WO-1", 2), deleted=Dot(2)), work_order("WO-2", 2, assignee="T-2"))

        fresh = store.read_feed([FeedPosition("tech:T-1", 0, EVERYTHING)], 10, None)
        assert [row.id for row in fresh.rows] == ["WO-3"]

    def test_tallies_count_live_records_and_add_up_their_hashes(self, store: HubStore) -> None:
        put(store, work_order("WO-1"), work_order("WO-2"), work_order("WO-3", assignee="T-2"))
        put(store, work_order("WO-1", 17), replace(work_order("WO-2", 2), deleted=Dot(2)))
        put(store, work_order("WO-4"), work_order("WO-3", 2, assignee="T-1"))

        expected = sum(row_hash("work_order", id, version) for id, version in (("WO-1", 17), ("WO-4", 1), ("WO-3", 2)))
        tallies = read(store, "tech:T-1", "tech:T-2", "tech:none").tallies
        assert tallies == {"tech:T-1": (3, expected % MODULUS), "tech:T-2": (0, 0), "tech:none": (0, 0)}

    def test_the_last_n_of_the_asking_replica_is_in_the_snapshot(self, store: HubStore) -> None:
        put(store, work_order("WO-1"), **pushed("r_1", 1, 3))
        put(store, **pushed("r_2", 1, 8))

        assert read(store, "tech:T-1", replica="r_1").last_n == 3
        assert read(store, "tech:T-1", replica="r_2").last_n == 8
        assert read(store, "tech:T-1", replica="r_3").last_n == 0
        assert read(store, "tech:T-1").last_n == 0

    def test_nothing_is_durable_until_somebody_says_so(self, store: HubStore) -> None:
        put(store, work_order("WO-1"), **pushed("r_1", 1, 3))

        assert read(store, "tech:T-1", replica="r_1").durable_n == 0

    # -- who had it when ------------------------------------------------------------------------------------------

    def test_reach_in_the_past_follows_when_records_came_and_went(self, store: HubStore) -> None:
        put(store, work_order("WO-1"), now=NOW)
        put(store, work_order("WO-1", 2, assignee="T-2"), now=NOW + 100)
        put(store, work_order("WO-1", 3), now=NOW + 200)
        put(store, replace(work_order("WO-1", 4), deleted=Dot(4)), now=NOW + 300)
        moments = [NOW - 1, NOW, NOW + 50, NOW + 150, NOW + 200, NOW + 300, NOW + 301]

        with store.begin() as uow:
            within = uow.was_in_reach([(WO1, at) for at in moments], ("tech:T-1", "tech:T-3"))
        assert sorted(at for _, at in within) == [NOW, NOW + 50, NOW + 200, NOW + 300]

    def test_a_change_in_place_does_not_restart_a_membership(self, store: HubStore) -> None:
        put(store, work_order("WO-1"), now=NOW)
        put(store, work_order("WO-1", 2), now=NOW + 100)

        with store.begin() as uow:
            assert uow.was_in_reach([(WO1, NOW + 50)], ("tech:T-1",)) == {(WO1, NOW + 50)}

    # -- the past -------------------------------------------------------------------------------------------------

    def test_commit_times_of_positions_and_versions(self, store: HubStore) -> None:
        first, second = work_order("WO-1"), work_order("WO-1", 2)
        one = put(store, first, now=NOW, past=[history(first, "title", None, "a")])
        two = put(store, second, now=NOW + 100, past=[history(second, "title", "a", "b")])

        with store.begin() as uow:
            times = uow.times({one, two, two + 50, 1 << 70}, {(WO1, 1), (WO1, 2), (WO1, 3), (WO2, 1)})
            nothing = uow.times((), ())
        assert [times.of_seq(seq) for seq in (one, two, two + 50, 1 << 70)] == [NOW, NOW + 100, NOW + 100, NOW + 100]
        assert [times.of_version(WO1, version) for version in (1, 2, 3)] == [NOW, NOW + 100, 0]
        assert times.of_version(WO2, 1) == 0
        assert nothing.of_version(WO2, 1) == 0

    def test_what_a_field_showed_is_told_by_the_next_change_or_by_what_stands(self, store: HubStore) -> None:
        for version, (before, after) in enumerate([(None, "a"), ("a", "b"), ("b", "c")], 1):
            record = work_order("WO-1", version, title=after)
            put(store, record, past=[history(record, "title", before, after)])

        with store.begin() as uow:
            wanted = {(WO1, version, "title") for version in range(4)} | {(WO1, 1, "assignee_id"), (WO2, 1, "title")}
            shown = uow.shown(wanted)
        assert [shown[WO1, version, "title"] for version in range(4)] == [None, "a", "b", "c"]
        assert shown[WO1, 1, "assignee_id"] == "T-1"
        assert (WO2, 1, "title") not in shown

    # -- review ---------------------------------------------------------------------------------------------------

    def test_a_case_comes_back_as_it_was(self, store: HubStore) -> None:
        opened = case("c_1", WO1)
        put(store, cases=[opened])

        with store.begin() as uow:
            assert uow.case("c_1") == opened
            assert uow.case("c_2") is None

    def test_what_joins_a_case_adds_fields_and_newer_values(self, store: HubStore) -> None:
        put(store, cases=[case("c_1", WO1)])
        later = case("c_1", WO1, fields=("title", "resolution"), incoming={"title": "newer", "resolution": "done"})
        put(store, cases=[later])

        with store.begin() as uow:
            joined = uow.case("c_1")
        assert joined is not None
        assert (joined.fields, joined.version) == (("title", "resolution"), 2)
        assert joined.incoming == {"title": "newer", "resolution": "done"}
        assert joined.base == {"title": None}

    def test_cases_are_resolved_by_people_and_superseded_by_rules(self, store: HubStore) -> None:
        put(store, cases=[case("c_1", WO1), case("c_2", WO2), case("c_3", WO2)])
        put(store, resolved=[("c_1", {"option": "current", "by": "user:ann"})], superseded=["c_2", "c_unknown"])

        with store.begin() as uow:
            one, two, three = (uow.case(id) for id in ("c_1", "c_2", "c_3"))
        assert one
        assert (one.status, one.version, one.resolution) == ("resolved", 2, {"option": "current", "by": "user:ann"})
        assert two
        assert (two.status, two.resolution) == ("resolved", None)
        assert three
        assert three.status == "open"

    def test_a_waiting_mutation_comes_back_whole_and_in_order(self, store: HubStore) -> None:
        whole = waits(
            "c_1", "r_1", 10, TASK, "update", base={HUB: 4}, was={"title": None}, seen=8, occurred_at=NOW - 9,
            group="g", group_size=2, origin=Origin("r_0", 3), fault=Problem("code", "detail"),
        )  # fmt: skip
        kept = [waits("c_1", "r_1", 2, WO1), whole, waits("c_1", "r_2", 1, WO2)]
        put(store, cases=[case("c_1", WO1)], waiting=[kept[2], kept[1], kept[0]])
        put(store, cases=[case("c_2", WO1)], waiting=[waits("c_2", "r_3", 1, WO1)])

        with store.begin() as uow:
            assert uow.case_waiting("c_1") == kept
            assert uow.case_waiting("c_9") == []

    def test_what_was_applied_or_dropped_no_longer_waits(self, store: HubStore) -> None:
        put(store, cases=[case("c_1", WO1)], waiting=[waits("c_1", "r_1", n, WO1) for n in (1, 2, 3)])
        put(store, released=[("r_1", 1)], dropped=[("r_1", 3)])

        with store.begin() as uow:
            assert [waiting.mutation.n for waiting in uow.case_waiting("c_1")] == [2]

    def test_only_what_awaits_a_record_is_found_by_its_key(self, store: HubStore) -> None:
        put(
            store,
            cases=[case("c_1", TASK, type="awaiting_record"), case("c_2", NOTE)],
            waiting=[waits("c_1", "r_1", n, TASK, "update") for n in (10, 9)]
            + [waits("c_2", "r_2", 1, NOTE, "update")],
        )

        with store.begin() as uow:
            assert [waiting.mutation.n for waiting in uow.waiting({TASK, NOTE, WO1})] == [9, 10]
            assert uow.waiting({WO1}) == []

    def test_a_record_is_blocked_while_its_creation_waits(self, store: HubStore) -> None:
        put(
            store,
            cases=[case("c_1", TASK), case("c_2", TASK), case("c_3", NOTE)],
            waiting=[
                waits("c_2", "r_2", 1, TASK),
                waits("c_1", "r_1", 7, TASK),
                waits("c_3", "r_1", 8, NOTE, "update"),
            ],
        )

        with store.begin() as uow:
            assert uow.blocked({TASK, NOTE, WO1}, "T-1") == uow.blocked({TASK}, None) == {TASK: "c_1"}
            assert uow.blocked({TASK}, "T-2") == {}, "what another technician sent is nothing"
        put(store, task("K-1", "WO-1"))
        with store.begin() as uow:
            assert uow.blocked({TASK}, "T-1") == {}
