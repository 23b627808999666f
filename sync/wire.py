"""Messages to JSON documents and back: plain dicts on one side, the values of `sync.protocol` on the other.

With `sync.validate`, which reads mutations, the only place that knows the names of members on the wire. Bytes belong to
the shells. What a peer sent beyond what is known here is kept where it can matter (a mutation's body) and ignored
elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from sync.clock import HUB, Clock, Origin
from sync.errors import Malformed, TooLarge, Unprocessable
from sync.moments import format_moment, parse_moment
from sync.mutation import MAX_PUSH, STATUSES, Decision, Mutation, Problem, Result
from sync.protocol import (
    DEFAULT_PAGE,
    MAX_PAGE,
    MAX_WAIT_S,
    Change,
    Page,
    PullRequest,
    Push,
    PushResult,
    ScopeTally,
)
from sync.record import Record
from sync.validate import parse_mutation

Document = dict[str, Any]
"""A JSON object as a parser gives it."""

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)

# -- push ---------------------------------------------------------------------------------------------------------


def push_to_wire(push: Push) -> Document:
    """The document of a push."""
    document: Document = {"replica": push.replica, "schema": push.schema}
    if push.sent_at is not None:
        document["sent_at"] = format_moment(push.sent_at)
    document["mutations"] = [mutation_to_wire(mutation) for mutation in push.mutations]
    return document


def push_from_wire(document: Any) -> Push:
    """The push that a document holds. Raises Unprocessable or TooLarge, only if its envelope is unusable.

    What is wrong with a single mutation becomes its `fault`, so that one bad mutation never blocks the others.
    """
    if not isinstance(document, Mapping):
        raise _invalid("", "a push is a JSON object")
    replica, raw = document.get("replica"), document.get("mutations")
    if not isinstance(replica, str) or not _ID.fullmatch(replica) or replica == HUB:
        raise _invalid("replica", "1 to 64 of A-Z a-z 0-9 _ . : -, and not hub")
    if not isinstance(raw, list):
        raise _invalid("mutations", f"a list of at most {MAX_PUSH} mutations")
    if len(raw) > MAX_PUSH:
        raise TooLarge(f"A push holds at most {MAX_PUSH} mutations; this one has {len(raw)}.")
    for place, body in enumerate(raw):
        if not isinstance(body, dict) or not _is_count(body.get("n")) or body["n"] < 1:
            raise _invalid(f"mutations.{place}.n", "a whole number from 1")
    schema = document.get("schema", 1)
    return Push(
        replica=replica,
        mutations=[parse_mutation(body) for body in raw],
        sent_at=_moment_or_none(document.get("sent_at")),
        schema=schema if _is_count(schema) else 1,
    )


def mutation_to_wire(mutation: Mutation) -> Document:
    """A mutation as it is sent: its body, under its present number and with its first name."""
    document = {"n": mutation.n, **{name: value for name, value in mutation.body.items() if name != "n"}}
    if mutation.origin:
        document["origin"] = {"replica": mutation.origin.replica, "n": mutation.origin.n}
    return document


def as_sent(mutation: Mutation) -> Mutation:
    """A device's mutation with everything in its body that a server reads there, number and first name included."""
    return replace(mutation, body=mutation_to_wire(mutation))


def mutation_body(mutation: Mutation, occurred_at: str, schema: int) -> Document:
    """What a mutation says at the moment of its capture, without n and origin. occurred_at: RFC 3339, local offset."""
    body: Document = {
        "entity": mutation.entity,
        "id": mutation.id,
        "op": mutation.op,
        "patch": dict(mutation.patch),
        "was": dict(mutation.was or {}),
        "base": dict(mutation.base),
        "seen": mutation.seen or 0,
        "occurred_at": occurred_at,
        "schema": schema,
    }
    if mutation.group is not None:
        body |= {"group": mutation.group, "group_size": mutation.group_size}
    return body


def own_mutation(body: Mapping[str, Any], n: int, origin: Origin | None = None) -> Mutation:
    """A device's own mutation out of its outbox. Not checked again: it was when it was captured."""
    return Mutation(
        n=n,
        entity=body["entity"],
        id=body["id"],
        op=body["op"],
        patch=body.get("patch", {}),
        base=body.get("base", {}),
        was=body.get("was"),
        seen=body.get("seen"),
        occurred_at=_moment_or_none(body.get("occurred_at")),
        group=body.get("group"),
        group_size=body.get("group_size"),
        origin=origin,
        body=body,
    )


def void_body(mutation: Mutation, problem: Problem) -> Document:
    """What fills the number of a mutation that cannot be sent."""
    named = {name: value for name, value in (("entity", mutation.entity), ("id", mutation.id)) if value}
    return {**named, "op": "void", "problem": problem_to_wire(problem)}


