"""The hub's store in PostgreSQL: `sync.store` by sets.

Every call is a constant number of statements, whatever the size of the push. Locks are taken in one order: the replica,
the keys of records that do not exist yet, the records, the cases, and last the feed head.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from sqlalchemy import Engine

from server.store import feed
from server.store.documents import HASH_BYTES, bodies_in, history_in, results_in, waiting_of
from server.store.engine import driver
from server.store.rows import CASE_COLUMNS, RECORD_COLUMNS, Row, case_of, columns_of, record_of, ref_of
from server.store.saving import save
from sync.clock import Origin
from sync.mutation import Result, content_hash
from sync.record import Key, Record
from sync.store import Batch, Case, FeedPosition, FeedSlice, HistoryEntry, LedgerEntry, ReplicaState, Times, Waiting

LARGEST = (1 << 63) - 1  # a device may claim to have seen more than any bigint holds


def _no_failure(name: str) -> None:
    """Nothing goes wrong here."""


class PostgresHub:
    """A HubStore. failpoint: called with "before_commit" and "after_commit"; what it raises happens to the caller."""

    def __init__(self, engine: Engine, failpoint: Callable[[str], None] = _no_failure) -> None:
        self._engine = engine
        self._failpoint = failpoint

    @contextmanager
    def begin(self) -> Iterator[PostgresUnit]:
        """A new unit of work. Raises Unavailable, or Contended if it met a deadlock (see `engine.retrying`)."""
        with driver(self._engine) as connection:
            yield PostgresUnit(connection, self._failpoint)

    def read_feed(self, positions: Sequence[FeedPosition], limit: int, replica: str | None) -> FeedSlice:
        """At most `limit` rows of the scopes, in seq order, from one snapshot, with their head and tallies."""
        with driver(self._engine, autocommit=True) as connection:
            return feed.read_feed(connection, positions, limit, replica)

    def read_feed_text(self, positions: Sequence[FeedPosition], limit: int, replica: str | None) -> feed.FeedText:
        """The same, each row as ready-made JSON text."""
        with driver(self._engine, autocommit=True) as connection:
            return feed.read_feed_text(connection, positions, limit, replica)

    def newest(self, scopes: Sequence[str]) -> int:
        """The last position at which anything changed in `scopes`: a cheap way to find out that nothing did."""
        with driver(self._engine, autocommit=True) as connection:
            return feed.newest(connection, scopes)


@dataclass(frozen=True, slots=True)
class StoredTimes:
    """Commit times, ms, as they were looked up."""

    seqs: dict[int, int] = field(default_factory=dict)
    versions: dict[tuple[Key, int], int] = field(default_factory=dict)

    def of_seq(self, seq: int) -> int:
        return self.seqs.get(seq, 0)

    def of_version(self, key: Key, version: int) -> int:
        return self.versions.get((key, version), 0)


class PostgresUnit:
    """A UnitOfWork: one transaction, READ COMMITTED, in which every lock is taken explicitly."""

    def __init__(self, connection: psycopg.Connection[Any], failpoint: Callable[[str], None] = _no_failure) -> None:
        self._connection = connection
        self._failpoint = failpoint
        self._epoch: int | None = None

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        return self._connection.execute(statement, values).fetchall()

    @property
    def epoch(self) -> int:
        if self._epoch is None:
            ((self._epoch,),) = self._rows("SELECT number FROM feed_epoch")
        return self._epoch

    def save(self, batch: Batch) -> int:
        return save(self._connection, batch, self.epoch)

    def commit(self) -> None:
        self._failpoint("before_commit")
        self._connection.commit()
        self._failpoint("after_commit")

    # -- the ledger -----------------------------------------------------------------------------------------------

    def lock_replica(self, replica: str, technician_id: str | None) -> ReplicaState:
        locked = self._rows(LOCKED_REPLICA, [replica])
        if not locked:
            self._connection.execute(NEW_REPLICA, [replica, technician_id])
            locked = self._rows(LOCKED_REPLICA, [replica])
        return ReplicaState(*locked[0])

    def ledger(self, replica: str, first_n: int, last_n: int) -> list[LedgerEntry]:
        pushes = self._rows(OVERLAPPING, [replica, first_n, min(last_n, LARGEST)])
        return [entry for push in pushes for entry in _entries(push) if first_n <= entry.n <= last_n]

    def renamed(
        self, origins: Collection[tuple[Origin, bytes]], technician_id: str | None
    ) -> dict[tuple[Origin, bytes], Result]:
        wanted = list(origins)
        replicas, ns = [origin.replica for origin, _ in wanted], [origin.n for origin, _ in wanted]
        places: dict[int, list[tuple[int, Row]]] = {}
        for place, n, *push in self._rows(KNOWN_AS, [replicas, ns, [hash for _, hash in wanted], technician_id]):
            places.setdefault(place - 1, []).append((n, tuple(push)))
        opened: dict[int, dict[int, tuple[Result, bytes]]] = {}
        found: dict[tuple[Origin, bytes], Result] = {}
        for place, candidates in sorted(places.items()):
            origin, hash = wanted[place]
            for n, (id, first_n, _, content) in candidates:
                if id not in opened:
                    known = zip(results_in(content), map(content_hash, bodies_in(content)), strict=True)
                    opened[id] = dict(enumerate(known, start=first_n))
                if n in opened[id] and opened[id][n][1] == hash:
                    found.setdefault((origin, hash), opened[id][n][0])
        return found

    # -- records --------------------------------------------------------------------------------------------------

    def reach(self, keys: Collection[Key], changed_paths: Collection[Key]) -> set[Key]:
        if not keys and not changed_paths:
            return set()
        start = {*keys, *changed_paths}
        if changed_paths:
            start |= {Key(*row) for row in self._rows(DEPENDANTS, [sorted(ref_of(key) for key in changed_paths)])}
        return start | {Key(*row) for row in self._rows(ABOVE, columns_of(start))}

    def load(self, lock: Collection[Key], read: Collection[Key]) -> dict[Key, Record]:
        records: list[Record] = []
        if lock:
            columns = columns_of(lock)
            # Its own rows, gone again at once: until the commit they keep others out all the same.
            if self._connection.execute(LOCK_ABSENT, columns).rowcount:
                self._connection.execute(UNLIST_ABSENT, [sorted(ref_of(key) for key in lock)])
            records += map(record_of, self._rows(LOCKED_RECORDS, columns))
        only_read = set(read) - set(lock)
        if only_read:
            records += map(record_of, self._rows(READ_RECORDS, columns_of(only_read)))
        return {record.key: record for record in records}

    def was_in_reach(self, wanted: Collection[tuple[Key, int]], scopes: Collection[str]) -> set[tuple[Key, int]]:
        listed = sorted(wanted)
        entities, ids = [key.entity for key, _ in listed], [key.id for key, _ in listed]
        rows = self._rows(WITHIN, [entities, ids, [at for _, at in listed], sorted(scopes)])
        return {(Key(entity, id), at) for entity, id, at in rows}

    # -- review ---------------------------------------------------------------------------------------------------

    def blocked(self, keys: Collection[Key], technician_id: str | None) -> dict[Key, str]:
        rows = self._rows(BLOCKED, [*columns_of(keys), technician_id, technician_id])
        return {Key(entity, id): case_id for entity, id, case_id in rows}

    def waiting(self, keys: Collection[Key]) -> list[Waiting]:
        return [waiting_of(*row) for row in self._rows(AWAITING_RECORD, columns_of(keys))]

    def case(self, case_id: str) -> Case | None:
        rows = self._rows(LOCKED_CASE, [case_id])
        return case_of(rows[0]) if rows else None

    def case_waiting(self, case_id: str) -> list[Waiting]:
        return [waiting_of(*row) for row in self._rows(WAITING_IN_CASE, [case_id])]

    # -- the past -------------------------------------------------------------------------------------------------

    def times(self, seqs: Collection[int], versions: Collection[tuple[Key, int]]) -> Times:
        times = StoredTimes()
        if seqs:
            # A position ahead of the head stands for the newest push, as every one below it does.
            times.seqs.update({seq: at for seq, at in self._rows(TIMES_OF_SEQS, [[min(seq, LARGEST) for seq in seqs]])})
            times.seqs.update({seq: times.seqs[LARGEST] for seq in seqs if seq > LARGEST})
        if versions:
            listed = [(key, version) for key, version in versions if version <= LARGEST]
            entities, ids = [key.entity for key, _ in listed], [key.id for key, _ in listed]
            rows = self._rows(TIMES_OF_VERSIONS, [entities, ids, [version for _, version in listed]])
            times.versions.update({(Key(entity, id), version): at for entity, id, version, at in rows})
        return times

    def shown(self, wanted: Collection[tuple[Key, int, str]]) -> dict[tuple[Key, int, str], Any]:
        since: dict[Key, int] = {}
        for key, version, _ in wanted:
            since[key] = min(version, LARGEST, since.get(key, LARGEST))
        records = self.load((), since)
        behind = {key for key, version in since.items() if key in records and version < records[key].version}
        history = self._history(behind, since)
        found = {}
        for key, version, name in wanted:
            if key not in records:
                continue
            later = (e for e in history.get(key, ()) if e.version > version)
            before = [change["before"] for e in later for change in e.fields if change["name"] == name]
            found[key, version, name] = before[0] if before else records[key].data.get(name)
        return found

    def _history(self, keys: Collection[Key], since: dict[Key, int]) -> dict[Key, list[HistoryEntry]]:
        """What happened to each of `keys` after the version in `since`, oldest first."""
        if not keys:
            return {}
        entities, ids = columns_of(keys)
        versions = [since[Key(entity, id)] for entity, id in zip(entities, ids, strict=True)]
        history: dict[Key, list[HistoryEntry]] = {key: [] for key in keys}
        for (content,) in self._rows(PUSHES_SINCE, [entities, ids, versions]):
            for entry in history_in(content):
                if entry.key in history:
                    history[entry.key].append(entry)
        for entries in history.values():
            entries.sort(key=lambda entry: entry.version)
        return history


def _entries(push: Row) -> Iterator[LedgerEntry]:
    first_n, hashes, content = push
    for place, result in enumerate(results_in(content)):
        yield LedgerEntry(first_n + place, hashes[place * HASH_BYTES : (place + 1) * HASH_BYTES], result)


# -- the statements -----------------------------------------------------------------------------------------------

KEYS = "unnest(%s::text[], %s::text[]) AS key(entity, id)"

LOCKED_REPLICA = "SELECT replica, technician_id, last_n, last_at, sealed FROM replica WHERE replica = %s FOR UPDATE"
NEW_REPLICA = "INSERT INTO replica (replica, technician_id) VALUES (%s, %s) ON CONFLICT DO NOTHING"

OVERLAPPING = """
    SELECT first_n, hashes, content FROM push
     WHERE replica = %s AND last_n >= %s AND first_n <= %s ORDER BY first_n
