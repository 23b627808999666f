"""What the hub did in the present timeline, written down beside it: every mutation with its answer.

A restore from a backup takes the journal back as well. What it says is checked as it is written, and used by the checks
at the end of a history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sync.canonical import canonical
from sync.clock import HUB, Clock, Dot
from sync.mutation import Mutation, Result, payload_hash
from sync.policy import SKEW_BOUND_MS
from sync.protocol import Push
from sync.record import Key
from tests.simulation.violation import demand

Name = tuple[str, int]
"""(replica, n)."""


def content_of(body: Mapping[str, Any]) -> str:
    """What stays the same of a mutation whatever it is called; its base follows its names."""
    return canonical({name: value for name, value in body.items() if name not in ("n", "origin", "base")})


@dataclass(frozen=True, slots=True)
class Entry:
    """A mutation that the hub processed, or an office write. merged: it became part of its record, though a field of it
    may wait. version: the record's, None if the sender was not told."""

    replica: str
    mutation: Mutation
    result: Result
    merged: bool
    version: int | None
    at: int

    @property
    def key(self) -> Key:
        return self.mutation.key

    @property
    def dot(self) -> Dot | None:
        """Its name in records, None if it is not known."""
        if self.version is None:
            return None
        return Dot(self.version) if self.replica == HUB else Dot(self.version, self.replica, self.mutation.n)


@dataclass(slots=True)
class Journal:
    """entries: what had an effect, in order. answers: the stored result of every name; hashes, contents: what it named.
    seqs: the feed position that contains it. requests: (device, technician, text) of every push that was answered.
    decided: (record, what the person had seen, fields) of every decision.
    told: the contents of all entries. issued: record versions of all timelines."""

    entries: list[Entry] = field(default_factory=list)
    answers: dict[Name, Result] = field(default_factory=dict)
    hashes: dict[Name, bytes] = field(default_factory=dict)
    contents: dict[Name, str] = field(default_factory=dict)
    seqs: dict[Name, int] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    decided: list[tuple[Key, Clock, frozenset[str]]] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    issued: set[tuple[Key, int]] = field(default_factory=set)

    def copy(self) -> Journal:
        return Journal(
            list(self.entries), dict(self.answers), dict(self.hashes), dict(self.contents), dict(self.seqs),
            list(self.requests), list(self.decided), set(self.told), self.issued,
        )  # fmt: skip

    def note_push(self, push: Push, results: Sequence[Result], seq: int, now: int) -> list[Entry]:
        """Write down an answered push; the entries that are new."""
        demand(len(results) == len(push.mutations), "I2 no lost mutation", "a push was answered in part")
        fresh = []
        for mutation, result in zip(push.mutations, results, strict=True):
            name = (push.replica, mutation.n)
            demand(result.n == mutation.n, "I2 no lost mutation", f"{name} was answered as {result.n}")
            if name in self.answers:
                self._check_replay(name, mutation, result)
                continue
            self.answers[name], self.hashes[name] = result.stored(), payload_hash(mutation.body)
            self.contents[name], self.seqs[name] = content_of(mutation.body), seq
            if result.duplicate:
                self._check_renamed(mutation, result)
                continue
            self.told.add(self.contents[name])
            whole = result.problem is not None
            fresh.append(Entry(push.replica, mutation, result, not whole, result.version, now))
        _check_groups(fresh)
        for entry in fresh:
            _check_clock(entry)
            self._check_version(entry)
        self.entries += fresh
        return fresh

    def _check_version(self, entry: Entry) -> None:
        """I16: no version is issued twice, whatever was restored."""
        if entry.version is None or not entry.merged or entry.mutation.op == "delete":
            return
        new = (entry.key, entry.version) not in self.issued
        demand(new, "I16 epoch", f"version {entry.version} of {entry.key} was issued a second time")
        self.issued.add((entry.key, entry.version))

    def _check_replay(self, name: Name, mutation: Mutation, result: Result) -> None:
        demand(
            self.hashes[name] == payload_hash(mutation.body), "I4 idempotent replay",
            f"{name} was accepted with another payload than before",
        )  # fmt: skip
        demand(result.stored() == self.answers[name], "I4 idempotent replay", f"{name} was answered differently")
        demand(result.duplicate, "I4 idempotent replay", f"{name} was processed a second time")

    def _check_renamed(self, mutation: Mutation, result: Result) -> None:
        said = self.knows(mutation)
        demand(said, "I2 no lost mutation", f"{mutation.named('')} was called a duplicate and never came before")
        first = self.answers.get(mutation.origin or ("", 0))
        if first is not None and self.hashes[mutation.origin or ("", 0)] == payload_hash(mutation.body):
            same = replace(first, n=0) == replace(result.stored(), n=0)
            demand(same, "I4 idempotent replay", f"{mutation.origin} was answered differently under another name")

    def knows(self, mutation: Mutation) -> bool:
        """Was this taken before, under whatever name?"""
        return content_of(mutation.body) in self.told

    def note_office(self, mutation: Mutation, version: int | None, now: int) -> None:
        """Write down an office write. mutation: its base names the version that the writer saw."""
        entry = Entry(HUB, mutation, Result(mutation.n, "applied"), True, version, now)
        if mutation.patch:
            self._check_version(entry)
        self.entries.append(entry)


def _check_groups(fresh: Sequence[Entry]) -> None:
    """I9: the members of a group go the same way."""
    groups: dict[str, set[str]] = {}
    for entry in fresh:
        if entry.mutation.group:
            way = "merged" if entry.merged else entry.result.status
            groups.setdefault(entry.mutation.group, set()).add(way)
    for group, ways in groups.items():
        demand(len(ways) == 1, "I9 atomic group", f"members of group {group} went several ways: {sorted(ways)}")


def _check_clock(entry: Entry) -> None:
    """I11: who comes from the future wins nothing by time."""
    occurred_at = entry.mutation.occurred_at or 0
    if occurred_at <= entry.at + SKEW_BOUND_MS:
        return
    for decision in entry.result.decisions:
        won = decision.policy == "last_writer" and decision.kept == "incoming"
        demand(
            not won, "I11 clock", f"{entry.replica}:{entry.mutation.n} won {decision.field} by a clock in the future"
        )
