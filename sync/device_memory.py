"""A device's replica in memory: the reference implementation of `sync.replica`, to read first and to test against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sync.clock import Origin
from sync.feed import MODULUS, row_hash
from sync.mutation import Problem, Result
from sync.protocol import Change, Page
from sync.record import Key
from sync.replica import (
    Draft,
    Entry,
    Held,
    Position,
    check_group,
    compose,
    is_trouble,
    needed,
    on_top,
    overlay,
    renumber,
    takes,
)
from sync.wire import own_mutation, record_from_wire, void_body


class MemoryReplica:
    """A Replica that is gone with its process."""

    def __init__(self, replica: str) -> None:
        self._position = Position(replica)
        self._records: dict[Key, Held] = {}
        self._members: set[tuple[str, Key]] = set()
        self._staged: dict[tuple[str, Key], Change] = {}
        self._outbox: list[Entry] = []
        self._troubles: dict[Origin, Entry] = {}  # that the server needs no more, but a person may

    @property
    def position(self) -> Position:
        return self._position

    def shown(self, key: Key) -> Mapping[str, Any] | None:
        held = self._records.get(key)
        return overlay(held.data if held else None, on_top(self._own(key)))

    def shown_all(self, entity: str) -> dict[str, Mapping[str, Any]]:
        keys = {*self._records, *(entry.key for entry in self._outbox)}
        found = ((key.id, self.shown(key)) for key in sorted(keys) if key.entity == entity)
        return {id: data for id, data in found if data is not None}

    def held(self, key: Key) -> Held | None:
        return self._records.get(key)

    def tally(self, scope: str) -> tuple[int, int]:
        keys = [key for member, key in self._members if member == scope]
        live = [(key, held) for key in keys if (held := self._records.get(key)) and held.data is not None]
        return len(live), sum(row_hash(key.entity, key.id, held.version) for key, held in live) % MODULUS

    # -- own work -------------------------------------------------------------------------------------------------

    def capture(self, drafts: Sequence[Draft], occurred_at: str, group: str | None = None) -> list[Entry]:
        check_group(drafts)
        before, position = list(self._outbox), self._position
        try:
            return [self._capture(draft, occurred_at, group, len(drafts)) for draft in drafts]
        except BaseException:
            self._outbox, self._position = before, position
            raise

    def _capture(self, draft: Draft, occurred_at: str, group: str | None, size: int) -> Entry:
        entry = compose(
            draft, self._records.get(draft.key), self._own(draft.key), self._position, occurred_at,
            group, size if group else None,
        )  # fmt: skip
        self._outbox.append(entry)
        self._position = replace(self._position, next_n=entry.n + 1)
        return entry

    def _own(self, key: Key) -> list[Entry]:
        return [entry for entry in self._outbox if entry.key == key]

    def outbox(self) -> list[Entry]:
        return list(self._outbox)

    def unsent(self) -> list[Entry]:
        first: dict[str, int] = {}
        for entry in self._outbox:
            if not entry.acknowledged:
                first[entry.replica] = min(entry.n, first.get(entry.replica, entry.n))
        return [entry for entry in self._outbox if entry.replica in first and entry.n >= first[entry.replica]]

    def names(self) -> set[str]:
        return {entry.replica for entry in self._outbox}

    def troubles(self) -> list[Entry]:
        return [*self._troubles.values(), *(e for e in self._outbox if is_trouble(e.result) and not e.dismissed)]

    def dismiss(self, name: Origin) -> None:
        self._troubles.pop(name, None)
        self._outbox = [replace(e, dismissed=True) if e.name == name else e for e in self._outbox]

    def settle(self, answers: Sequence[tuple[Entry, Result]], committed_seq: int) -> set[Key]:
        results = {(entry.replica, entry.n): result for entry, result in answers}
        self._outbox = [
            replace(e, acknowledged=True, result=results[e.replica, e.n].stored()) if (e.replica, e.n) in results else e
            for e in self._outbox
        ]
        return {entry.key for entry, result in answers if self._take(entry, result, committed_seq)}

    def _take(self, entry: Entry, result: Result, committed_seq: int) -> bool:
        if result.record is None:
            return False
        change = record_from_wire(result.record, committed_seq)
        if not takes(self._records.get(change.key), change.version):
            return False
        self._records[change.key] = Held(change.version or 0, change.clock or {}, change.data, committed_seq)
        self._position = replace(self._position, push_seq=max(self._position.push_seq, committed_seq))
        self._outbox = [
            replace(e, covered=True)
            if e.key == change.key and (e.n <= result.n if e.replica == entry.replica else e.acknowledged)
            else e
            for e in self._outbox
        ]
        return True

    def void(self, entry: Entry, problem: Problem) -> None:
        filler = own_mutation(void_body(entry.mutation, problem), entry.n, entry.mutation.origin)
        self._replace(entry, replace(entry, mutation=filler, voided=entry.mutation.body))

    def _replace(self, entry: Entry, by: Entry) -> None:
        self._outbox = [by if (e.replica, e.n) == (entry.replica, entry.n) else e for e in self._outbox]

    def reopen(self, replica: str, from_n: int) -> bool:
        lost = any(e.acknowledged and e.replica == replica and e.n >= from_n for e in self._outbox)
        self._outbox = [
            replace(e, acknowledged=False) if e.replica == replica and e.n >= from_n else e for e in self._outbox
        ]
        return lost

    def rename(self, replica: str, forked_at: int, new: str, known: Mapping[str, int]) -> None:
        self._outbox = renumber(self._outbox, replica, forked_at, new, known)
        count = sum(1 for entry in self._outbox if entry.replica == new)
        self._position = replace(self._position, replica=new, next_n=count + 1)

    def forget(self, replica: str, durable_n: int) -> None:
        gone = [e for e in self._outbox if e.replica == replica and e.n <= durable_n and e.acknowledged and e.covered]
        self._troubles |= {e.name: e for e in gone if is_trouble(e.result) and not e.dismissed}
        self._outbox = [entry for entry in self._outbox if entry not in gone]

    # -- server state ---------------------------------------------------------------------------------------------

    def stage(self, page: Page) -> set[Key]:
        for change in page.changes:
            self._staged[change.scope, change.key] = change
        self._position = replace(self._position, cursor=page.cursor)
        return set() if page.more else self._show(page)

    def _show(self, page: Page) -> set[Key]:
        fresh, on_top_before = self._position.fresh, self._covering()
        before = {key: held.version for key, held in self._records.items()}
        taken: set[Key] = set()
        if fresh:
            self._members.clear()
            self._forget_pushes()
        for change in sorted(self._staged.values(), key=lambda change: change.seq):
            self._apply(change, whatever=fresh and change.key not in taken)
            taken |= {change.key} if change.op != "evict" else set()
        granted = {tally.scope for tally in page.scopes}
        self._members = {(scope, key) for scope, key in self._members if scope in granted}
        self._staged.clear()
        self._cover(page.last_n, fresh)
        self._position = replace(self._position, as_of=page.as_of, fresh=False)
        self._sweep()
        after = {key: held.version for key, held in self._records.items()}
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        return changed | (on_top_before - self._covering())

    def _covering(self) -> set[Key]:
        """Records that own work is shown on top of."""
        return {entry.key for entry in self._outbox if not entry.covered}

    def _apply(self, change: Change, whatever: bool) -> None:
        if change.op == "put":
            self._members.add((change.scope, change.key))
        else:
            self._members.discard((change.scope, change.key))
        if change.op != "evict" and (whatever or takes(self._records.get(change.key), change.version)):
            self._records[change.key] = Held(change.version or 0, change.clock or {}, change.data)

    def _cover(self, last_n: int, fresh: bool) -> None:
        current = self._position.replica
        self._outbox = [
            replace(e, covered=(e.n <= last_n if e.replica == current else e.acknowledged) or (e.covered and not fresh))
            for e in self._outbox
        ]

    def _sweep(self) -> None:
        """Drop records that lie in no scope any more, unless unsent work is about them."""
        members = {key for _, key in self._members}
        loose = [k for k, h in self._records.items() if k not in members and h.push_seq <= self._position.as_of]
        kept = needed(self._outbox, self.shown) if loose else set()
        for key in loose:
            if key not in kept:
                del self._records[key]

    def repair(self, scope: str, pages: Sequence[Page]) -> set[Key]:
        self._members = {(member, key) for member, key in self._members if member != scope}
        changed = set()
        for change in (change for page in pages for change in page.changes):
            held = self._records.get(change.key)
            self._apply(change, whatever=held is None or held.version <= (change.version or 0))
            changed.add(change.key)
        self._outbox = [
            replace(e, covered=True)
            if e.key in changed and e.replica == self._position.replica and e.n <= pages[-1].last_n
            else e
            for e in self._outbox
        ]
        self._sweep()
        return changed

    def _forget_pushes(self) -> None:
        """Positions of pushes may be those of a time before a restore; a complete pull counts whatever they were."""
        self._records = {key: replace(held, push_seq=0) for key, held in self._records.items()}
        self._position = replace(self._position, push_seq=0)

    def restart(self) -> None:
        self._staged.clear()
        self._position = replace(self._position, cursor=None, fresh=True)
        self._outbox = [replace(entry, acknowledged=False) for entry in self._outbox]
