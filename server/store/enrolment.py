"""Devices, the codes that enrol them, their families of refresh tokens, and the clients of integrations."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Select,
    case,
    func,
    insert,
    literal,
    select,
    text,
    update,
)

from server.store.engine import reading, transaction
from server.store.keyset import Window, keyset, within
from server.store.migrate import is_migrated
from server.store.saving import append_audit
from server.store.tables import (
    client,
    device,
    enrolment_code,
    feed_epoch,
    record,
    refresh_family,
    replica,
    review_case,
    scope_head,
)
from server.store.text import dumps

CATALOG = "catalog:all"

Database = Engine
"""What `transaction` opens."""

Transaction = Connection
"""One transaction, as the functions here take it."""


def device_scopes(technician_id: str, depot_id: str | None) -> tuple[str, ...]:
    """What a device of this technician holds: exactly these, taken from the technician's record each time."""
    return (f"tech:{technician_id}", *((f"stock:{depot_id}",) if depot_id else ()), CATALOG)


@dataclass(frozen=True, slots=True)
class DeviceAccess:
    """What decides what a device may do."""

    technician_id: str
    scopes: tuple[str, ...]
    revoked: Literal["retired", "lost"] | None


class Technician(NamedTuple):
    """A technician's record, as far as enrolling needs it."""

    scopes: tuple[str, ...]
    depot_id: str | None


class Family(NamedTuple):
    """Refresh tokens that follow one another. counter: of the newest one issued. revoked_at: ms."""

    device_id: str
    technician_id: str
    counter: int
    revoked_at: int | None


_technician = (
    select(record.c.data["depot_id"].astext.label("depot_id"), record.c.scopes, record.c.id)
    .where(record.c.entity == "technician", ~record.c.deleted)
    .subquery("technician")
)


def device_access(engine: Engine, device_id: str) -> DeviceAccess | None:
    """A device's scopes and whether it is revoked, in one statement; None if there is none."""
    with reading(engine) as connection:
        return find_device_access(connection, device_id)


def find_device_access(connection: Connection, device_id: str) -> DeviceAccess | None:
    """The same within a transaction."""
    row = connection.execute(
        select(device.c.technician_id, device.c.revoked, _technician.c.depot_id)
        .select_from(device.outerjoin(_technician, _technician.c.id == device.c.technician_id))
        .where(device.c.id == device_id)
    ).one_or_none()
    if row is None:
        return None
    return DeviceAccess(row.technician_id, device_scopes(row.technician_id, row.depot_id), row.revoked)


def find_technician(connection: Connection, technician_id: str) -> Technician | None:
    """The technician, None if there is no such record."""
    row = connection.execute(
        select(_technician.c.scopes, _technician.c.depot_id).where(_technician.c.id == technician_id)
    ).one_or_none()
    return Technician(tuple(row.scopes), row.depot_id) if row else None


def audit(connection: Connection, now: int, entry: Mapping[str, Any]) -> None:
    """Add an entry `{actor, action, subject, detail, correlation_id}` to the audit, at `now` (ms)."""
    driver: Any = connection.connection.driver_connection
    append_audit(driver, now, [entry])


def is_ready(engine: Engine) -> bool:
    """Has the database run every migration that this code knows? Raises Unavailable if it does not answer."""
    with reading(engine) as connection:
        return is_migrated(connection)


def current_epoch(connection: Connection) -> int:
    """The number of the feed epoch."""
    return int(connection.execute(select(feed_epoch.c.number)).scalar_one())


# -- enrolling ----------------------------------------------------------------------------------------------------


def add_code(connection: Connection, hash: bytes, technician_id: str, note: str | None, expires_at: int) -> None:
    """Store a code by its hash."""
    connection.execute(
        insert(enrolment_code).values(hash=hash, technician_id=technician_id, note=note, expires_at=expires_at)
    )


def take_code(connection: Connection, hash: bytes, now: int) -> str | None:
    """Whose code it is, once: it is used from now on. None if it is unknown, used or expired."""
    taken: str | None = connection.execute(
        update(enrolment_code)
        .where(enrolment_code.c.hash == hash, enrolment_code.c.used_at.is_(None), enrolment_code.c.expires_at > now)
        .values(used_at=now)
        .returning(enrolment_code.c.technician_id)
    ).scalar_one_or_none()
    return taken


def add_device(connection: Connection, values: Mapping[str, Any]) -> None:
    """A new row of `device`."""
    connection.execute(insert(device).values(**values))


def add_family(connection: Connection, family: str, device_id: str, technician_id: str, counter: int) -> None:
    """A new family whose newest token has this counter."""
    connection.execute(
        insert(refresh_family).values(
            id=family, device_id=device_id, technician_id=technician_id, counter=counter, used=False
        )
    )


def lock_family(connection: Connection, family: str) -> Family | None:
    """The family, locked; None if it is not known. Who presents an unknown one waits for others who do."""
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"family:{family}", 0))))
    row = connection.execute(
        select(
            refresh_family.c.device_id,
            refresh_family.c.technician_id,
            refresh_family.c.counter,
            refresh_family.c.revoked_at,
        )
        .where(refresh_family.c.id == family)
        .with_for_update()
    ).one_or_none()
    return Family(*row) if row else None


def advance_family(connection: Connection, family: str, counter: int) -> None:
    """Its newest token has this counter now."""
    connection.execute(update(refresh_family).where(refresh_family.c.id == family).values(counter=counter))


def revoke_family(connection: Connection, family: str, now: int) -> None:
    """None of its tokens is good any more."""
    connection.execute(update(refresh_family).where(refresh_family.c.id == family).values(revoked_at=now))