"""

# By its own name, or by the one it was renamed to: the push that holds the mutation so named. Only among the replicas
# of one technician, whatever origin a device claims.
KNOWN_AS = """
    WITH asked AS (
           SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bytea[]) WITH ORDINALITY
               AS asked(replica, n, hash, place)),
         named AS (
           SELECT place, replica, n FROM asked
            UNION
           SELECT asked.place, renamed.replica, renamed.n FROM asked JOIN renamed
               ON renamed.origin_replica = asked.replica AND renamed.origin_n = asked.n AND renamed.hash = asked.hash)
    SELECT named.place, named.n, held.id, held.first_n, held.hashes, held.content
      FROM named
      JOIN replica ON replica.replica = named.replica AND replica.technician_id IS NOT DISTINCT FROM %s::text
     CROSS JOIN LATERAL (
           SELECT id, first_n, hashes, content FROM push
            WHERE push.replica = named.replica AND push.last_n >= named.n ORDER BY push.last_n LIMIT 1) AS held
     WHERE held.first_n <= named.n
     ORDER BY named.place, held.id
"""

# OFFSET 0 keeps the planner from turning these look-ups by index into one pass over the whole table, which it prefers
# because it expects the recursion to grow tenfold (0.3 s instead of 6 ms for 500 keys among 240,000 records).
#
# All the way up: a record cannot be placed in its scopes unless everything that they are read from is there.
ABOVE = f"""
    WITH RECURSIVE above (entity, id) AS (
           SELECT entity COLLATE "C", id COLLATE "C" FROM {KEYS}
            UNION
           SELECT split_part(ref, ':', 1), substr(ref, strpos(ref, ':') + 1)
             FROM above
            CROSS JOIN LATERAL (
                  SELECT refs FROM record WHERE record.entity = above.entity AND record.id = above.id OFFSET 0) AS held
            CROSS JOIN unnest(held.refs) AS ref)
    SELECT entity, id FROM above
