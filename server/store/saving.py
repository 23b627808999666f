"""Writing what a unit of work changed: one statement per table, whatever the size of the batch.

The feed head comes last. It is one row, so from the moment it is taken until the commit every other writer waits: what
can be written before is, and what needs its number follows in a single statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import psycopg

from server.store.documents import pack, waiting_document
from server.store.engine import Contended
from server.store.rows import CASE_COLUMNS, case_of, case_row, record_row
from server.store.text import dumps
from sync.feed import MODULUS
from sync.mutation import content_hash
from sync.record import Key
from sync.store import Batch, Case, FeedRow, Tally, join_cases
from sync.validate import read_origin

CHANNEL = "backhaul"

Connection = psycopg.Connection[Any]


def save(connection: Connection, batch: Batch, epoch: int) -> int:
    """Write `batch`, whose versions were counted in feed epoch `epoch`. Returns the feed position that contains it."""
    _write_records(connection, batch)
    push = _write_changes(connection, batch)
    _write_cases(connection, batch)
    _write_waiting(connection, batch)
    _write_replica(connection, batch)
    _write_renamed(connection, batch)
    _write_membership(connection, batch)
    append_audit(connection, batch.now, batch.audit)
    return _announce(connection, batch, push, epoch)


# -- records and their history ------------------------------------------------------------------------------------

RECORDS = """
    INSERT INTO record (entity, id, version, data, meta, wire, deleted, scopes, refs, updated_at)
    SELECT entity, id, version, data, meta, wire, deleted, scopes, refs, updated_at
      FROM json_to_recordset(%s::json) AS row(
           entity text, id text, version bigint, data jsonb, meta text, wire text, deleted boolean, scopes text[],
           refs text[], updated_at bigint)
        ON CONFLICT (entity, id) DO UPDATE SET
           version = excluded.version, data = excluded.data, meta = excluded.meta, wire = excluded.wire,
           deleted = excluded.deleted, scopes = excluded.scopes, refs = excluded.refs, updated_at = excluded.updated_at
"""


def _write_records(connection: Connection, batch: Batch) -> None:
    if batch.records:
        rows = [record_row(record) for _, record in sorted(batch.records.items())]
        connection.execute(RECORDS, [dumps(rows)])


CHANGES = """
    WITH number AS (SELECT nextval(pg_get_serial_sequence('push', 'id')) AS push),
         written AS (
           INSERT INTO change (entity, id, version, push)
           SELECT row.entity, row.id, row.version, number.push
             FROM number, json_to_recordset(%s::json) AS row(entity text, id text, version bigint))
    SELECT push FROM number
"""


def _write_changes(connection: Connection, batch: Batch) -> int | None:
    """The number that the push will have, given here because the index of the history needs it; None if none is due."""
    if not batch.history and not batch.ledger:
        return None
    # A deletion that lost, for one, is history without a new version: several entries may share one.
    versions = sorted({(*entry.key, entry.version) for entry in batch.history})
    rows = [{"entity": entity, "id": id, "version": version} for entity, id, version in versions]
    return _one(connection.execute(CHANGES, [dumps(rows)]))


def _one(cursor: psycopg.Cursor[Any]) -> int:
    row = cursor.fetchone()
    assert row is not None, "the statement gives exactly one row"
    return int(row[0])


# -- review -------------------------------------------------------------------------------------------------------

CASES_LOCKED = f"SELECT {CASE_COLUMNS} FROM review_case WHERE id = ANY(%s::text[]) ORDER BY id FOR UPDATE"

CASES = """
    INSERT INTO review_case (id, type, status, impact, entity, record_id, scopes, fields, doc, technician_id, opened_at,
           opened_version, resolved_at, resolution, version)
    SELECT id, type, status, impact, entity, record_id, scopes, fields, doc, technician_id, opened_at,
           opened_version, resolved_at, resolution, version
      FROM json_to_recordset(%s::json) AS row(
           id text, type text, status text, impact integer, entity text, record_id text, scopes text[], fields jsonb,
           doc jsonb, technician_id text, opened_at bigint, opened_version bigint, resolved_at bigint,
           resolution jsonb, version integer)
        ON CONFLICT (id) DO UPDATE SET
           status = excluded.status, impact = excluded.impact, scopes = excluded.scopes, fields = excluded.fields,
           doc = excluded.doc, resolved_at = excluded.resolved_at, resolution = excluded.resolution,
           version = excluded.version