def revoke_device(connection: Connection, device_id: str, reason: str, now: int) -> None:
    """It may not connect any more. After `lost`, what its replicas still send is parked whole."""
    connection.execute(
        update(device)
        .where(device.c.id == device_id)
        # What was lost does not become merely retired by saying so later.
        .values(
            revoked=case((device.c.revoked == "lost", literal("lost")), else_=reason),
            revoked_at=func.coalesce(device.c.revoked_at, now),
        )
    )
    connection.execute(
        update(refresh_family)
        .where(refresh_family.c.device_id == device_id, refresh_family.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    if reason == "lost":
        connection.execute(update(replica).where(replica.c.device_id == device_id).values(sealed=True))


# -- clients of integrations --------------------------------------------------------------------------------------


class Client(NamedTuple):
    """An integration that gets tokens for a secret."""

    id: str
    secret_hash: bytes
    role: str
    system: str | None
    scopes: tuple[str, ...]
    revoked_at: int | None


def find_client(connection: Connection, client_id: str) -> Client | None:
    """The client, None if there is none."""
    row = connection.execute(
        select(
            client.c.id, client.c.secret_hash, client.c.role, client.c.system, client.c.scopes, client.c.revoked_at
        ).where(client.c.id == client_id)
    ).one_or_none()
    return Client(row.id, row.secret_hash, row.role, row.system, tuple(row.scopes), row.revoked_at) if row else None


def add_client(connection: Connection, values: Mapping[str, Any]) -> None:
    """A new row of `client`."""
    connection.execute(insert(client).values(**values))


# -- figures ------------------------------------------------------------------------------------------------------

SORTABLE: dict[str, Column[Any]] = {
    name: device.c[name] for name in ("id", "name", "technician_id", "enrolled_at", "last_seen", "last_push_at")
}
FILTERABLE: dict[str, Column[Any]] = {
    name: device.c[name] for name in ("id", "name", "technician_id", "platform", "app_version", "revoked")
}


def list_devices(
    engine: Engine, scopes: Collection[str], filters: Mapping[str, str], window: Window
) -> list[Mapping[str, Any]]:
    """Devices of technicians that a holder of `scopes` sees, with their figures; one more than the limit if there
    are more."""
    wanted = [FILTERABLE[name] == value for name, value in filters.items()]
    rows = _figures().where(within(_technician.c.scopes, scopes), *wanted)
    return _read(engine, keyset(rows, SORTABLE[window.sort], device.c.id, window))


def find_device(engine: Engine, scopes: Collection[str], device_id: str) -> Mapping[str, Any] | None:
    """One device with its figures; None if a holder of `scopes` sees none of that id."""
    rows = _read(engine, _figures().where(within(_technician.c.scopes, scopes), device.c.id == device_id))
    return rows[0] if rows else None


def _read(engine: Engine, rows: Select[Any]) -> list[Mapping[str, Any]]:
    with reading(engine) as connection:
        return [dict(row) for row in connection.execute(rows).mappings()]


def _figures() -> Select[Any]:
    """Devices, their technicians' depots, how far their scopes have come, and what of theirs waits for a person."""
    waiting = (
        select(func.count().label("parked_count"), func.min(review_case.c.opened_at).label("oldest_parked_at"))
        .where(
            review_case.c.status != "resolved",
            review_case.c.doc["evidence"]["sender"].astext == func.concat("device:", device.c.id),
        )
        .lateral("waiting")
    )
    head = (
        select(func.max(scope_head.c.seq).label("head"))
        .where(
            scope_head.c.scope.in_(
                [
                    func.concat("tech:", device.c.technician_id),
                    func.concat("stock:", _technician.c.depot_id),
                    literal(CATALOG),
                ]
            )
        )
        .lateral("head")
    )
    joined = (
        device.outerjoin(_technician, _technician.c.id == device.c.technician_id)
        .join(waiting, literal(True))
        .join(head, literal(True))
    )
    return select(
        device,
        _technician.c.depot_id,
        waiting.c.parked_count,
        waiting.c.oldest_parked_at,
        head.c.head,
    ).select_from(joined)


def replica_owner(engine: Engine, name: str) -> str | None:
    """Whose replica it is, None if it never pushed."""
    with reading(engine) as connection:
        owner: str | None = connection.execute(
            select(replica.c.technician_id).where(replica.c.replica == name)
        ).scalar_one_or_none()
    return owner


SIGHTINGS = text("""
    WITH new AS (
           SELECT * FROM json_to_recordset(CAST(:sightings AS json)) AS row(
                  device_id text, seen_at bigint, pulled_at bigint, pushed_at bigint, cursor_seq bigint,
                  clock_skew_ms bigint, app_version text)),
         locked AS (
           SELECT id FROM device WHERE id IN (SELECT device_id FROM new) ORDER BY id FOR UPDATE)
    UPDATE device SET
           last_seen = greatest(last_seen, new.seen_at), last_pull_at = greatest(last_pull_at, new.pulled_at),
           last_push_at = greatest(last_push_at, new.pushed_at),
           cursor_seq = coalesce(new.cursor_seq, device.cursor_seq),
           clock_skew_ms = coalesce(new.clock_skew_ms, device.clock_skew_ms),
           app_version = coalesce(new.app_version, device.app_version)
      FROM locked JOIN new ON new.device_id = locked.id
     WHERE device.id = locked.id
""")


def write_sightings(engine: Engine, sightings: Sequence[Mapping[str, Any]]) -> None:
    """New figures of many devices in one statement. Rows are locked in order, so two processes never wait crosswise."""
    with transaction(engine) as connection:
        connection.execute(SIGHTINGS, {"sightings": dumps(sightings)})
