"""The migrations, on a real database."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import NullPool, create_engine, text

from server.store.migrate import is_current, move, upgrade
from server.store.tables import metadata
from sync.entities import ENTITY_TYPES
from tests.support.postgres import plain_url

ROOT = Path(__file__).parents[2]

# What alembic does not compare: collations, checks, predicates of indexes, storage parameters.
CATALOG = """
    SELECT 'column ' || table_name || '.' || column_name,
           concat_ws(' ', data_type, udt_name, collation_name, is_nullable, column_default, is_identity)
      FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL
    SELECT 'constraint ' || conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
      FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
    UNION ALL
    SELECT 'index ' || indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT 'table ' || relname, concat_ws(' ', reloptions::text, obj_description(oid))
      FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
"""


@pytest.fixture
def url(make_database: Callable[[], str]) -> str:
    return make_database()


@pytest.fixture
def migrated(url: str) -> str:
    upgrade(url)
    return url


@pytest.fixture
def connection(migrated: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(plain_url(migrated), autocommit=True) as opened:
        yield opened


def catalog(url: str) -> dict[str, str]:
    with psycopg.connect(plain_url(url)) as opened:
        rows = opened.execute(CATALOG).fetchall()
    return {name: value for name, value in rows if "alembic_version" not in name}


def test_an_empty_database_is_not_current_and_is_after_the_upgrade(url: str) -> None:
    assert not is_current(url)

    upgrade(url)

    assert is_current(url)


def test_the_upgrade_may_run_again(migrated: str) -> None:
    upgrade(migrated)

    assert is_current(migrated)


def test_the_tables_are_those_that_the_code_declares(migrated: str) -> None:
    with create_engine(migrated, poolclass=NullPool).connect() as opened:
        context = MigrationContext.configure(opened, opts={"compare_type": True, "compare_server_default": True})

        assert compare_metadata(context, metadata) == []


def test_the_catalog_is_the_same_as_when_the_declared_tables_are_made_directly(
    migrated: str, make_database: Callable[[], str]
) -> None:
    declared = make_database()
    engine = create_engine(declared, poolclass=NullPool)
    metadata.create_all(engine)

    assert catalog(migrated) == catalog(declared)


def test_downgrading_to_base_leaves_nothing_and_the_way_up_is_open_again(migrated: str) -> None:
    move(migrated, "base")

    assert catalog(migrated) == {}
    with psycopg.connect(plain_url(migrated)) as opened:
        functions = opened.execute("SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace").fetchall()
    assert functions == []
    upgrade(migrated)
    assert is_current(migrated)


def test_three_processes_may_migrate_at_once(url: str) -> None:
    code = f"from server.store.migrate import upgrade; upgrade({url!r})"
    started = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) for _ in range(3)]

    assert [process.wait(timeout=60) for process in started] == [0, 0, 0]
    assert is_current(url)


def test_a_long_reader_delays_the_migration_but_does_not_fail_it(migrated: str) -> None:
    with psycopg.connect(plain_url(migrated)) as reader:
        reader.execute("SELECT count(*) FROM audit")
        thread = threading.Thread(target=move, args=(migrated, "base"))
        thread.start()
        time.sleep(2.5)  # longer than one try waits for the lock
        with psycopg.connect(plain_url(migrated)) as other:
            # Between two tries others pass; a migration that waited on would hold them up.
            other.execute("SET lock_timeout = '3s'")
            other.execute("SELECT count(*) FROM audit")
        assert thread.is_alive()
    thread.join(timeout=30)

    assert not thread.is_alive()
    assert not is_current(migrated)


def test_every_entity_has_a_view_for_reports(connection: psycopg.Connection) -> None:
    views = connection.execute("SELECT viewname FROM pg_views WHERE schemaname = 'report'").fetchall()

    assert {name for (name,) in views} == set(ENTITY_TYPES)


def test_a_report_has_typed_columns_and_leaves_deleted_records_out(connection: psycopg.Connection) -> None:
    insert = """
        INSERT INTO record (entity, id, version, data, meta, wire, deleted, scopes, refs, updated_at)
        VALUES ('work_order', %s, 3, %s, '{}', '', %s, '{}', '{}', 1700000000123)
    """
    values = '{"meter_reading": "120.50", "scheduled_start": "2026-11-20T10:00:00+01:00", "tags": ["a"], "title": "%"}'
    connection.execute(insert, ["WO-1", values, False])
    connection.execute(insert, ["WO-2", values, True])

    rows = connection.execute(
        "SELECT id, title, meter_reading * 2, scheduled_start AT TIME ZONE 'UTC', tags ->> 0, version, updated_at"
        " FROM report.work_order"
    ).fetchall()

    ((id, title, meter, start, tag, version, updated_at),) = rows
    assert (id, title, str(meter), tag, version) == ("WO-1", "%", "241.00", "a", 3)
    assert start.isoformat() == "2026-11-20T09:00:00"
    assert round(updated_at.timestamp() * 1000) == 1700000000123


def test_the_audit_can_only_grow(connection: psycopg.Connection) -> None:
    connection.execute("INSERT INTO audit (at, actor, action, subject, detail) VALUES (1, 'a', 'b', 'c', '{}')")

    for forbidden in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit", "TRUNCATE audit"):
        with pytest.raises(psycopg.errors.RestrictViolation):
            connection.execute(forbidden)


def test_alembics_own_command_finds_the_steps(migrated: str) -> None:
    command = [sys.executable, "-m", "alembic", "check"]

    environ = {**os.environ, "DATABASE_URL": migrated}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "No new upgrade operations detected" in done.stdout


def test_a_single_row_table_cannot_get_a_second_row(migrated: str) -> None:
    with create_engine(migrated, poolclass=NullPool).connect() as opened:
        assert opened.execute(text("SELECT seq FROM feed_head")).all() == [(0,)]
        assert opened.execute(text("SELECT number, durable_seq FROM feed_epoch")).all() == [(0, 0)]
