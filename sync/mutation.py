"""A mutation: one thing that somebody did on a device, fixed when it was captured, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from sync.canonical import digest
from sync.clock import Clock, Origin
from sync.record import Key

Status = Literal["applied", "merged", "parked", "rejected"]
STATUSES: tuple[Status, ...] = get_args(Status)
Kept = Literal["incoming", "current", "combined", "waiting"]

MAX_PUSH = 500  # mutations; about 170 kB of JSON, and a group has to fit into one push


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a mutation did not go through as sent. code: stable; detail: for the person who reads it."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one field that somebody else had written too. why: in words, with the times that mattered."""

    field: str
    policy: str
    kept: Kept
    why: str


@dataclass(frozen=True, slots=True)
class Mutation:
    """One mutation, parsed.

    n: its number in its replica, 1, 2, 3 … base: the clock of the record as the device saw it. was: each patched
    field as the device showed it just before. seen: the feed position the person could have known. occurred_at: ms,
    unclamped, by the device's clock. origin: its first name, if it was renumbered. body: the object as it was sent,
    for hash and ledger. fault: what makes it unreadable, None if it can be read.
    """

    n: int
    entity: str
    id: str
    op: Literal["create", "update", "delete", "void"]
    patch: Mapping[str, Any] = field(default_factory=dict)
    base: Clock = field(default_factory=dict)
    was: Mapping[str, Any] | None = None
    seen: int | None = None
    occurred_at: int | None = None
    group: str | None = None
    group_size: int | None = None
    origin: Origin | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    fault: Problem | None = None

    @property
    def key(self) -> Key:
        return Key(self.entity, self.id)

    @property
    def is_grouped(self) -> bool:
        """Does it go together with others?"""
        return self.group is not None and self.group_size != 1

    def named(self, replica: str) -> Origin:
        """The first name of this mutation when `replica` sends it."""
        return self.origin or Origin(replica, self.n)


def payload_hash(body: Mapping[str, Any]) -> bytes:
    """What identifies a mutation's content, whatever number it has by now: 32 bytes."""
    return digest({name: value for name, value in body.items() if name not in ("n", "origin")})


def content_hash(body: Mapping[str, Any]) -> bytes:
    """What identifies a mutation together with its first name, whoever brings it: 32 bytes.

    Without `base`, in which a replica that had to be renamed names its own earlier work anew.
    """
    return digest({name: value for name, value in body.items() if name not in ("n", "origin", "base")})


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to one mutation. record: as a wire document, after this mutation; see `sync.wire`."""

    n: int
    status: Status
    duplicate: bool = False
    version: int | None = None
    clock: Clock | None = None
    decisions: tuple[Decision, ...] = ()
    review_id: str | None = None
    problem: Problem | None = None
    record: Mapping[str, Any] | None = None

    def stored(self) -> Result:
        """The same answer as the ledger keeps it."""
        return replace(self, record=None, duplicate=False)
