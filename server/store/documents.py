"""What is stored as a document: results, history, review cases and mutations that wait. Exact both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import zstandard

from server.store.text import dumps, loads
from sync.clock import Origin
from sync.mutation import Decision, Mutation, Problem, Result
from sync.record import Key
from sync.store import Actor, Case, HistoryEntry, Waiting

HASH_BYTES = 32


def _set_fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not None."""
    return {f.name: part for f in fields(value) if (part := getattr(value, f.name)) is not None}


# -- the content of a push ----------------------------------------------------------------------------------------


def pack(bodies: Sequence[Mapping[str, Any]], results: Sequence[Result], history: Sequence[HistoryEntry]) -> bytes:
    """The content of one push, compressed."""
    document = {
        "bodies": bodies,
        "results": [_result_document(result) for result in results],
        "history": [_history_document(entry) for entry in history],
    }
    return zstandard.ZstdCompressor(level=3).compress(dumps(document).encode())


def _unpack(content: bytes) -> dict[str, Any]:
    document: dict[str, Any] = loads(zstandard.ZstdDecompressor().decompress(content))
    return document


def results_in(content: bytes) -> list[Result]:
    """The results in the content of a push, in the order of their n."""
    return [_result(document) for document in _unpack(content)["results"]]


def bodies_in(content: bytes) -> list[dict[str, Any]]:
    """The mutations in the content of a push, as they were received."""
    bodies: list[dict[str, Any]] = _unpack(content)["bodies"]
    return bodies


def history_in(content: bytes) -> list[HistoryEntry]:
    """The history in the content of a push, in the order in which it happened."""
    return [_history(document) for document in _unpack(content)["history"]]


def _result_document(result: Result) -> dict[str, Any]:
    document = _set_fields(result)
    document["decisions"] = [_set_fields(decision) for decision in result.decisions]
    if result.problem:
        document["problem"] = _set_fields(result.problem)
    return document


def _result(document: dict[str, Any]) -> Result:
    problem = document.get("problem")
    decisions = tuple(Decision(**decision) for decision in document["decisions"])
    return Result(**{**document, "decisions": decisions, "problem": Problem(**problem) if problem else None})


def _history_document(entry: HistoryEntry) -> dict[str, Any]:
    return {**_set_fields(entry), "key": [entry.key.entity, entry.key.id]}


def _history(document: dict[str, Any]) -> HistoryEntry:
    return HistoryEntry(**{"occurred_at": None, **document, "key": Key(*document["key"])})


# -- review -------------------------------------------------------------------------------------------------------


def case_document(case: Case) -> dict[str, Any]:
    """The column `doc` of a case."""
    return {"base": case.base, "current": case.current, "incoming": case.incoming, "evidence": case.evidence}


def waiting_document(waiting: Waiting) -> dict[str, Any]:
    """The column `doc` of a mutation that waits."""
    mutation = _set_fields(waiting.mutation)
    if waiting.mutation.fault:
        mutation["fault"] = _set_fields(waiting.mutation.fault)
    return {"mutation": mutation, "at": waiting.at, "suspect": waiting.suspect, "actor": _set_fields(waiting.actor)}


def waiting_of(case_id: str, replica: str, document: dict[str, Any]) -> Waiting:
    """The mutation that `waiting_document` stored."""
    mutation = dict(document["mutation"])
    if "origin" in mutation:
        mutation["origin"] = Origin(*mutation["origin"])
    if "fault" in mutation:
        mutation["fault"] = Problem(**mutation["fault"])
    actor = Actor(**{**document["actor"], "scopes": tuple(document["actor"]["scopes"])})
    return Waiting(case_id, replica, Mutation(**mutation), document["at"], document["suspect"], actor)
