"""Own work over the server's state, bases, and new names after a fork."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from sync.clock import Origin
from sync.errors import CaptureRefused
from sync.mutation import Mutation, payload_hash
from sync.record import Key
from sync.replica import Draft, Entry, base_for, check_group, first_batch, is_indivisible, needed, overlay, renumber

WO = ("work_order", "WO-1")


def mutation(n: int = 1, op: Literal["create", "update", "delete", "void"] = "update", **patch: Any) -> Mutation:
    return Mutation(n, *WO, op=op, patch=patch, body={"entity": WO[0], "id": WO[1], "op": op, "patch": patch})


def entry(n: int, replica: str = "r_a", base: Any = None, group: str | None = None, **state: Any) -> Entry:
    body = {"entity": WO[0], "id": WO[1], "op": "update", "patch": {}, "base": base or {}}
    return Entry(replica, Mutation(n, *WO, op="update", base=base or {}, body=body, group=group), **state)


# -- overlay ------------------------------------------------------------------------------------------------------


def test_without_own_work_the_server_state_is_shown() -> None:
    assert overlay({"title": "a"}, []) == {"title": "a"}
    assert overlay(None, []) is None


def test_later_work_is_shown_over_earlier_work() -> None:
    assert overlay({"title": "a"}, [mutation(title="b"), mutation(2, title=None)]) == {"title": None}


def test_the_server_state_itself_is_not_touched() -> None:
    data = {"tags": ["a"]}
    overlay(data, [mutation(tags={"$add": ["b"]})])

    assert data == {"tags": ["a"]}


@pytest.mark.parametrize(
    ("current", "sent", "shown"),
    [
        ("2.500", {"$inc": "-0.1"}, "2.400"),
        (None, {"$inc": "3"}, "3"),
        ("99999999999999999.01", {"$inc": "0.01"}, "99999999999999999.02"),
        (["x"], {"$append": ["y", "y"]}, ["x", "y", "y"]),
        (None, {"$append": ["y"]}, ["y"]),
        (["b", "c"], {"$add": ["a"], "$remove": ["c"]}, ["a", "b"]),
        (["a"], {"$add": ["a"], "$remove": ["a"]}, ["a"]),
        ({"old": 1}, {"new": 2}, {"new": 2}),
    ],
)
def test_operators_work_on_what_is_shown(current: Any, sent: Any, shown: Any) -> None:
    assert overlay({"field": current}, [mutation(field=sent)]) == {"field": shown}


def test_a_deletion_hides_the_record_and_a_creation_shows_it_again() -> None:
    assert overlay({"title": "a"}, [mutation(op="delete")]) is None
    assert overlay({"title": "a"}, [mutation(op="delete"), mutation(2, title="b")]) is None
    again = overlay({"title": "a"}, [mutation(op="delete"), mutation(2, "create", title="c")])
    assert again is not None
    assert again["title"] == "c"


def test_a_created_record_shows_the_declared_defaults() -> None:
    created = overlay(None, [mutation(op="create", title="new")])

    assert created is not None
    assert created["title"] == "new"
    assert created["priority"] == "normal"


def test_a_voided_mutation_shows_nothing() -> None:
    assert overlay({"title": "a"}, [mutation(op="void")]) == {"title": "a"}


def test_work_on_an_unknown_record_shows_nothing() -> None:
    assert overlay(None, [mutation(title="b")]) is None


# -- bases --------------------------------------------------------------------------------------------------------


def test_a_base_covers_the_record_and_own_earlier_work_under_every_name() -> None:
    own = [Origin("r_a", 4), Origin("r_a", 7), Origin("r_old", 2)]

    assert base_for({"hub": 9, "r_b": 1}, own) == {"hub": 9, "r_b": 1, "r_a": 7, "r_old": 2}


# -- batches ------------------------------------------------------------------------------------------------------


def test_a_batch_begins_with_the_first_unacknowledged_mutation() -> None:
    outbox = [entry(1, acknowledged=True), entry(2), entry(3)]

    assert [e.n for e in first_batch(outbox)] == [2, 3]
    assert first_batch([entry(1, acknowledged=True)]) == []


def test_a_batch_is_of_one_replica() -> None:
    outbox = [entry(4, "r_old"), entry(1, "r_new"), entry(5, "r_old")]

    assert [(e.replica, e.n) for e in first_batch(outbox)] == [("r_old", 4), ("r_old", 5)]


def test_a_group_is_never_split() -> None:
    outbox = [entry(1), entry(2, group="g"), entry(3, group="g"), entry(4)]

    assert [e.n for e in first_batch(outbox, 2)] == [1]
    assert [e.n for e in first_batch(outbox[1:], 1)] == [2, 3]
    assert is_indivisible(first_batch(outbox[1:], 1))
    assert not is_indivisible(outbox)


def test_a_batch_ends_where_a_number_is_missing() -> None:
    assert [e.n for e in first_batch([entry(1), entry(3)])] == [1]


def test_a_group_larger_than_a_push_is_refused_at_once() -> None:
    with pytest.raises(CaptureRefused):
        check_group([Draft("delete", Key(*WO))] * 501)


# -- new names ----------------------------------------------------------------------------------------------------


def test_renumbering_keeps_content_and_first_names() -> None:
    before = [entry(3, acknowledged=True), entry(4, acknowledged=True), entry(5)]
    after = renumber(before, "r_a", 4, "r_b", {})

    assert [(e.replica, e.n, e.name, e.acknowledged) for e in after] == [
        ("r_a", 3, Origin("r_a", 3), True),
        ("r_b", 1, Origin("r_a", 4), False),
        ("r_b", 2, Origin("r_a", 5), False),
    ]
    assert [payload_hash(e.mutation.body) for e in after] == [payload_hash(e.mutation.body) for e in before]


def test_a_second_renumbering_keeps_the_first_name() -> None:
    once = renumber([entry(4)], "r_a", 4, "r_b", {})

    assert [e.name for e in renumber(once, "r_b", 1, "r_c", {})] == [Origin("r_a", 4)]


def test_what_the_other_copy_did_is_not_taken_for_own_work() -> None:
    """The record came back with the copy's r_a:9, and our own 4 and 5 are renamed: 5 had seen 4, and not itself."""
    after = renumber([entry(4), entry(5, base={"hub": 20, "r_a": 9})], "r_a", 4, "r_b", {})

    assert after[1].mutation.base == {"hub": 20, "r_a": 3, "r_b": 1}
    assert after[1].mutation.body["base"] == after[1].mutation.base