def push_result_to_wire(result: PushResult) -> Document:
    """The answer to a push."""
    return {
        "results": [result_to_wire(one) for one in result.results],
        "last_n": result.last_n,
        "committed_seq": result.committed_seq,
    }


def push_result_from_wire(document: Any) -> PushResult:
    """The answer that a document holds. Raises Malformed if it is not one."""
    try:
        return PushResult(
            [result_from_wire(one) for one in document["results"]],
            int(document["last_n"]),
            int(document["committed_seq"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Malformed("The answer to a push has another shape than expected.") from error


def result_to_wire(result: Result) -> Document:
    """The answer to one mutation; members that are not there are left out."""
    document: Document = {"n": result.n, "status": result.status, "duplicate": result.duplicate}
    if result.version is not None:
        document["version"] = result.version
    if result.clock is not None:
        document["clock"] = dict(result.clock)
    document["decisions"] = [decision_to_wire(decision) for decision in result.decisions]
    if result.review_id is not None:
        document["review_id"] = result.review_id
    if result.problem is not None:
        document["problem"] = problem_to_wire(result.problem)
    if result.record is not None:
        document["record"] = dict(result.record)
    return document


def result_from_wire(document: Mapping[str, Any]) -> Result:
    """The answer to one mutation. Raises KeyError, TypeError, ValueError or AttributeError if it is not one."""
    problem, status = document.get("problem"), document["status"]
    if status not in STATUSES:
        # Taken for an answer, it would end a mutation that has none.
        raise ValueError(f"{status} is no outcome of a mutation")
    return Result(
        n=_expect(int, document["n"]),
        status=status,
        duplicate=bool(document.get("duplicate", False)),
        version=document.get("version"),
        clock=document.get("clock"),
        decisions=tuple(decision_from_wire(one) for one in document.get("decisions", ())),
        review_id=document.get("review_id"),
        problem=problem_from_wire(problem) if problem else None,
        record=document.get("record"),
    )


def decision_to_wire(decision: Decision) -> Document:
    """What became of one contested field."""
    return {"field": decision.field, "policy": decision.policy, "kept": decision.kept, "why": decision.why}


def decision_from_wire(document: Mapping[str, Any]) -> Decision:
    """What became of one contested field."""
    return Decision(document["field"], document["policy"], document["kept"], document.get("why", ""))


def problem_to_wire(problem: Problem) -> Document:
    """Why a mutation did not go through."""
    return {"code": problem.code, "detail": problem.detail}


def problem_from_wire(document: Mapping[str, Any]) -> Problem:
    """Why a mutation did not go through."""
    return Problem(document["code"], document.get("detail", ""))


# -- records ------------------------------------------------------------------------------------------------------


def record_to_wire(record: Record) -> Document:
    """A record at one version; a deleted one with `deleted`."""
    document: Document = {
        "entity": record.entity,
        "id": record.id,
        "version": record.version,
        "clock": record.clock,
        "data": dict(record.data),
        "updated_at": format_moment(record.updated_at),
    }
    if record.deleted is not None:
        document["deleted"] = True
    return document


def record_from_wire(document: Mapping[str, Any], committed_seq: int) -> Change:
    """A record out of an answer to a push, as the change to it that the push made. It names no scope."""
    deleted = bool(document.get("deleted"))
    return Change(
        committed_seq,
        "delete" if deleted else "put",
        "",
        document["entity"],
        document["id"],
        document["version"],
        document.get("clock") or {},
        None if deleted else document["data"],
    )


# -- pull ---------------------------------------------------------------------------------------------------------


def pull_from_query(query: Mapping[str, str]) -> PullRequest:
    """What the query of a pull asks for. Raises Unprocessable for a limit or wait outside its bounds."""
    replica = query.get("replica")
    if replica is not None and not _ID.fullmatch(replica):
        raise _invalid("replica", "1 to 64 of A-Z a-z 0-9 _ . : -")
    return PullRequest(
        cursor=query.get("cursor") or None,
        limit=int(_number(query, "limit", DEFAULT_PAGE, 1, MAX_PAGE)),
        wait_s=_number(query, "wait", 0, 0, MAX_WAIT_S),
        replica=replica,
        scope=query.get("scope") or None,
    )


def pull_to_query(request: PullRequest) -> dict[str, str]:
    """The query of a pull."""
    query = {"limit": str(request.limit)}
    if request.cursor is not None:
        query["cursor"] = request.cursor
    if request.wait_s:
        query["wait"] = f"{request.wait_s:g}"
    if request.replica is not None:
        query["replica"] = request.replica
    if request.scope is not None:
        query["scope"] = request.scope
    return query


def page_to_wire(page: Page) -> Document:
    """A page of the feed."""
    return {
        "changes": [change_to_wire(change) for change in page.changes],
        "cursor": page.cursor,
        "more": page.more,
        "as_of": page.as_of,
        "scopes": [{"scope": t.scope, "count": t.count, "checksum": t.checksum} for t in page.scopes],
        "server_time": format_moment(page.server_time),
        "last_n": page.last_n,
        "durable_n": page.durable_n,
    }


def page_from_wire(document: Any) -> Page:
    """The page that a document holds. Raises Malformed if it is not one."""
    try:
        return Page(
            changes=[change_from_wire(change) for change in document["changes"]],
            cursor=_expect(str, document["cursor"]),
            more=_expect(bool, document["more"]),
            as_of=_expect(int, document["as_of"]),
            scopes=[_tally_from_wire(tally) for tally in document.get("scopes", ())],
            server_time=_moment_or_none(document.get("server_time")) or 0,
            last_n=_expect(int, document.get("last_n", 0)),
            durable_n=_expect(int, document.get("durable_n", 0)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Malformed("The answer to a pull has another shape than expected.") from error


def _tally_from_wire(document: Mapping[str, Any]) -> ScopeTally:
    int(document["checksum"], 16)
    return ScopeTally(_expect(str, document["scope"]), _expect(int, document["count"]), document["checksum"])


def change_to_wire(change: Change) -> Document:
    """One row of the feed."""
    document: Document = {
        "seq": change.seq, "op": change.op, "scope": change.scope, "entity": change.entity, "id": change.id,
    }  # fmt: skip
    if change.version is not None:
        document["version"] = change.version
    if change.clock is not None:
        document["clock"] = dict(change.clock)
    if change.data is not None:
        document["data"] = dict(change.data)
    return document


def change_from_wire(document: Mapping[str, Any]) -> Change:
    """One row of the feed. Raises KeyError or ValueError if the document is not one."""
    op = document["op"]
    if op not in ("put", "delete", "evict"):
        raise ValueError(f"unknown op {op}")
    change = Change(
        seq=document["seq"],
        op=op,
        scope=document["scope"],
        entity=document["entity"],
        id=document["id"],
        version=document.get("version"),
        clock=document.get("clock"),
        data=document.get("data"),
    )
    if op == "put" and (change.version is None or change.data is None):
        raise ValueError("a put has version and data")
    return change


# -- both at once -------------------------------------------------------------------------------------------------


def exchange_from_wire(document: Any) -> tuple[Push | None, PullRequest]:
    """The halves of `POST /v1/sync`. Raises Unprocessable."""
    if not isinstance(document, Mapping):
        raise _invalid("", "a JSON object with push, cursor and limit")
    push = push_from_wire(document["push"]) if document.get("push") is not None else None
    cursor, limit = document.get("cursor"), document.get("limit", DEFAULT_PAGE)
    if cursor is not None and not isinstance(cursor, str):
        raise _invalid("cursor", "a cursor from an earlier page, or null")
    if not _is_count(limit) or not 1 <= limit <= MAX_PAGE:
        raise _invalid("limit", f"a whole number from 1 to {MAX_PAGE}")
    replica = push.replica if push else document.get("replica")
    if replica is not None and (not isinstance(replica, str) or not _ID.fullmatch(replica)):
        raise _invalid("replica", "1 to 64 of A-Z a-z 0-9 _ . : -")
    return push, PullRequest(cursor=cursor, limit=limit, replica=replica)


# -- parts --------------------------------------------------------------------------------------------------------


def results_from_extras(results: Sequence[Any]) -> list[Result]:
    """The stored results that ReplicaForked carries: values in the same process, documents over a network.

    Raises Malformed if they are neither.
    """
    try:
        return [one if isinstance(one, Result) else result_from_wire(one) for one in results]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Malformed("The results beside a fork have another shape than expected.") from error


def rebased(mutation: Mutation, base: Clock) -> Mutation:
    """`mutation` with its base in other names."""
    return replace(mutation, base=base, body={**mutation.body, "base": dict(base)})


def _invalid(path: str, detail: str) -> Unprocessable:
    return Unprocessable(errors=[{"path": path, "detail": detail}])


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _expect(kind: type[Any], value: Any) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"expected {kind.__name__}")
    return value


def _moment_or_none(value: Any) -> int | None:
    """ms, None if it is no moment: a device's idea of the time is worth having, not worth refusing a day's work for."""
    try:
        return parse_moment(value)
    except (TypeError, ValueError):
        return None


def _number(query: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    text = query.get(name)
    if text is None or text == "":
        return default
    if re.fullmatch(r"\d{1,9}" if name == "limit" else r"\d{1,9}(\.\d{1,9})?", text, re.ASCII):
        value = cast(float, int(text) if "." not in text else float(text))
        if least <= value <= most:
            return value
    raise _invalid(name, f"a number from {least:g} to {most:g}")