"""

DEPENDANTS = """
    WITH near AS (
           SELECT held.entity, held.id FROM unnest(%s::text[]) AS ref
            CROSS JOIN LATERAL (SELECT entity, id FROM record WHERE refs @> ARRAY[ref] OFFSET 0) AS held),
         far AS (
           SELECT held.entity, held.id FROM near
            CROSS JOIN LATERAL (
                  SELECT entity, id FROM record WHERE refs @> ARRAY[near.entity || ':' || near.id] OFFSET 0) AS held)
    SELECT entity, id FROM near UNION SELECT entity, id FROM far
"""

LOCK_ABSENT = f"""
    INSERT INTO lock_key (key)
    SELECT key.entity || ':' || key.id FROM {KEYS}
     WHERE NOT EXISTS (SELECT FROM record WHERE record.entity = key.entity AND record.id = key.id)
     ORDER BY key.entity COLLATE "C", key.id COLLATE "C"
        ON CONFLICT DO NOTHING
"""
UNLIST_ABSENT = "DELETE FROM lock_key WHERE key = ANY(%s::text[])"

READ_RECORDS = f"SELECT {RECORD_COLUMNS} FROM record JOIN {KEYS} USING (entity, id)"
# The rows are sorted first and locked then, one by one, so two pushes with the same records never wait for each other.
LOCKED_RECORDS = f"{READ_RECORDS} ORDER BY record.entity, record.id FOR UPDATE OF record"

WITHIN = """
    SELECT DISTINCT key.entity, key.id, key.at
      FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS key(entity, id, at)
      JOIN membership ON membership.entity = key.entity AND membership.id = key.id
     WHERE membership.scope = ANY(%s::text[]) AND membership.since <= key.at
       AND (membership.until IS NULL OR key.at <= membership.until)
