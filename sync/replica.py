"""A device's own place for records and work: what it must keep, and the pure functions that every such place shares.

Three things live in it. *Server state*: records as the last complete pull showed them, and a staging area in which the
pages of the next one gather, so that nobody sees half of it. The *outbox*: every own mutation until no restore of a
server backup can lose it. And the *position*: the replica's name, its cursor, what is durable.

What a person sees is server state with the own work on top of it (`overlay`); it is computed, never stored.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, localcontext
from typing import Any, Literal, Protocol

from sync.clock import Clock, Origin, join
from sync.entities import ENTITY_TYPES
from sync.entity import ANY_ENTITY
from sync.errors import CaptureRefused
from sync.moments import parse_moment
from sync.mutation import MAX_PUSH, Mutation, Problem, Result, payload_hash
from sync.protocol import Page
from sync.record import Key
from sync.schema import SCHEMA_VERSION
from sync.validate import check_capture
from sync.view import blank
from sync.wire import mutation_body, mutation_to_wire, rebased

# -- what is kept -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """A record as the server gave it. data: None if it is deleted. push_seq: the feed position that contains it, if it
    came from the answer to a push and not from the feed."""

    version: int
    clock: Clock
    data: Mapping[str, Any] | None
    push_seq: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """An own mutation in the outbox, under its present name.

    acknowledged: the server answered it; it is kept in case the server loses it. covered: the record that is held
    contains it, so it is not shown on top any more. result: the last answer. voided: what was captured, if it could not
    be sent and `mutation` only fills its number. dismissed: whoever had to know of its trouble does.
    """

    replica: str
    mutation: Mutation
    acknowledged: bool = False
    covered: bool = False
    result: Result | None = None
    voided: Mapping[str, Any] | None = None
    dismissed: bool = False

    @property
    def n(self) -> int:
        return self.mutation.n

    @property
    def key(self) -> Key:
        return self.mutation.key

    @property
    def name(self) -> Origin:
        """Its first name, which it keeps for ever."""
        return self.mutation.named(self.replica)


@dataclass(frozen=True, slots=True)
class Position:
    """Where the replica stands. as_of: the feed position shown. fresh: the pull under way began without a cursor, so
    what it does not bring is dropped when it is complete. next_n: the number of the next mutation. push_seq: the
    highest feed position of a push whose answer brought a record."""

    replica: str
    next_n: int = 1
    cursor: str | None = None
    as_of: int = 0
    fresh: bool = True
    push_seq: int = 0


@dataclass(frozen=True, slots=True)
class Draft:
    """What somebody did, before it becomes a mutation. patch: wire values."""

    op: Literal["create", "update", "delete"]
    key: Key
    patch: Mapping[str, Any] = field(default_factory=dict)


class Replica(Protocol):
    """A device's place for records and work. Every method that writes is one transaction, durable when it returns."""

    @property
    def position(self) -> Position: ...

    def shown(self, key: Key) -> Mapping[str, Any] | None:
        """A record's values with own work on top, None if there is no such record."""
        ...

    def shown_all(self, entity: str) -> dict[str, Mapping[str, Any]]:
        """All records of an entity, by id, with own work on top."""
        ...

    def held(self, key: Key) -> Held | None:
        """A record as the server gave it."""
        ...

    def tally(self, scope: str) -> tuple[int, int]:
        """How many live records of `scope` are held, and the sum of their row hashes."""
        ...

    def capture(self, drafts: Sequence[Draft], occurred_at: str, group: str | None = None) -> list[Entry]:
        """Put `drafts` into the outbox, all or none. occurred_at: RFC 3339 with the local offset.

        Raises CaptureRefused if the server could never accept one.
        """
        ...

    def outbox(self) -> list[Entry]:
        """Every mutation that may still have to be sent, in the order of capture."""
        ...

    def unsent(self) -> list[Entry]:
        """Of each name, what stands in the outbox from its first unacknowledged mutation on."""
        ...

    def names(self) -> set[str]:
        """The replica ids in the outbox."""
        ...

    def troubles(self) -> list[Entry]:
        """Mutations that were parked or rejected, until they are dismissed; bodies included."""
        ...

    def dismiss(self, name: Origin) -> None:
        """Nobody needs to see the trouble with this mutation any more."""
        ...

    def settle(self, answers: Sequence[tuple[Entry, Result]], committed_seq: int) -> set[Key]:
        """Note what the server answered and take the records in it that are newer than those held. Returns those."""
        ...

    def void(self, entry: Entry, problem: Problem) -> None:
        """Give up sending `entry`: its number is filled, what was captured is kept."""
        ...

    def reopen(self, replica: str, from_n: int) -> bool:
        """The server lost what `replica` sent from `from_n` on: it is to be sent again. Was there any?"""
        ...

    def rename(self, replica: str, forked_at: int, new: str, known: Mapping[str, int]) -> None:
        """Go on under the name `new`, and give it to all mutations of `replica` from `forked_at` on.

        known: see `renumber`.
        """
        ...

    def stage(self, page: Page) -> set[Key]:
        """Keep a page together with its cursor. With the last one all are shown at once; returns what changed then."""
        ...

    def repair(self, scope: str, pages: Sequence[Page]) -> set[Key]:
        """Take the complete content of one scope, beside the main feed. Returns what changed."""
        ...

    def restart(self) -> None:
        """Drop the cursor and what is staged. The next complete pull replaces server state whatever the versions say.

        The server may have lost work, so what it had acknowledged is to be sent again.
        """
        ...

    def forget(self, replica: str, durable_n: int) -> None:
        """No backup lacks the mutations of `replica` up to `durable_n`: they need not be kept for the server's sake."""
        ...


