"""Messages to JSON documents and back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sync.clock import Dot, Origin
from sync.errors import Malformed, TooLarge, Unprocessable
from sync.mutation import Decision, Mutation, Problem, Result
from sync.protocol import Change, Page, PullRequest, Push, PushResult, ScopeTally
from sync.record import Record
from sync.wire import (
    exchange_from_wire,
    mutation_body,
    own_mutation,
    page_from_wire,
    page_to_wire,
    pull_from_query,
    pull_to_query,
    push_from_wire,
    push_result_from_wire,
    push_result_to_wire,
    push_to_wire,
    record_from_wire,
    record_to_wire,
    result_from_wire,
    result_to_wire,
    results_from_extras,
    void_body,
)

AT = "2026-11-20T10:11:12.123+01:00"
BODY = {
    "entity": "work_order", "id": "WO-1", "op": "update", "patch": {"resolution": "x"}, "was": {"resolution": None},
    "base": {"hub": 12, "r_9f": 40}, "seen": 90100, "occurred_at": AT, "schema": 1, "group": "g7", "group_size": 1,
}  # fmt: skip


def over_the_wire(document: Any) -> Any:
    return json.loads(json.dumps(document))


def test_a_push_arrives_as_it_was_sent() -> None:
    sent = Push("r_9f", [own_mutation(BODY, 41)], sent_at=1_795_166_100_000)
    document = over_the_wire(push_to_wire(sent))
    [mutation] = push_from_wire(document).mutations

    assert document["sent_at"] == "2026-11-20T09:15:00.000Z"
    assert document["mutations"] == [{"n": 41, **BODY}]
    assert push_from_wire(document).sent_at == sent.sent_at
    assert (mutation.n, mutation.patch, mutation.base) == (41, BODY["patch"], BODY["base"])
    assert mutation.fault is None
    assert mutation.body == document["mutations"][0]


def test_a_renumbered_mutation_carries_its_first_name() -> None:
    document = push_to_wire(Push("r_2", [own_mutation(BODY, 1, Origin("r_9f", 41))]))
    [mutation] = push_from_wire(over_the_wire(document)).mutations

    assert (mutation.n, mutation.origin) == (1, Origin("r_9f", 41))


def test_the_body_of_a_capture_holds_all_that_the_sdk_always_sends() -> None:
    mutation = Mutation(
        41, "work_order", "WO-1", "update", BODY["patch"], BODY["base"], BODY["was"], 90100, None, "g7", 1
    )

    assert mutation_body(mutation, AT, 1) == BODY


def test_a_void_fills_a_number_and_says_why() -> None:
    problem = Problem("malformed", "unreadable")
    body = void_body(own_mutation(BODY, 3), problem)
    [void] = push_from_wire(push_to_wire(Push("r_1", [own_mutation(body, 3)]))).mutations

    assert (void.n, void.op, void.fault) == (3, "void", problem)


@pytest.mark.parametrize(
    "document",
    [
        None, [], {}, {"replica": "r_1"}, {"replica": "hub", "mutations": []}, {"replica": "", "mutations": []},
        {"replica": "a b", "mutations": []}, {"replica": "x" * 65, "mutations": []}, {"replica": 1, "mutations": []},
        {"replica": "r_1", "mutations": {}}, {"replica": "r_1", "mutations": [1]},
        {"replica": "r_1", "mutations": [{"n": "1"}]}, {"replica": "r_1", "mutations": [{"n": True}]},
        {"replica": "r_1", "mutations": [{"n": 0}]}, {"replica": "r_1", "mutations": [{"n": 1.0}]},
    ],
)  # fmt: skip
def test_only_an_unusable_envelope_is_refused_as_a_whole(document: Any) -> None:
    with pytest.raises(Unprocessable):
        push_from_wire(document)


def test_a_push_of_more_than_500_is_too_large() -> None:
    with pytest.raises(TooLarge, match="501"):
        push_from_wire({"replica": "r_1", "mutations": [{"n": n} for n in range(1, 502)]})


def test_a_push_of_nothing_is_a_push() -> None:
    push = push_from_wire({"replica": "r_1", "mutations": [], "sent_at": "yesterday", "schema": "x"})

    assert (push.mutations, push.sent_at, push.schema) == ([], None, 1)


def test_an_unreadable_mutation_does_not_cost_the_others() -> None:
    push = push_from_wire({"replica": "r_1", "mutations": [{"n": 1, "op": "explode"}, {"n": 2, **BODY}]})

    assert [mutation.fault is None for mutation in push.mutations] == [False, True]


def test_an_answer_arrives_as_it_was_given() -> None:
    record = {"entity": "work_order", "id": "WO-1", "version": 18, "clock": {"hub": 18}, "data": {"title": "a"}}
    given = PushResult(
        [
            Result(1, "applied", True, 18, {"hub": 18, "r_1": 1}, record=record),
            Result(2, "parked", decisions=(Decision("status", "review", "waiting", "why"),), review_id="c_1"),
            Result(3, "rejected", problem=Problem("unknown_part", "no such part")),
        ],
        last_n=3,
        committed_seq=90211,
    )

    assert push_result_from_wire(over_the_wire(push_result_to_wire(given))) == given


def test_absent_members_of_a_result_are_left_out() -> None:
    assert result_to_wire(Result(1, "applied")) == {"n": 1, "status": "applied", "duplicate": False, "decisions": []}


def test_results_of_a_fork_come_as_values_or_documents() -> None:
    result = Result(1, "applied")

    assert results_from_extras([result, result_to_wire(result)]) == [result, result]


def test_a_page_arrives_as_it_was_given() -> None:
    given = Page(
        changes=[
            Change(1, "put", "tech:T", "work_order", "WO-1", 18, {"hub": 18}, {"title": "a"}),
            Change(2, "delete", "tech:T", "rma", "RMA-3", 4, {"hub": 4}),
            Change(3, "evict", "tech:T", "work_order", "WO-7"),
        ],
        cursor="opaque",
        more=False,
        as_of=3,
        scopes=[ScopeTally("tech:T", 1, "d19af6add068b1c7")],
        server_time=1_795_166_100_000,
        last_n=41,
        durable_n=12,
    )

    assert page_from_wire(over_the_wire(page_to_wire(given))) == given


@pytest.mark.parametrize(
    "damage",
    [
        {"changes": None}, {"changes": [{"op": "put"}]}, {"cursor": None}, {"more": 0}, {"as_of": "1"}, {"as_of": True},
        {"changes": [{"seq": 1, "op": "explode", "scope": "s", "entity": "e", "id": "i"}]},
        {"changes": [{"seq": 1, "op": "put", "scope": "s", "entity": "e", "id": "i"}]},
    ],
)  # fmt: skip
def test_a_damaged_page_is_not_taken(damage: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        page_from_wire({**page_to_wire(Page([], "c", False, 1)), **damage})


@pytest.mark.parametrize("document", [None, [], {}, {"results": [{}], "last_n": 1, "committed_seq": 1}])
def test_a_damaged_answer_is_not_taken(document: Any) -> None:
    with pytest.raises(Malformed):
        push_result_from_wire(document)


def test_a_record_and_its_tombstone() -> None:
    record = Record("note", "N-1", 4, {"text": "a"}, updated_at=1_000)
    document = record_to_wire(record)
    tombstone = record_to_wire(Record("note", "N-1", 5, {"text": "a"}, deleted=Dot(5)))

    assert document == {
        "entity": "note", "id": "N-1", "version": 4, "clock": {"hub": 4}, "data": {"text": "a"},
        "updated_at": "1970-01-01T00:00:01.000Z",
    }  # fmt: skip
    assert record_from_wire(document, 7) == Change(7, "put", "", "note", "N-1", 4, {"hub": 4}, {"text": "a"})
    assert tombstone["deleted"] is True
    assert record_from_wire(tombstone, 8).op == "delete"
    assert record_from_wire(tombstone, 8).data is None


def test_a_pull_is_read_back_from_its_query() -> None:
    request = PullRequest("opaque", 50, 2.5, "r_1", "tech:T")

    assert pull_from_query(pull_to_query(request)) == request
    assert pull_from_query({}) == PullRequest()
    assert pull_to_query(PullRequest()) == {"limit": "1000"}


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"}, {"limit": "5001"}, {"limit": "1.5"}, {"limit": "x"}, {"limit": "-1"}, {"limit": "٣"},
        {"wait": "26"}, {"wait": "-1"}, {"wait": "nan"}, {"wait": "1e1"}, {"replica": "a b"},
    ],
)  # fmt: skip
def test_a_pull_outside_its_bounds_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(Unprocessable):
        pull_from_query(query)


def test_both_halves_of_an_exchange() -> None:
    push, pull = exchange_from_wire({"push": {"replica": "r_1", "mutations": []}, "cursor": "c", "limit": 7})

    assert push == Push("r_1", [])
    assert pull == PullRequest("c", 7, replica="r_1")
    assert exchange_from_wire({"push": None, "cursor": None}) == (None, PullRequest())


@pytest.mark.parametrize("document", [None, {"cursor": 1}, {"limit": 0}, {"limit": True}, {"replica": 1}, {"push": {}}])
def test_an_exchange_of_another_shape_is_refused(document: Any) -> None:
    with pytest.raises(Unprocessable):
        exchange_from_wire(document)


def test_a_result_without_a_status_is_none() -> None:
    with pytest.raises(KeyError):
        result_from_wire({"n": 1})