"""

BLOCKED = f"""
    SELECT DISTINCT ON (entity, id) entity, id, case_id
      FROM waiting_mutation JOIN {KEYS} USING (entity, id)
     WHERE state = 'waiting' AND op = 'create'
       AND (%s::text IS NULL OR doc -> 'actor' ->> 'technician_id' = %s::text)
       AND NOT EXISTS (SELECT FROM record WHERE record.entity = key.entity AND record.id = key.id)
     ORDER BY entity, id, replica, n
"""

_WAITING = "SELECT case_id, replica, waiting_mutation.doc FROM waiting_mutation"
AWAITING_RECORD = f"""
    {_WAITING} JOIN {KEYS} USING (entity, id) JOIN review_case ON review_case.id = waiting_mutation.case_id
     WHERE state = 'waiting' AND review_case.type = 'awaiting_record' ORDER BY replica, n
"""
WAITING_IN_CASE = f"{_WAITING} WHERE state = 'waiting' AND case_id = %s ORDER BY replica, n"

LOCKED_CASE = f"SELECT {CASE_COLUMNS} FROM review_case WHERE id = %s FOR UPDATE"

TIMES_OF_SEQS = """
    SELECT seq, coalesce((SELECT committed_at FROM push WHERE committed_seq <= asked.seq
                           ORDER BY committed_seq DESC LIMIT 1), 0)
      FROM unnest(%s::bigint[]) AS asked(seq)
"""

TIMES_OF_VERSIONS = """
    SELECT asked.entity, asked.id, asked.version, min(push.committed_at)
      FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS asked(entity, id, version)
      JOIN change ON change.entity = asked.entity AND change.id = asked.id AND change.version = asked.version
      JOIN push ON push.id = change.push
     GROUP BY asked.entity, asked.id, asked.version
"""

PUSHES_SINCE = """
    SELECT content FROM push WHERE id IN (
           SELECT change.push FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS asked(entity, id, version)
             JOIN change ON change.entity = asked.entity AND change.id = asked.id AND change.version > asked.version)
     ORDER BY id
"""