# -- what is shown ------------------------------------------------------------------------------------------------


def overlay(data: Mapping[str, Any] | None, mutations: Iterable[Mutation]) -> dict[str, Any] | None:
    """A record's values with `mutations` on top, in order. None: there is no such record, or no longer."""
    shown = None if data is None else dict(data)
    for mutation in mutations:
        if mutation.op == "delete":
            shown = None
        elif mutation.op == "create" and shown is None:
            known = mutation.entity in ENTITY_TYPES
            shown = _patched(dict(blank(mutation.key).data) if known else {}, mutation.patch)
        elif mutation.op in ("create", "update") and shown is not None:
            shown = _patched(shown, mutation.patch)
    return shown


def _patched(data: dict[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    for name, sent in patch.items():
        data[name] = _applied(data.get(name), sent)
    return data


def _applied(current: Any, sent: Any) -> Any:
    if not isinstance(sent, Mapping):
        return sent
    if "$inc" in sent:
        with localcontext(prec=60):
            return format(Decimal(current or "0") + Decimal(sent["$inc"]), "f")
    if "$append" in sent:
        return [*(current or ()), *sent["$append"]]
    if "$add" in sent or "$remove" in sent:
        return sorted({*(current or ()), *sent.get("$add", ())} - {*sent.get("$remove", ())} | {*sent.get("$add", ())})
    return dict(sent)


def on_top(entries: Iterable[Entry]) -> list[Mutation]:
    """The own mutations that the held record does not contain yet."""
    return [entry.mutation for entry in entries if not entry.covered]


# -- capture ------------------------------------------------------------------------------------------------------


def base_for(clock: Clock, own: Iterable[Origin]) -> dict[str, int]:
    """What somebody had seen who looked at a record with `clock`, own mutations (replica, n) on it included."""
    return join([clock, *({mutation.replica: mutation.n} for mutation in own)])


def compose(
    draft: Draft, held: Held | None, own: Sequence[Entry], position: Position, occurred_at: str,
    group: str | None = None, group_size: int | None = None,
) -> Entry:  # fmt: skip
    """The mutation that a draft becomes. own: all own mutations on the record that are still kept, in order.

    It is fixed from here on: whatever is pulled later, it is sent as it is. Raises CaptureRefused if the server could
    never accept it.
    """
    shown = overlay(held.data if held else None, on_top(own)) or {}
    mutation = Mutation(
        n=position.next_n,
        entity=draft.key.entity,
        id=draft.key.id,
        op=draft.op,
        patch=draft.patch,
        base={} if draft.op == "create" else base_for(held.clock if held else {}, (_present(entry) for entry in own)),
        was={name: shown.get(name) for name in draft.patch},
        seen=position.as_of,
        occurred_at=parse_moment(occurred_at),
        group=group,
        group_size=group_size,
    )
    body = mutation_body(mutation, occurred_at, SCHEMA_VERSION)
    captured = replace(mutation, body=body)
    check_capture(mutation_to_wire(captured))
    return Entry(position.replica, captured)


def _present(entry: Entry) -> Origin:
    return Origin(entry.replica, entry.n)


def check_group(drafts: Sequence[Draft]) -> None:
    """Raises CaptureRefused if these cannot go in one push."""
    if len(drafts) > MAX_PUSH:
        raise CaptureRefused(f"A group holds at most {MAX_PUSH} changes; this one has {len(drafts)}.")


# -- names --------------------------------------------------------------------------------------------------------


def successor(old: str, first: Entry) -> str:
    """The name under which what `old` began with `first` goes on.

    It derives from them, so that two copies of one database that hold the same unsent work go on under the same name
    with it, and it counts once; they part where their work differs.
    """
    content = f"{old}\n{first.n}\n{payload_hash(first.mutation.body).hex()}"
    return "r_" + base64.b32encode(hashlib.sha256(content.encode()).digest()).decode()[:26]


def renumber(entries: Sequence[Entry], old: str, forked_at: int, new: str, known: Mapping[str, int]) -> list[Entry]:
    """All `entries` (in order), with those of `old` from `forked_at` on under the name `new`, from 1.

    Bases of what is still to be sent follow: a fork means that `old`'s later numbers are somebody else's. What the
    server has already stays as it is, because the ledger knows it by its content. known: the highest n that the server
    has of other names.
    """
    moved = [entry for entry in entries if entry.replica == old and entry.n >= forked_at]
    places = {entry.n: place for place, entry in enumerate(moved, start=1)}
    return [_renumber(entry, old, forked_at, new, places, known) for entry in entries]


def _renumber(
    entry: Entry, old: str, forked_at: int, new: str, places: Mapping[int, int], known: Mapping[str, int]
) -> Entry:
    mutation, moves = entry.mutation, entry.replica == old and entry.n >= forked_at
    arrived = entry.acknowledged or entry.n <= known.get(entry.replica, 0)
    if not moves and (arrived or mutation.base.get(old, 0) < forked_at):
        return entry
    n = places[entry.n] if moves else entry.n
    base = dict(mutation.base)
    seen = base.get(old, 0)
    if seen >= forked_at:
        base[old] = forked_at - 1
        # What was seen of `old` may be the copy's work, not ours; never claim to have seen what came after.
        mine = max((place for m, place in places.items() if m <= seen and not (moves and place >= n)), default=0)
        base |= {new: mine} if mine else {}
        base = {actor: count for actor, count in base.items() if count}
    if not moves:
        return replace(entry, mutation=rebased(mutation, base))
    renamed = replace(rebased(mutation, base) if base != mutation.base else mutation, n=n, origin=entry.name)
    return replace(entry, replica=new, mutation=renamed, acknowledged=False, result=None)


def first_batch(outbox: Sequence[Entry], limit: int = MAX_PUSH) -> list[Entry]:
    """What to push next: consecutive mutations of one replica, at most `limit`, with no group split (one that is larger
    than `limit` comes alone). Empty if everything was acknowledged."""
    first = next((entry for entry in outbox if not entry.acknowledged), None)
    if first is None:
        return []
    run = sorted((e for e in outbox if e.replica == first.replica and e.n >= first.n), key=lambda entry: entry.n)
    batch: list[Entry] = []
    for members in _groups(run):
        if batch and (len(batch) + len(members) > limit or members[0].n != batch[-1].n + 1):
            break
        batch += members
    return batch


def _groups(run: Sequence[Entry]) -> list[list[Entry]]:
    groups: list[list[Entry]] = []
    for entry in run:
        if groups and entry.mutation.group is not None and groups[-1][-1].mutation.group == entry.mutation.group:
            groups[-1].append(entry)
        else:
            groups.append([entry])
    return groups


def is_indivisible(batch: Sequence[Entry]) -> bool:
    """Is it a single mutation, or a single group?"""
    return len(_groups(batch)) == 1


# -- server state -------------------------------------------------------------------------------------------------


def takes(held: Held | None, version: int | None) -> bool:
    """Is a record at `version` news to a device that holds `held`?"""
    return version is not None and (held is None or version > held.version)


def refers_to(mutation: Mutation) -> set[Key]:
    """The records that a mutation is about: its own, and those that its values name."""
    entity = ENTITY_TYPES.get(mutation.entity)
    keys = {mutation.key}
    for name, value in mutation.patch.items():
        spec = entity.fields.get(name) if entity else None
        if spec is None or spec.type != "reference":
            continue
        if spec.target != ANY_ENTITY and isinstance(value, str):
            keys.add(Key(str(spec.target), value))
        elif isinstance(value, Mapping):
            keys.add(Key(str(value.get("entity")), str(value.get("id"))))
    return keys


def needed(outbox: Iterable[Entry], data: Callable[[Key], Mapping[str, Any] | None]) -> set[Key]:
    """Records that must not be evicted: work that was not sent yet is about them.

    data: the shown values of a record; what the changed record refers to is needed as well.
    """
    keys: set[Key] = set()
    for entry in outbox:
        if not entry.acknowledged:
            keys |= refers_to(entry.mutation)
            keys |= refers_to(replace(entry.mutation, patch=data(entry.key) or {}))
    return keys


def is_trouble(result: Result | None) -> bool:
    """Is it an answer that somebody should look at?"""
    return result is not None and result.status in ("parked", "rejected")