"""


def _write_cases(connection: Connection, batch: Batch) -> None:
    resolutions = dict(batch.resolved)
    touched = {*(case.id for case in batch.cases), *batch.superseded, *resolutions}
    if not touched:
        return
    held = {case.id: case for case in map(case_of, connection.execute(CASES_LOCKED, [sorted(touched)]).fetchall())}
    for case in batch.cases:
        held[case.id] = join_cases(held[case.id], case) if case.id in held else case
    settled = [
        _settle(case, resolutions.get(id), superseded=id in batch.superseded) for id, case in sorted(held.items())
    ]
    rows = [case_row(case, batch.records.get(Key(case.entity, case.record_id)), batch.now) for case in settled]
    connection.execute(CASES, [dumps(rows)])


def _settle(case: Case, resolution: Mapping[str, Any] | None, *, superseded: bool) -> Case:
    """The case once it is decided, by a person or because a rule came to it."""
    if resolution is not None:
        return replace(case, status="resolved", resolution=resolution, version=case.version + 1)
    return replace(case, status="resolved") if superseded else case


WAITING = """
    INSERT INTO waiting_mutation (replica, n, case_id, entity, id, op, doc, state)
    SELECT replica, n, case_id, entity, id, op, doc, 'waiting'
      FROM json_to_recordset(%s::json) AS row(
           replica text, n bigint, case_id text, entity text, id text, op text, doc jsonb)
        ON CONFLICT (replica, n) DO UPDATE SET case_id = excluded.case_id, doc = excluded.doc, state = 'waiting'
"""

NO_LONGER_WAITING = """
    UPDATE waiting_mutation SET state = row.state
      FROM json_to_recordset(%s::json) AS row(replica text, n bigint, state text)
     WHERE waiting_mutation.replica = row.replica AND waiting_mutation.n = row.n
"""


def _write_waiting(connection: Connection, batch: Batch) -> None:
    if batch.waiting:
        rows: list[dict[str, Any]] = [
            {
                "replica": waiting.replica, "n": waiting.mutation.n, "case_id": waiting.case_id,
                "entity": waiting.mutation.entity, "id": waiting.mutation.id, "op": waiting.mutation.op,
                "doc": waiting_document(waiting),
            }
            for waiting in batch.waiting
        ]  # fmt: skip
        connection.execute(WAITING, [dumps(rows)])
    settled = {**dict.fromkeys(batch.released, "applied"), **dict.fromkeys(batch.dropped, "dropped")}
    if settled:
        rows = [{"replica": replica, "n": n, "state": state} for (replica, n), state in settled.items()]
        connection.execute(NO_LONGER_WAITING, [dumps(rows)])


# -- who sent it --------------------------------------------------------------------------------------------------

REPLICA = """
    INSERT INTO replica (replica, technician_id, device_id, last_n, last_at, sealed, first_seen)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (replica) DO UPDATE SET
           device_id = coalesce(excluded.device_id, replica.device_id), last_n = excluded.last_n,
           last_at = excluded.last_at, sealed = excluded.sealed,
           first_seen = coalesce(replica.first_seen, excluded.first_seen)
"""


def _write_replica(connection: Connection, batch: Batch) -> None:
    state = batch.replica
    if state is None:
        return
    kind, _, id = batch.actor.name.partition(":")
    device = id if kind == "device" else None
    values = [state.replica, state.technician_id, device, state.last_n, state.last_at, state.sealed, batch.now]
    connection.execute(REPLICA, values)


RENAMED = """
    INSERT INTO renamed (origin_replica, origin_n, hash, replica, n)
    SELECT origin_replica, origin_n, decode(hash, 'hex'), replica, n
      FROM json_to_recordset(%s::json) AS row(
           origin_replica text, origin_n bigint, hash text, replica text, n bigint)
        ON CONFLICT DO NOTHING
"""


def _write_renamed(connection: Connection, batch: Batch) -> None:
    """Under which name a mutation came that had another one first. All others are found by their own."""
    rows = [
        {
            "origin_replica": origin.replica, "origin_n": origin.n, "hash": content_hash(body).hex(),
            "replica": batch.replica.replica, "n": entry.n,
        }
        for entry, body in zip(batch.ledger, batch.bodies, strict=True)
        if batch.replica and (origin := read_origin(body.get("origin")))
    ]  # fmt: skip
    if rows:
        connection.execute(RENAMED, [dumps(rows)])


# -- who may see it -----------------------------------------------------------------------------------------------

JOINED = """
    INSERT INTO membership (entity, id, scope, since)
    SELECT entity, id, scope, %s FROM json_to_recordset(%s::json) AS row(entity text, id text, scope text)
        ON CONFLICT (entity, id, scope, since) DO UPDATE SET until = NULL
"""

LEFT = """
    UPDATE membership SET until = %s
      FROM json_to_recordset(%s::json) AS row(entity text, id text, scope text)
     WHERE membership.entity = row.entity AND membership.id = row.id AND membership.scope = row.scope
       AND membership.until IS NULL
