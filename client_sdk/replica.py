"""A device's replica in SQLite: what was saved is on the disk before the caller goes on.

Write-ahead log with `synchronous=FULL`; one connection under a lock; every write begins with BEGIN IMMEDIATE, because a
transaction that starts by reading cannot wait for another writer any more. Server state is only a copy and may be
thrown away; the outbox may not.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from client_sdk.ids import mint_id, mint_replica
from client_sdk.schema import UPGRADES, upgrade
from sync.clock import Origin
from sync.errors import SyncError
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
    needed,
    on_top,
    overlay,
    renumber,
    takes,
)
from sync.wire import own_mutation, record_from_wire, result_from_wire, result_to_wire, void_body

BUSY_TIMEOUT_S = 5  # another process of this device holds the database for milliseconds; a sync never does for long

_ENTRY = "replica, n, origin_replica, origin_n, body, acknowledged, covered, result, voided, dismissed"


class StorageFailed(SyncError):
    """The device's storage could not be read or written, so nothing was saved. Free some space and try again."""

    code = "storage_failed"
    status = 507


class StorageTooNew(SyncError):
    """The device's database was written by a newer version of this app. Update the app; nothing was changed."""

    code = "storage_too_new"


class SqliteReplica:
    """A Replica in the file `path`. close() it, or use it in a `with` block.

    trace: called with every statement before it runs; for tests.
    """

    def __init__(
        self, path: Path | str, *, mint: Callable[[], str] = mint_replica, trace: Callable[[str], None] | None = None,
        steps: tuple[tuple[str, ...], ...] = UPGRADES,
    ) -> None:  # fmt: skip
        self.path = Path(path)
        self._lock = threading.RLock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._db = self._open(trace, steps)
        try:
            self._begin_life(mint)
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> SqliteReplica:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. What was captured is safe without it; it only spares the check at the next start."""
        with self._lock:
            with suppress(StorageFailed, sqlite3.ProgrammingError), self._writing():
                self._put("in_use", 0)
            self._db.close()

    # -- the file -------------------------------------------------------------------------------------------------

    def _open(self, trace: Callable[[str], None] | None, steps: tuple[tuple[str, ...], ...]) -> sqlite3.Connection:
        db = None
        try:
            _make_private(self.path)
            db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            db.set_trace_callback(trace)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            upgrade(db, steps)
        except (sqlite3.Error, OSError, ValueError) as error:
            if db is not None:
                db.close()
            kind = StorageTooNew if isinstance(error, ValueError) else StorageFailed
            raise kind(f"{kind.__doc__} ({self.path}: {error})") from error
        return db

    def _begin_life(self, mint: Callable[[], str]) -> None:
        if self._get("in_use"):
            self._check_integrity()
        marker = self.path.with_name(self.path.name + ".device")
        known = marker.read_text(encoding="ascii") if marker.exists() else None
        with self._writing():
            if self._get("replica") is None:
                self._name(mint(), 1)
                self._put("fresh", 1)
            elif self._get("marker") != known:
                # The database was copied or restored without the file beside it. What it holds unsent may be sent by
                # the other copy as well, under the same names and so without harm; what comes now must not.
                self._name(mint(), 1)
            if self._get("marker") != known or known is None:
                known = mint_id()
                self._put("marker", known)
            self._put("in_use", 1)
        _make_private(marker)
        marker.write_text(known, encoding="ascii")

    def _check_integrity(self) -> None:
        """After an unclean end. Damaged server state is fetched again; a damaged outbox is for a person."""
        try:
            found = self._rows("PRAGMA integrity_check(20)")
        except StorageFailed:
            found = []
        if found == [("ok",)]:
            return
        try:
            saved = self._rows("SELECT * FROM outbox ORDER BY place")
            state = self._rows("SELECT name, value FROM state")
        except StorageFailed as error:
            advice = f"{self.path} is damaged, and so is work in it that was not sent. Keep the file and ask for help."
            raise StorageFailed(advice) from error
        self._rebuild(saved, state)

    def _rebuild(self, saved: Sequence[tuple[Any, ...]], state: Sequence[tuple[Any, ...]]) -> None:
        """A new file with the outbox and names of the damaged one, which is kept beside it."""
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.unlink(missing_ok=True)
        _make_private(fresh)
        db = sqlite3.connect(fresh, isolation_level=None)
        upgrade(db)
        db.execute("BEGIN IMMEDIATE")
        if saved:
            places = ",".join("?" * len(saved[0]))
            db.executemany(f"INSERT INTO outbox VALUES ({places})", saved)
        db.executemany("INSERT INTO state VALUES (?, ?)", state)
        db.execute("DELETE FROM state WHERE name IN ('cursor', 'as_of', 'push_seq')")
        db.execute("INSERT OR REPLACE INTO state VALUES ('fresh', 1)")
        db.execute("UPDATE outbox SET covered = 0")
        db.execute("COMMIT")
        db.close()
        self._db.close()
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self.path.replace(self.path.with_name(self.path.name + ".damaged"))
        fresh.replace(self.path)
        self._db = self._open(None, UPGRADES)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: all of it, or nothing and StorageFailed."""
        with self._lock:
            self._run("BEGIN IMMEDIATE")
            try:
                yield
                self._run("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                raise

    def _run(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise StorageFailed(f"{StorageFailed.__doc__} ({error})") from error

    def _run_many(self, statement: str, values: Iterable[Sequence[Any]]) -> None:
        try:
            self._db.executemany(statement, values)
        except sqlite3.Error as error:
            raise StorageFailed(f"{StorageFailed.__doc__} ({error})") from error

    def _rows(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise StorageFailed(f"{StorageFailed.__doc__} ({error})") from error

    # -- names and numbers ----------------------------------------------------------------------------------------

    def setting(self, name: str) -> Any:
        """What the shell keeps here under `name`, None if nothing."""
        return self._get(f"shell.{name}")

    def set_settings(self, **values: str | int | None) -> None:
        """Keep `values` for the shell, all in one transaction; None forgets one."""
        with self._writing():
            for name, value in values.items():
                self._put(f"shell.{name}", value)

    def _get(self, name: str) -> Any:
        rows = self._rows("SELECT value FROM state WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    def _put(self, name: str, value: str | int | None) -> None:
        if value is None:
            self._run("DELETE FROM state WHERE name = ?", (name,))
        else:
            self._run("INSERT INTO state VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (name, value))

    def _name(self, replica: str, next_n: int) -> None:
        self._put("replica", replica)
        self._put("next_n", next_n)

    @property
    def position(self) -> Position:
        state = dict(self._rows("SELECT name, value FROM state WHERE name NOT LIKE 'shell.%'"))
        return Position(
            replica=state["replica"],
            next_n=state["next_n"],
            cursor=state.get("cursor"),
            as_of=state.get("as_of", 0),
            fresh=bool(state.get("fresh", 1)),
            push_seq=state.get("push_seq", 0),
        )

    # -- what is shown --------------------------------------------------------------------------------------------

    def shown(self, key: Key) -> Mapping[str, Any] | None:
        with self._lock:
            held = self.held(key)
            return overlay(held.data if held else None, on_top(self._own(key)))

    def shown_all(self, entity: str) -> dict[str, Mapping[str, Any]]:
        with self._lock:
            rows = self._rows("SELECT id, data FROM record WHERE entity = ?", (entity,))
            found: dict[str, Mapping[str, Any] | None] = {id: json.loads(data) if data else None for id, data in rows}
            own: dict[str, list[Entry]] = {}
            for entry in self._entries("entity = ? AND wanted AND NOT covered", (entity,)):
                own.setdefault(entry.key.id, []).append(entry)
        for id, entries in own.items():
            found[id] = overlay(found.get(id), on_top(entries))
        return {id: data for id, data in sorted(found.items()) if data is not None}

    def held(self, key: Key) -> Held | None:
        rows = self._rows("SELECT version, clock, data, push_seq FROM record WHERE (entity, id) = (?, ?)", key)
        if not rows:
            return None
        version, clock, data, push_seq = rows[0]
        return Held(version, json.loads(clock), json.loads(data) if data else None, push_seq)

    def tally(self, scope: str) -> tuple[int, int]:
        rows = self._rows(
            "SELECT entity, id, version FROM member JOIN record USING (entity, id) WHERE scope = ? AND data NOT NULL",
            (scope,),
        )
        return len(rows), sum(row_hash(*row) for row in rows) % MODULUS

    # -- own work -------------------------------------------------------------------------------------------------

    def capture(self, drafts: Sequence[Draft], occurred_at: str, group: str | None = None) -> list[Entry]:
        check_group(drafts)
        with self._writing():
            return [self._capture(draft, occurred_at, group, len(drafts)) for draft in drafts]

    def _capture(self, draft: Draft, occurred_at: str, group: str | None, size: int) -> Entry:
        entry = compose(
            draft, self.held(draft.key), self._own(draft.key), self.position, occurred_at,
            group, size if group else None,
        )  # fmt: skip
        self._run(
            "INSERT INTO outbox (replica, n, entity, id, body) VALUES (?, ?, ?, ?, ?)",
            (entry.replica, entry.n, *entry.key, _text(entry.mutation.body)),
        )
        self._put("next_n", entry.n + 1)
        return entry

    def _own(self, key: Key) -> list[Entry]:
        return self._entries("(entity, id) = (?, ?) AND wanted", key)

    def _entries(self, where: str, values: Sequence[Any] = ()) -> list[Entry]:
        return [_entry(row) for row in self._rows(f"SELECT {_ENTRY} FROM outbox WHERE {where} ORDER BY place", values)]

    def outbox(self) -> list[Entry]:
        return self._entries("wanted")

    def unsent(self) -> list[Entry]:
        with self._lock:
            first = self._rows("SELECT replica, min(n) FROM outbox WHERE acknowledged = 0 GROUP BY replica")
            if not first:
                return []
            since = " OR ".join("(replica = ? AND n >= ?)" for _ in first)
            return self._entries(f"wanted AND ({since})", [value for row in first for value in row])

    def names(self) -> set[str]:
        return {row[0] for row in self._rows("SELECT DISTINCT replica FROM outbox WHERE wanted")}

    def troubles(self) -> list[Entry]:
        return self._entries("NOT dismissed AND json_extract(result, '$.status') IN ('parked', 'rejected')")

    def dismiss(self, name: Origin) -> None:
        with self._writing():
            self._run(
                "UPDATE outbox SET dismissed = 1 WHERE"
                " (coalesce(origin_replica, replica), coalesce(origin_n, n)) = (?, ?)",
                name,
            )
            self._run("DELETE FROM outbox WHERE dismissed AND NOT wanted")

    def settle(self, answers: Sequence[tuple[Entry, Result]], committed_seq: int) -> set[Key]:
        with self._writing():
            self._run_many(
                "UPDATE outbox SET acknowledged = 1, result = ? WHERE (replica, n) = (?, ?)",
                [(_text(result_to_wire(r.stored())), entry.replica, entry.n) for entry, r in answers],
            )
            return {entry.key for entry, result in answers if self._take(entry, result, committed_seq)}

    def _take(self, entry: Entry, result: Result, committed_seq: int) -> bool:
        if result.record is None:
            return False
        change = record_from_wire(result.record, committed_seq)
        if not takes(self.held(change.key), change.version):
            return False
        self._hold(change, committed_seq)
        self._put("push_seq", max(self.position.push_seq, committed_seq))
        self._run(
            "UPDATE outbox SET covered = 1 WHERE (entity, id) = (?, ?)"
            " AND CASE WHEN replica = ? THEN n <= ? ELSE acknowledged END",
            (*change.key, entry.replica, result.n),
        )
        return True

    def _hold(self, change: Change, push_seq: int) -> None:
        self._run(
            "INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?, ?)",
            (*change.key, change.version, _text(change.clock or {}), _text_or_none(change.data), push_seq),
        )

    def void(self, entry: Entry, problem: Problem) -> None:
        with self._writing():
            self._run(
                "UPDATE outbox SET voided = body, body = ? WHERE (replica, n) = (?, ?)",
                (_text(void_body(entry.mutation, problem)), entry.replica, entry.n),
            )

    def reopen(self, replica: str, from_n: int) -> bool:
        with self._writing():
            lost = "wanted AND acknowledged AND replica = ? AND n >= ?"
            return self._run(f"UPDATE outbox SET acknowledged = 0 WHERE {lost}", (replica, from_n)).rowcount > 0

    def rename(self, replica: str, forked_at: int, new: str, known: Mapping[str, int]) -> None:
        with self._writing():
            before = self.outbox()
            after = renumber(before, replica, forked_at, new, known)
            for old, entry in zip(before, after, strict=True):
                if old is not entry:
                    self._run(
                        "UPDATE outbox SET replica = ?, n = ?, origin_replica = ?, origin_n = ?, body = ?,"
                        " acknowledged = ?, result = ? WHERE (replica, n) = (?, ?)",
                        (
                            entry.replica, entry.n, *(entry.mutation.origin or (None, None)),
                            _text(entry.mutation.body), entry.acknowledged,
                            _text(result_to_wire(entry.result)) if entry.result else None, old.replica, old.n,
                        ),
                    )  # fmt: skip
            self._name(new, 1 + sum(1 for entry in after if entry.replica == new))

    def forget(self, replica: str, durable_n: int) -> None:
        with self._writing():
            gone = "wanted AND replica = ? AND n <= ? AND acknowledged AND covered"
            trouble = "json_extract(result, '$.status') IN ('parked', 'rejected') AND NOT dismissed"
            self._run(f"UPDATE outbox SET wanted = 0 WHERE {gone} AND {trouble}", (replica, durable_n))
            self._run(f"DELETE FROM outbox WHERE {gone}", (replica, durable_n))

    # -- server state ---------------------------------------------------------------------------------------------

    def stage(self, page: Page) -> set[Key]:
        with self._writing():
            self._run_many(
                "INSERT OR REPLACE INTO staged VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (c.scope, *c.key, c.seq, c.op, c.version, _text(c.clock or {}), _text_or_none(c.data))
                    for c in page.changes
                ),
            )
            self._put("cursor", page.cursor)
            return set() if page.more else self._show(page)

    def _show(self, page: Page) -> set[Key]:
        position = self.position
        # A small pull into a large database must stay small; a complete one looks at everything anyway.
        among = "1" if position.fresh else "(entity, id) IN (SELECT entity, id FROM staged)"
        before, on_top_before = self._versions(among), self._covering()
        if position.fresh:
            self._run("DELETE FROM member")
            # What a complete pull brings counts, whatever is held: that may be of a time before a restore.
            self._run("DELETE FROM record WHERE (entity, id) IN (SELECT entity, id FROM staged WHERE op != 'evict')")
            self._run("UPDATE record SET push_seq = 0")
            self._put("push_seq", 0)
        self._run(
            "INSERT INTO record SELECT entity, id, version, clock, data, 0 FROM staged WHERE op != 'evict' ORDER BY seq"
            " ON CONFLICT DO UPDATE SET version = excluded.version, clock = excluded.clock, data = excluded.data,"
            " push_seq = 0 WHERE excluded.version > record.version"
        )
        self._run("DELETE FROM member WHERE (scope, entity, id) IN (SELECT scope, entity, id FROM staged)")
        self._run("INSERT INTO member SELECT scope, entity, id FROM staged WHERE op = 'put'")
        granted = json.dumps([tally.scope for tally in page.scopes])
        self._run("DELETE FROM member WHERE scope NOT IN (SELECT value FROM json_each(?))", (granted,))
        self._run(
            "UPDATE outbox SET covered = (CASE WHEN replica = ? THEN n <= ? ELSE acknowledged END)"
            " OR (covered AND NOT ?) WHERE wanted",
            (position.replica, page.last_n, position.fresh),
        )
        self._put("as_of", page.as_of)
        self._put("fresh", 0)
        after = self._versions(among)
        self._run("DELETE FROM staged")
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        return changed | self._sweep(page.as_of) | (on_top_before - self._covering())

    def _versions(self, among: str) -> dict[Key, int]:
        rows = self._rows(f"SELECT entity, id, version FROM record WHERE {among}")
        return {Key(entity, id): version for entity, id, version in rows}

    def _covering(self) -> set[Key]:
        """Records that own work is shown on top of."""
        rows = self._rows("SELECT DISTINCT entity, id FROM outbox WHERE wanted AND NOT covered")
        return {Key(entity, id) for entity, id in rows}

    def _sweep(self, as_of: int) -> set[Key]:
        """Drop records that lie in no scope any more, unless unsent work is about them. Returns those."""
        loose = self._rows(
            "SELECT entity, id FROM record WHERE push_seq <= ? AND NOT EXISTS"
            " (SELECT 1 FROM member WHERE member.entity = record.entity AND member.id = record.id)",
            (as_of,),
        )
        if not loose:
            return set()
        gone = {Key(*row) for row in loose} - needed(self._entries("acknowledged = 0 AND wanted"), self.shown)
        self._run_many("DELETE FROM record WHERE (entity, id) = (?, ?)", gone)
        return gone

    def repair(self, scope: str, pages: Sequence[Page]) -> set[Key]:
        changed: set[Key] = set()
        with self._writing():
            self._run("DELETE FROM member WHERE scope = ?", (scope,))
            for change in (change for page in pages for change in page.changes):
                if change.op == "put":
                    self._run("INSERT OR REPLACE INTO member VALUES (?, ?, ?)", (scope, *change.key))
                else:
                    self._run("DELETE FROM member WHERE (scope, entity, id) = (?, ?, ?)", (scope, *change.key))
                held = self.held(change.key)
                if change.op != "evict" and (held is None or held.version <= (change.version or 0)):
                    self._hold(change, 0)
                changed.add(change.key)
            self._run_many(
                "UPDATE outbox SET covered = 1 WHERE (entity, id) = (?, ?) AND replica = ? AND n <= ?",
                ((*key, self.position.replica, pages[-1].last_n) for key in changed),
            )
            changed |= self._sweep(self.position.as_of)
        return changed

    def restart(self) -> None:
        with self._writing():
            self._run("DELETE FROM staged")
            self._run("UPDATE outbox SET acknowledged = 0 WHERE wanted")
            self._put("cursor", None)
            self._put("fresh", 1)

    def clear(self, outbox: bool) -> None:
        """Forget server state; with `outbox` also all own work (a lost device)."""
        with self._writing():
            for table in ("record", "member", "staged", *(("outbox",) if outbox else ())):
                self._run(f"DELETE FROM {table}")
            self._put("cursor", None)
            self._put("fresh", 1)
            self._put("as_of", None)
            self._put("push_seq", 0)
        if outbox:
            # What was deleted must not be readable in the file any more.
            with self._lock:
                self._run("VACUUM")
                self._run("PRAGMA wal_checkpoint(TRUNCATE)")

    def start_over(self, replica: str) -> None:
        """Go on under another name, with nothing unsent: for another technician."""
        self.clear(outbox=True)
        with self._writing():
            self._name(replica, 1)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)


def _entry(row: tuple[Any, ...]) -> Entry:
    replica, n, origin_replica, origin_n, body, acknowledged, covered, result, voided, dismissed = row
    return Entry(
        replica=replica,
        mutation=own_mutation(json.loads(body), n, Origin(origin_replica, origin_n) if origin_replica else None),
        acknowledged=bool(acknowledged),
        covered=bool(covered),
        result=result_from_wire(json.loads(result)) if result else None,
        voided=json.loads(voided) if voided else None,
        dismissed=bool(dismissed),
    )


def _make_private(path: Path) -> None:
    """See that `path` is there and for its owner alone: tokens and customers' data lie in it. SQLite's own files beside
    it take over its mode."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)