def test_a_fork_at_the_first_number_leaves_no_old_name_in_bases() -> None:
    after = renumber([entry(1), entry(2, base={"hub": 2, "r_a": 1})], "r_a", 1, "r_b", {})

    assert after[1].mutation.base == {"hub": 2, "r_b": 1}


def test_bases_of_acknowledged_work_stay_as_the_ledger_knows_them() -> None:
    kept = entry(7, "r_c", base={"hub": 1, "r_a": 5}, acknowledged=True)
    moved = entry(8, "r_c", base={"hub": 1, "r_a": 5})
    after = renumber([entry(5), kept, moved], "r_a", 5, "r_b", {})

    assert after[1] is kept
    assert after[2].mutation.base == {"hub": 1, "r_a": 4, "r_b": 1}
    assert after[2].replica == "r_c"


# -- eviction -----------------------------------------------------------------------------------------------------


def test_records_are_needed_by_unsent_work_on_them_and_on_what_refers_to_them() -> None:
    parent = {"entity": "work_order", "id": "WO-9"}
    note = Entry("r_a", Mutation(1, "note", "N-1", "update", {"text": "x"}))
    used = Entry(
        "r_a",
        Mutation(2, "part_consumption", "C-1", "create", {"work_order_id": "WO-2", "part_id": "P-1", "task_id": None}),
    )
    sent = Entry("r_a", Mutation(3, "work_order", "WO-3", "update"), acknowledged=True)
    shown = {Key("note", "N-1"): {"parent": parent}}

    keys = needed([note, used, sent], shown.get)

    assert keys == {
        Key("note", "N-1"), Key("work_order", "WO-9"),
        Key("part_consumption", "C-1"), Key("work_order", "WO-2"), Key("part", "P-1"),
    }  # fmt: skip