"""


def _write_membership(connection: Connection, batch: Batch) -> None:
    joined = [row for row in batch.feed if row.op == "put" and not _was_inside(batch, row)]
    left = [row for row in batch.feed if row.op != "put"]
    for statement, rows in ((JOINED, joined), (LEFT, left)):
        if rows:
            listed = [{"entity": row.entity, "id": row.id, "scope": row.scope} for row in rows]
            connection.execute(statement, [batch.now, dumps(listed)])


def _was_inside(batch: Batch, row: FeedRow) -> bool:
    before = batch.before.get(Key(row.entity, row.id))
    return before is not None and before.deleted is None and row.scope in before.scopes


AUDIT = """
    INSERT INTO audit (at, actor, action, subject, detail, correlation_id)
    SELECT %s, actor, action, coalesce(subject, ''), coalesce(detail, '{}'), correlation_id
      FROM json_to_recordset(%s::json) AS row(
           actor text, action text, subject text, detail jsonb, correlation_id text)
"""


def append_audit(connection: Connection, now: int, entries: Iterable[Mapping[str, Any]]) -> None:
    """Add entries `{actor, action, subject, detail, correlation_id}` to the audit, at `now` (ms)."""
    rows = list(entries)
    if rows:
        connection.execute(AUDIT, [now, dumps(rows)])


# -- the feed, last -----------------------------------------------------------------------------------------------

HEAD = "SELECT seq FROM feed_head"
TAKE_HEAD = "UPDATE feed_head SET seq = seq + %s, at = %s RETURNING seq"

# The only statements that hold up other writers; so it is one, and it holds nothing that could have been done before.
ANNOUNCE = f"""
    WITH fed AS (
           INSERT INTO feed (scope, entity, id, seq, op)
           SELECT scope, entity, id, %(start)s + place, op
             FROM json_to_recordset(%(feed)s::json) AS row(
                  scope text, entity text, id text, op text, place bigint)
               ON CONFLICT (scope, entity, id) DO UPDATE SET seq = excluded.seq, op = excluded.op),
         counted AS (
           INSERT INTO scope_head (scope, seq, live, checksum)
           SELECT scope, %(start)s + place, live, checksum
             FROM json_to_recordset(%(scopes)s::json) AS row(
                  scope text, place bigint, live bigint, checksum numeric)
               ON CONFLICT (scope) DO UPDATE SET
                  seq = greatest(scope_head.seq, excluded.seq), live = scope_head.live + excluded.live,
                  checksum = mod(scope_head.checksum + excluded.checksum, {MODULUS})),
         pushed AS (
           INSERT INTO push (id, replica, first_n, last_n, committed_seq, committed_at, actor, hashes, content)
           SELECT %(push)s::bigint, %(replica)s::text, %(first_n)s::bigint, %(last_n)s::bigint, %(seq)s::bigint,
                  %(now)s::bigint, %(actor)s::text, %(hashes)s::bytea, %(content)s::bytea
            WHERE %(push)s::bigint IS NOT NULL)
    SELECT number, pg_notify('{CHANNEL}', (%(seq)s::bigint)::text) FROM feed_epoch
"""


def _announce(connection: Connection, batch: Batch, push: int | None, epoch: int) -> int:
    rows = list({(row.scope, row.entity, row.id): row for row in batch.feed}.values())
    if not rows and not batch.tallies and push is None:
        return _one(connection.execute(HEAD))
    values = {
        "push": push, "now": batch.now, "actor": batch.actor.name, **_ledger_columns(batch, push),
        "feed": dumps([{**row._asdict(), "place": place} for place, row in enumerate(rows, 1)]),
        "scopes": dumps(_scope_rows(rows, batch.tallies)),
    }  # fmt: skip
    # A push that changed no record moves the head too: otherwise a backup taken before it, at the same position, would
    # count as containing it.
    step = max(len(rows), 1)
    seq = _one(connection.execute(TAKE_HEAD, [step, batch.now]))
    number = _one(connection.execute(ANNOUNCE, {**values, "seq": seq, "start": seq - step}))
    if number != epoch:
        raise Contended("The feed epoch was rotated while this was written.")
    return seq


def _scope_rows(rows: list[FeedRow], tallies: Mapping[str, Tally]) -> list[dict[str, Any]]:
    """Per scope: its last feed row in this batch, and how its live rows changed."""
    places = {row.scope: place for place, row in enumerate(rows, 1)}
    return [
        {"scope": scope, "place": places.get(scope, 0), "live": tally.count, "checksum": tally.checksum}
        for scope in sorted({*places, *tallies})
        for tally in [tallies.get(scope, Tally(0, 0))]
    ]


def _ledger_columns(batch: Batch, push: int | None) -> dict[str, Any]:
    ledger = batch.ledger
    replica = batch.replica.replica if batch.replica and ledger else None
    content = None
    if push is not None:
        content = pack(batch.bodies, [entry.result for entry in ledger], batch.history)
    return {
        "replica": replica,
        "first_n": ledger[0].n if ledger else None,
        "last_n": ledger[-1].n if ledger else None,
        "hashes": b"".join(entry.hash for entry in ledger) if ledger else None,
        "content": content,
    }
