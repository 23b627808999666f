"""The messages of the exchange, and the interface in which a device meets a server.

Everything here is a plain value; `sync.wire` turns it to and from JSON documents, and shells turn those into bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sync.clock import Clock
from sync.mutation import Mutation, Result
from sync.record import Key

MAX_PAGE = 5_000  # changes in one page of a pull
DEFAULT_PAGE = 1_000
MAX_WAIT_S = 25  # below the 30 s at which common proxies give up


@dataclass(frozen=True, slots=True)
class Push:
    """Mutations of one replica, in the order of their n. sent_at: ms by the device's clock when it sent them."""

    replica: str
    mutations: Sequence[Mutation]
    sent_at: int | None = None
    schema: int = 1


@dataclass(frozen=True, slots=True)
class PushResult:
    """One result per mutation, in order. committed_seq: the feed position that contains their effects."""

    results: Sequence[Result]
    last_n: int
    committed_seq: int


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the feed. evict: the record left `scope`; version, clock and data only as far as the op has them."""

    seq: int
    op: Literal["put", "delete", "evict"]
    scope: str
    entity: str
    id: str
    version: int | None = None
    clock: Clock | None = None
    data: Mapping[str, Any] | None = None

    @property
    def key(self) -> Key:
        return Key(self.entity, self.id)


@dataclass(frozen=True, slots=True)
class ScopeTally:
    """What a device should hold of one scope: live records, and the sum of their row hashes as 16 hex digits."""

    scope: str
    count: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of the feed. cursor: where to go on. as_of: the feed position of the snapshot it was read from.

    scopes: every scope the device holds, with its tally; given on the last page only (`more` is False).
    last_n: the highest n of the asking replica whose effects are in `as_of`. durable_n: the highest that survives the
    restore of any backup.
    """

    changes: Sequence[Change]
    cursor: str
    more: bool
    as_of: int
    scopes: Sequence[ScopeTally] = ()
    server_time: int = 0
    last_n: int = 0
    durable_n: int = 0


@dataclass(frozen=True, slots=True)
class PullRequest:
    """cursor: of the page before, None to start afresh. wait_s: how long to wait for news. scope: re-pull only this
    one."""

    cursor: str | None = None
    limit: int = DEFAULT_PAGE
    wait_s: float = 0
    replica: str | None = None
    scope: str | None = None


class SyncServer(Protocol):
    """What a device needs of a server: over HTTP, or in the same process.

    Both calls may raise any `sync.errors.SyncError`; whoever implements this over a network raises Unavailable when no
    answer came, and then the call may or may not have been carried out: sending the same push again is always safe.
    """

    def push(self, push: Push) -> PushResult:
        """Send mutations. Raises ReplicaForked, MutationGap or GroupIncomplete without having applied anything."""
        ...

    def pull(self, request: PullRequest) -> Page:
        """Read on in the feed. Raises CursorExpired or EpochChanged: start afresh, pending work is kept."""
        ...
