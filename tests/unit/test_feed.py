"""The change feed: however it is read, and whatever happens meanwhile, a reader ends with what lies in its scopes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.errors import CursorExpired, EpochChanged, InvalidCursor, NotFound
from sync.feed import MODULUS, Cursor, checksum_text, first_cursor, row_hash, tally
from sync.memory import MemoryHub
from sync.protocol import Change, Page
from sync.record import Key
from sync.store import Actor, FeedPosition, FeedSlice
from tests.support.hub import SECRET, Hub, device, mutation

ADA, BEN = device("T-1"), device("T-2")


@pytest.fixture
def hub() -> Hub:
    return Hub()


@dataclass
class Holder:
    """What a device keeps: the records of its scopes, as the pages told it."""

    actor: Actor
    cursor: str | None = None
    versions: dict[Key, int] = field(default_factory=dict)
    members: dict[str, set[Key]] = field(default_factory=dict)
    told: set[tuple[str, int]] = field(default_factory=set)

    def read(self, hub: Hub, limit: int) -> Page:
        page = hub.page(self.actor, self.cursor, limit)
        # A scope that was taken away and given back is told again; nothing else is.
        self.told = {(scope, seq) for scope, seq in self.told if scope in self.actor.scopes}
        assert self.told.isdisjoint((change.scope, change.seq) for change in page.changes)
        self.told |= {(change.scope, change.seq) for change in page.changes}
        self.take(page.changes)
        self.cursor = page.cursor
        if not page.more:
            held = {tally.scope for tally in page.scopes}
            self.members = {scope: keys for scope, keys in self.members.items() if scope in held}
        return page

    def read_all(self, hub: Hub, limit: int) -> Page:
        while (page := self.read(hub, limit)).more:
            pass
        return page

    def take(self, changes: Sequence[Change]) -> None:
        for change in changes:
            keys = self.members.setdefault(change.scope, set())
            if change.op == "put":
                assert change.version is not None
                keys.add(change.key)
                self.versions[change.key] = max(change.version, self.versions.get(change.key, 0))
            else:
                keys.discard(change.key)

    def scope(self, scope: str) -> dict[Key, int]:
        return {key: self.versions[key] for key in self.members.get(scope, ())}


def in_scope(hub: Hub, scope: str) -> dict[Key, int]:
    """What lies in a scope, from the records themselves."""
    records = hub.store.state.records.values()
    return {r.key: r.version for r in records if scope in r.scopes and r.deleted is None}


def assert_complete(holder: Holder, hub: Hub, page: Page) -> None:
    """The device holds exactly what lies in its scopes, and count and checksum say so."""
    assert {t.scope for t in page.scopes} == set(holder.actor.scopes)
    for told in page.scopes:
        held = holder.scope(told.scope)
        assert held == in_scope(hub, told.scope)
        assert told.count == len(held)
        assert told.checksum == checksum_text(sum(row_hash(*key, version) for key, version in held.items()))


# -- what happens in the office while somebody reads ---------------------------------------------------------------

ORDERS, TASKS = ["WO-1", "WO-2", "WO-3"], ["TK-1", "TK-2", "TK-3"]

happenings = st.one_of(
    st.tuples(st.just("reassign"), st.sampled_from(ORDERS), st.sampled_from(["T-1", "T-2", None])),
    st.tuples(st.just("edit"), st.sampled_from(TASKS), st.text("abc", min_size=1, max_size=2)),
    st.tuples(st.just("move"), st.sampled_from(TASKS), st.sampled_from(ORDERS)),
    st.tuples(st.just("delete"), st.sampled_from([*TASKS, *ORDERS]), st.none()),
    st.tuples(st.just("note"), st.sampled_from([*TASKS, *ORDERS]), st.text("abc", min_size=1, max_size=2)),
)


def happen(hub: Hub, what: tuple[str, str, Any]) -> None:
    verb, id, value = what
    entity = "work_order" if id in ORDERS else "task"
    record = hub.store.state.records.get(Key(entity, id))
    hub.now += 1
    if verb == "note":
        parent = {"entity": entity, "id": id}
        if record:
            hub.office("create", "note", f"N-{hub.now}", {"parent": parent, "text": value})
    elif verb == "delete":
        if record and not record.deleted:
            hub.office("delete", entity, id)
    elif record is None or record.deleted:
        if record is None:
            title = {"title": "x", "depot_id": "D-1", "assignee_id": "T-1"}
            hub.office(
                "create", entity, id, title if entity == "work_order" else {"title": "x", "work_order_id": "WO-1"}
            )
    elif verb == "reassign":
        hub.office("update", entity, id, {"assignee_id": value})
    elif verb == "edit":
        hub.office("update", entity, id, {"title": value})
    elif Key("work_order", value) in hub.store.state.records:
        hub.office("update", entity, id, {"work_order_id": value})


@settings(max_examples=40)
@given(st.lists(happenings, max_size=12), st.integers(1, 12))
def test_a_feed_read_in_pages_equals_the_feed_read_at_once(before: list[Any], limit: int) -> None:
    hub = Hub()
    for what in before:
        happen(hub, what)
    at_once, last = hub.pull(ADA)
    in_pages, last_page = hub.pull(ADA, limit=limit)

    assert in_pages == at_once
    assert [change.seq for change in at_once] == sorted({change.seq for change in at_once})
    assert (last_page.scopes, last_page.as_of) == (last.scopes, last.as_of)
    assert {change.op for change in at_once} == {"put"}, "who starts afresh is told of nothing that is gone"


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.lists(happenings, max_size=3)), max_size=8),
    st.integers(1, 4),
)
def test_whatever_happens_between_two_pages_the_reader_ends_complete(
    meanwhile: list[tuple[int, list[Any]]], limit: int
) -> None:
    hub, holder = Hub(), Holder(ADA)
    for size, happened in meanwhile:
        holder.read(hub, size)
        for what in happened:
            happen(hub, what)

    assert_complete(holder, hub, holder.read_all(hub, limit))


GRANTS = ["tech:T-1", "tech:T-2", "stock:D-1", "catalog:all", "depot:D-1", "tech:nobody"]


@settings(max_examples=80)
@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(GRANTS), min_size=1), st.integers(1, 3), st.lists(happenings, max_size=2)),
        max_size=8,
    ),
    st.integers(1, 4),
)
def test_scopes_granted_and_revoked_while_paging_leave_no_hole(meanwhile: list[Any], limit: int) -> None:
    hub, holder = Hub(), Holder(ADA)
    for scopes, size, happened in meanwhile:
        holder.actor = replace(ADA, scopes=tuple(sorted(scopes)))
        holder.read(hub, size)
        for what in happened:
            happen(hub, what)

    assert_complete(holder, hub, holder.read_all(hub, limit))


@settings(max_examples=40)
@given(st.lists(happenings, max_size=15))
def test_running_tallies_equal_a_recount(happened: list[Any]) -> None:
    hub = Hub()
    for what in happened:
        happen(hub, what)
    state = hub.store.state
    scopes = {scope for record in state.records.values() for scope in record.scopes} | state.tallies.keys()

    assert {scope: state.tallies.get(scope, (0, 0)) for scope in scopes} == {
        scope: tally(state.records, scope) for scope in scopes
    }


@settings(max_examples=40)
@given(st.lists(happenings, max_size=15))
def test_the_feed_has_one_row_for_each_record_in_each_scope(happened: list[Any]) -> None:
    hub = Hub()
    for what in happened:
        happen(hub, what)
    state = hub.store.state
    seqs = [change.seq for change in state.feed.values()]

    assert len(set(seqs)) == len(seqs)
    assert max(seqs) == state.head
    for record in state.records.values():
        assert {scope for scope, key in state.feed if key == record.key} >= set(record.scopes)


# -- stories -------------------------------------------------------------------------------------------------------


def rows(changes: Sequence[Change]) -> list[tuple[str, str, str]]:
    return [(change.op, change.scope, change.id) for change in changes]


def test_a_device_gets_its_work_its_depots_stock_and_the_catalogue(hub: Hub) -> None:
    changes, page = hub.pull(ADA)

    assert {(c.scope, c.id) for c in changes} == {
        ("tech:T-1", "T-1"),
        ("tech:T-1", "VAN-1"),
        ("tech:T-1", "WO-1"),
        ("tech:T-1", "TK-1"),
        ("tech:T-1", "N-1"),
        ("stock:D-1", "D-1"),
        ("catalog:all", "P-1"),
    }
    assert [(t.scope, t.count) for t in page.scopes] == [("tech:T-1", 5), ("stock:D-1", 1), ("catalog:all", 1)]


def test_a_change_comes_with_version_clock_and_values(hub: Hub) -> None:
    changes, _ = hub.pull(ADA)
    order = next(change for change in changes if change.id == "WO-1")
    record = hub.record("work_order", "WO-1")

    assert (order.version, order.clock, order.data) == (record.version, record.clock, record.data)


def test_a_reassigned_order_leaves_one_device_and_reaches_the_other_with_all_that_hangs_on_it(hub: Hub) -> None:
    _, ada = hub.pull(ADA)
    _, ben = hub.pull(BEN)
    hub.office("update", "work_order", "WO-1", {"assignee_id": "T-2"})
    left, _ = hub.pull(ADA, ada.cursor)
    came, _ = hub.pull(BEN, ben.cursor)

    assert sorted(rows(left)) == [("evict", "tech:T-1", id) for id in ("N-1", "TK-1", "WO-1")]
    assert all((c.version, c.clock, c.data) == (None, None, None) for c in left)
    assert sorted(rows(came)) == [("put", "tech:T-2", id) for id in ("N-1", "TK-1", "WO-1")]
    assert next(c.version for c in came if c.id == "TK-1") == 1, "its version stays: nobody wrote it"


def test_a_van_that_changes_hands_takes_its_stock_along(hub: Hub) -> None:
    hub.office("create", "toolkit_item", "TI-1", {"location_id": "VAN-1", "part_id": "P-1"})
    hub.office("create", "location", "BOX-1", {"name": "Box", "kind": "toolbox", "parent_id": "VAN-1"})
    hub.office("create", "toolkit_item", "TI-2", {"location_id": "BOX-1", "part_id": "P-1"})
    _, ben = hub.pull(BEN)
    hub.office("update", "location", "VAN-1", {"assigned_to": "T-2"})
    came, _ = hub.pull(BEN, ben.cursor)

    assert {c.id for c in came if c.scope == "tech:T-2"} == {"VAN-1", "BOX-1", "TI-1", "TI-2"}


def test_a_deletion_is_told_to_those_who_had_the_record(hub: Hub) -> None:
    _, ada = hub.pull(ADA)
    hub.office("delete", "task", "TK-1")
    changes, page = hub.pull(ADA, ada.cursor)
    afresh, _ = hub.pull(ADA)

    assert rows(changes) == [("delete", "tech:T-1", "TK-1")]
    assert changes[0].version == 2
    assert changes[0].data is None
    assert page.scopes[0].count == 4
    assert "TK-1" not in {change.id for change in afresh}


def test_nothing_new_is_an_empty_page(hub: Hub) -> None:
    _, ada = hub.pull(ADA)
    page = hub.page(ADA, ada.cursor)

    assert (page.changes, page.more, page.as_of) == ([], False, hub.store.state.head)


def test_a_replay_adds_nothing_to_the_feed(hub: Hub) -> None:
    sent = mutation(1, "update", "work_order", "WO-1", {"resolution": "Belt"}, hub.base("work_order", "WO-1"))
    first = hub.push(ADA, sent)
    feed = dict(hub.store.state.feed)
    again = hub.push(ADA, sent)

    assert again.committed_seq == first.committed_seq == hub.store.state.head
    assert hub.store.state.feed == feed


def test_a_scope_taken_away_and_given_back_between_two_pages_is_told_with_all_that_left_it(hub: Hub) -> None:
    """The device never saw a last page without the scope, so it still holds what lay in it before."""
    ada, elsewhere = (replace(ADA, scopes=(scope,)) for scope in ("tech:T-1", "tech:T-2"))
    holder = Holder(ada)
    holder.read_all(hub, 10)
    hub.office("update", "work_order", "WO-1", {"assignee_id": "T-2"})
    holder.actor = elsewhere
    for _ in hub.pull(elsewhere)[0]:
        assert holder.read(hub, 1).more
    holder.actor = ada

    assert_complete(holder, hub, holder.read_all(hub, 1))


def test_a_scope_can_be_read_again_by_itself(hub: Hub) -> None:
    _, main = hub.pull(ADA)
    changes, page = hub.pull(ADA, scope="stock:D-1", limit=1)
    hub.office("update", "location", "D-1", {"name": "Main depot"})
    hub.office("update", "task", "TK-1", {"title": "x"})
    more, _ = hub.pull(ADA, page.cursor)
    rest, _ = hub.pull(ADA, main.cursor)

    assert rows(changes) == rows(more) == [("put", "stock:D-1", "D-1")]
    assert [t.scope for t in page.scopes] == ["stock:D-1"]
    assert {change.id for change in rest} == {"D-1", "TK-1"}, "the main cursor stayed where it was"


def test_a_scope_that_is_not_held_does_not_exist(hub: Hub) -> None:
    with pytest.raises(NotFound):
        hub.page(ADA, scope="tech:T-2")


def test_a_page_says_which_of_the_replicas_work_it_contains(hub: Hub) -> None:
    hub.push(ADA, mutation(1, "update", "work_order", "WO-1", {"resolution": "Belt"}, {}))
    hub.store.state.durable_seq = hub.store.state.head
    hub.push(ADA, mutation(2, "update", "work_order", "WO-1", {"resolution": "Pump"}, {"r_T-1": 1}))
    page = hub.page(ADA, replica="r_T-1")

    assert (page.last_n, page.durable_n) == (2, 1)
    assert (hub.page(ADA).last_n, hub.page(ADA, replica="r_other").last_n) == (0, 0)


def test_work_that_waits_whole_is_not_in_a_backup_that_was_taken_before_it(hub: Hub) -> None:
    """It changes no record, so it has no row in the feed; its device must keep it all the same."""
    hub.store.state.durable_seq = hub.store.state.head
    wrong = {"work_order_id": "WO-1", "part_id": "P-9", "quantity": "1"}
    parked = hub.push(ADA, mutation(1, "create", "part_consumption", "C-1", wrong))
    page = hub.page(ADA, replica="r_T-1")

    assert parked.results[0].status == "parked"
    assert (page.last_n, page.durable_n) == (1, 0)
    assert parked.committed_seq == page.as_of == hub.store.state.durable_seq + 1


# -- cursors -------------------------------------------------------------------------------------------------------


cursors = st.builds(
    Cursor,
    epoch=st.integers(0, 9),
    reader=st.just("device:T-1"),
    main=st.integers(0, 99),
    scopes=st.lists(st.sampled_from(GRANTS), unique=True).map(tuple),
    filling=st.dictionaries(st.sampled_from(GRANTS), st.integers(0, 99)),
    only=st.none() | st.sampled_from(GRANTS),
    lost=st.lists(st.sampled_from(GRANTS), unique=True).map(tuple),
)


@given(cursors)
def test_a_sealed_cursor_reads_back(cursor: Cursor) -> None:
    assert Cursor.unseal(cursor.seal(SECRET), SECRET, "device:T-1") == cursor


@settings(max_examples=50)
@given(cursors, st.integers(0, 10_000), st.integers(1, 255))
def test_a_cursor_with_any_bit_changed_is_refused(cursor: Cursor, place: int, change: int) -> None:
    text = cursor.seal(SECRET)
    raw = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    raw[place % len(raw)] ^= change
    with pytest.raises(InvalidCursor):
        Cursor.unseal(base64.urlsafe_b64encode(raw).decode(), SECRET, "device:T-1")


@pytest.mark.parametrize("text", ["", "x", "AAAA", "ä", "=" * 5, "A" * 4_000])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidCursor):
        Cursor.unseal(text, SECRET, "device:T-1")


def test_a_cursor_of_another_device_or_server_is_refused(hub: Hub) -> None:
    _, page = hub.pull(ADA)
    with pytest.raises(InvalidCursor):
        hub.page(BEN, page.cursor)
    with pytest.raises(InvalidCursor):
        Cursor.unseal(page.cursor, b"another secret", ADA.name)


def test_a_restore_ends_all_cursors(hub: Hub) -> None:
    _, page = hub.pull(ADA)
    hub.store.restore(hub.store.backup(), epoch=1)
    with pytest.raises(EpochChanged):
        hub.page(ADA, page.cursor)

    changes, _ = hub.pull(ADA)
    assert len(changes) == 7


def test_who_slept_longer_than_deletions_are_kept_starts_afresh(hub: Hub) -> None:
    class Purged(MemoryHub):
        def read_feed(self, positions: Sequence[FeedPosition], limit: int, replica: str | None) -> FeedSlice:
            return replace(super().read_feed(positions, limit, replica), purged_seq=head + 1)

    _, page = hub.pull(ADA)
    head, state, hub.store = hub.store.state.head, hub.store.state, Purged()
    hub.store.state = state
    with pytest.raises(CursorExpired):
        hub.page(ADA, page.cursor)

    assert len(hub.pull(ADA)[0]) == 7


def test_a_first_cursor_fills_in_all_scopes_up_to_the_head() -> None:
    assert first_cursor(0, "x", 7).positions(["a", "b"]) == [FeedPosition("a", 0, 7), FeedPosition("b", 0, 7)]


# -- checksums -----------------------------------------------------------------------------------------------------


def test_checksums_are_those_of_the_protocol() -> None:
    order, part = row_hash("work_order", "WO-1", 17), row_hash("part", "P-100", 3)

    assert checksum_text(0) == "0000000000000000"
    assert checksum_text(order) == "d19af6add068b1c7"
    assert checksum_text(order + part) == "4abbe4ee32d11f24"
    assert checksum_text(order + part - order) == checksum_text(part)
    assert checksum_text(part + MODULUS) == checksum_text(part)


def test_an_empty_scope_has_an_empty_tally() -> None:
    page = Hub({}).page(ADA)

    assert [(t.count, t.checksum) for t in page.scopes] == [(0, "0" * 16)] * 3


def test_a_record_that_was_only_referred_to_stays_with_its_technician(hub: Hub) -> None:
    hub.office("create", "task", "TK-9", {"work_order_id": "WO-2", "title": "Theirs"})
    before = hub.record("task", "TK-9").scopes
    new_note = mutation(1, "create", "note", "N-8", {"parent": {"entity": "work_order", "id": "WO-1"}, "text": "Hello"})
    foreign = {"work_order_id": "WO-1", "task_id": "TK-9", "part_id": "P-1", "quantity": "1"}

    hub.push(ADA, new_note, mutation(2, "create", "part_consumption", "C-8", foreign))

    assert hub.record("task", "TK-9").scopes == before
