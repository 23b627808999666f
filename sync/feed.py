"""The change feed: who is told what after a unit of work, and where a reader stands in it.

Every record has one feed row per scope, moved to the end on each change, so the feed is always compacted. A cursor
holds the main position and, for scopes granted since, how far each has been filled in; those join the main feed when
they reach it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sync.errors import InvalidCursor
from sync.protocol import Change
from sync.record import Key, Record
from sync.scopes import path_fields
from sync.store import Batch, FeedPosition, FeedRow, Tally
from sync.view import View, place

MODULUS = 1 << 64
EVERYTHING = (1 << 63) - 1


def row_hash(entity: str, id: str, version: int) -> int:
    """What one live record adds to its scope's checksum: the first 8 bytes of a SHA-256, big-endian."""
    return int.from_bytes(hashlib.sha256(f"{entity}\n{id}\n{version}".encode()).digest()[:8], "big")


def checksum_text(total: int) -> str:
    """A checksum as 16 hex digits."""
    return f"{total % MODULUS:016x}"


# -- writing ------------------------------------------------------------------------------------------------------


def finish(batch: Batch, view: View) -> None:
    """Complete `batch` with everything that its changed records mean to readers: dependants moved, feed rows,
    tallies."""
    if any(_moved(batch.before[key], record) for key, record in batch.records.items()):
        _move_dependants(batch, view)
    for key, record in batch.records.items():
        _announce(batch, batch.before[key], record)


def _moved(before: Record | None, after: Record) -> bool:
    fields = path_fields(after.entity)
    return before is None or any(before.data.get(name) != after.data.get(name) for name in fields)


def _move_dependants(batch: Batch, view: View) -> None:
    for key in sorted(view.locked):
        record = view.records.get(key)
        if record is None:
            continue
        placed = place(record, view.records.get, record.updated_at)
        if placed.scopes != record.scopes:
            batch.before.setdefault(key, record)
            batch.records[key] = view.records[key] = placed


def _announce(batch: Batch, before: Record | None, after: Record) -> None:
    left = set(before.scopes) - set(after.scopes) if before else set()
    changed = before is None or before.version != after.version
    op = "delete" if after.deleted else "put"
    for scope in after.scopes:
        if changed or before is None or scope not in before.scopes:
            batch.feed.append(FeedRow(scope, after.entity, after.id, op))  # type: ignore[arg-type]  # one of two words
    batch.feed += [FeedRow(scope, after.entity, after.id, "evict") for scope in sorted(left)]
    _count(batch, before, -1)
    _count(batch, after, 1)


def _count(batch: Batch, record: Record | None, sign: int) -> None:
    if record is None or record.deleted:
        return
    weight = sign * row_hash(record.entity, record.id, record.version)
    for scope in record.scopes:
        count, total = batch.tallies.get(scope, Tally(0, 0))
        batch.tallies[scope] = Tally(count + sign, (total + weight) % MODULUS)


# -- reading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a reader has come. reader: whose it is. filling: scopes still being filled in, and up to where.

    main: the position up to which all other scopes were read. only: the scope of a scoped re-pull. lost: scopes that
    were taken away since the last page that named those held; the reader may not know and keep what it has of them.
    """

    epoch: int
    reader: str
    main: int
    scopes: tuple[str, ...]
    filling: Mapping[str, int] = field(default_factory=dict)
    only: str | None = None
    lost: tuple[str, ...] = ()

    def positions(self, held: Sequence[str]) -> list[FeedPosition]:
        """Where to read on, with the scopes held now: one granted since is filled in from its start, one revoked
        ends."""
        fresh = {scope: 0 for scope in held if scope not in self.scopes}
        filling = {**fresh, **self.filling}
        return [
            FeedPosition(scope, filling.get(scope, self.main), self.main if scope in filling.keys() - self.lost else 0)
            for scope in held
        ]

    def after(self, held: Sequence[str], rows: Sequence[Change], full: bool, head: int) -> Cursor:
        """The cursor after a page. full: the page had as many rows as were asked for, so there may be more."""
        if not full:
            return replace(self, main=head, scopes=tuple(held), filling={}, lost=())
        lost = tuple(sorted({*self.lost, *(set(self.scopes) - set(held))}))
        reached = rows[-1].seq
        if reached >= self.main:
            return replace(self, main=reached, scopes=tuple(held), filling={}, lost=lost)
        # Everything up to `reached` was in this page, whatever its scope; the main feed has not begun yet.
        filling = {p.scope: max(p.after, reached) for p in self.positions(held) if p.after < self.main}
        return replace(self, scopes=tuple(held), filling=filling, lost=lost)

    def seal(self, secret: bytes) -> str:
        """The cursor as text that only the holder of `secret` can make."""
        body = [self.epoch, self.reader, self.main, list(self.scopes), dict(self.filling), self.only, self.lost]
        text = json.dumps(body, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(_mac(text, secret) + text).decode().rstrip("=")

    @classmethod
    def unseal(cls, text: str, secret: bytes, reader: str) -> Cursor:
        """Read a sealed cursor. Raises InvalidCursor unless it was sealed with `secret` for `reader`."""
        try:
            raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
            mac, body = raw[:16], raw[16:]
            if mac != _mac(body, secret):
                raise InvalidCursor
            epoch, owner, main, scopes, filling, only, lost = json.loads(body)
        except ValueError as error:
            raise InvalidCursor from error
        if owner != reader:
            raise InvalidCursor
        return cls(epoch, owner, main, tuple(scopes), filling, only, tuple(lost))


def first_cursor(epoch: int, reader: str, head: int, only: str | None = None) -> Cursor:
    """For a reader that holds nothing: everything up to `head` is filled in, what comes later follows in the main
    feed."""
    return Cursor(epoch, reader, head, (), {}, only)


def _mac(text: bytes, secret: bytes) -> bytes:
    return hashlib.blake2b(text, key=secret, digest_size=16, person=b"backhaul cursor").digest()


Tallies = Callable[[str], tuple[int, int]]


def tally(records: Mapping[Key, Record], scope: str) -> tuple[int, int]:
    """Count and checksum of a scope, from the records themselves. For checks; stores keep a running sum."""
    live = [r for r in records.values() if scope in r.scopes and not r.deleted]
    return len(live), sum(row_hash(r.entity, r.id, r.version) for r in live) % MODULUS
