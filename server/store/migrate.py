"""Bring a database up to date: the tables by `migrations/`, then one view per entity for reports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, create_engine, text

import migrations
from server.store.engine import foreign_errors
from sync.entities import ENTITY_TYPES
from sync.entity import ANY_ENTITY, EntityType, Field

REPORT_LOCK = 7_042_002  # the advisory lock under which the views are made anew


def upgrade(url: str) -> None:
    """Run the migrations that are missing, then make the views of the schema `report` anew. Safe to run at any time."""
    move(url, "head")
    engine = create_engine(url, poolclass=NullPool)
    with foreign_errors(), engine.begin() as connection:
        _make_views(connection)


def move(url: str, revision: str) -> None:
    """Migrate to a revision: "head", "base", a number, "+1" or "-1"."""
    config, engine = _config(), create_engine(url, poolclass=NullPool)
    with foreign_errors(), engine.connect() as connection:
        config.attributes["connection"] = connection
        if revision == "base" or revision.startswith("-"):
            # The views read the tables, so a step back would be refused because of them.
            connection.execute(text("DROP SCHEMA IF EXISTS report CASCADE"))
            connection.commit()
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)


def is_current(url: str) -> bool:
    """Has the database run every migration that this code knows?"""
    with foreign_errors(), create_engine(url, poolclass=NullPool).connect() as connection:
        return is_migrated(connection)


def is_migrated(connection: Connection) -> bool:
    """The same for an open connection."""
    heads = ScriptDirectory.from_config(_config()).get_heads()
    return set(MigrationContext.configure(connection).get_current_heads()) == set(heads)


def _config() -> Config:
    config = Config()
    # The folder of the package, wherever it was installed to.
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    return config


# -- reports ------------------------------------------------------------------------------------------------------


def _make_views(connection: Connection) -> None:
    """One view per entity, with a typed column per field; deleted records are left out."""
    connection.execute(text("SET LOCAL lock_timeout = '2s'"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": REPORT_LOCK})
    connection.execute(text("DROP SCHEMA IF EXISTS report CASCADE"))
    connection.execute(text("CREATE SCHEMA report"))
    for entity in ENTITY_TYPES.values():
        connection.exec_driver_sql(view_sql(entity).replace("%", "%%"))


def view_sql(entity: EntityType) -> str:
    """The statement that makes an entity's view. Names come from the declarations, so quoting them is enough."""
    columns = [column for field in entity.fields.values() for column in _columns(field)]
    taken = {name for name, _ in columns}
    beside = [("version", "version"), ("updated_at", "to_timestamp(updated_at / 1000.0)")]
    columns += [(f"record_{name}" if name in taken else name, source) for name, source in beside]
    listed = ",\n  ".join(f'{source} AS "{name}"' for name, source in columns)
    return (
        f'CREATE VIEW report."{entity.name}" AS SELECT\n  id,\n  {listed}\n'
        f"FROM public.record WHERE entity = '{entity.name}' AND NOT deleted"
    )


_CASTS = {
    "integer": "::bigint",
    "decimal": "::numeric",
    "boolean": "::boolean",
    "moment": "::timestamptz",
    "date": "::date",
}


def _columns(field: Field) -> Iterator[tuple[str, str]]:
    """The name and source of each column that a field gives."""
    if field.type in ("set", "log", "object"):
        yield field.name, f"data -> '{field.name}'"
    elif field.type == "reference" and field.target == ANY_ENTITY:
        yield f"{field.name}_entity", f"data -> '{field.name}' ->> 'entity'"
        yield f"{field.name}_id", f"data -> '{field.name}' ->> 'id'"
    else:
        yield field.name, f"(data ->> '{field.name}'){_CASTS.get(field.type, '')}"
