"""The tables, as SQLAlchemy Core metadata. `migrations/` makes them; a test holds the two together.

Every moment is milliseconds since the Unix epoch, in UTC. Columns that locks and feeds are ordered by use the collation
"C", so that PostgreSQL sorts as Python does.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)


def _key(name: str, **more: Any) -> Column[Any]:
    """Part of a name by which rows are found, sorted and locked."""
    return Column(name, Text(collation="C"), nullable=more.pop("nullable", False), **more)


def _ms(name: str, *, required: bool = False) -> Column[Any]:
    return Column(name, BigInteger, nullable=not required)


def _one_of(name: str, *words: str) -> CheckConstraint:
    choices = ", ".join(f"'{word}'" for word in words)
    return CheckConstraint(f"{name} IN ({choices})", name=name)


def _only_row() -> Column[Any]:
    """The key of a table with exactly one row."""
    return Column("one", Boolean, CheckConstraint("one", name="only"), primary_key=True, server_default=text("true"))


# -- records and who gets them ------------------------------------------------------------------------------------

record = Table(
    "record",
    metadata,
    _key("entity"),
    _key("id"),
    Column("version", BigInteger, nullable=False),
    Column("data", JSONB, nullable=False, comment="the values, for queries and reports"),
    Column("meta", Text, nullable=False, comment="merge metadata; see server/store/meta.py"),
    Column("wire", Text, nullable=False, comment="version, clock and data as JSON text, ready for a pull"),
    Column("deleted", Boolean, nullable=False),
    Column("scopes", ARRAY(Text(collation="C")), nullable=False),
    Column(
        "refs", ARRAY(Text(collation="C")), nullable=False, comment="entity:id of the records its scopes are read from"
    ),
    _ms("updated_at", required=True),
    PrimaryKeyConstraint("entity", "id"),
    # Not by way of a pending list, which every search would have to read through.
    Index("ix_record_refs", "refs", postgresql_using="gin", postgresql_with={"fastupdate": "off"}),
    # Room in each page for the next version of its rows: no index has to change then.
    postgresql_with={"fillfactor": "85"},
)

feed = Table(
    "feed",
    metadata,
    _key("scope"),
    _key("entity"),
    _key("id"),
    Column("seq", BigInteger, nullable=False),
    Column("op", Text, _one_of("op", "put", "delete", "evict"), nullable=False),
    PrimaryKeyConstraint("scope", "entity", "id"),
    Index("ix_feed_scope_seq", "scope", "seq"),
    postgresql_with={"fillfactor": "85"},
)

feed_head = Table(
    "feed_head",
    metadata,
    _only_row(),
    Column("seq", BigInteger, nullable=False),
    _ms("at", required=True),
    postgresql_with={"fillfactor": "10"},
)

scope_head = Table(
    "scope_head",
    metadata,
    _key("scope", primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("live", BigInteger, nullable=False),
    Column("checksum", Numeric(20, 0), nullable=False, comment="of the live rows, modulo 2^64"),
    postgresql_with={"fillfactor": "50"},
)

feed_epoch = Table(
    "feed_epoch",
    metadata,
    _only_row(),
    Column("number", BigInteger, nullable=False),
    Column("id", Text, nullable=False),
    _ms("rotated_at"),
    Column("durable_seq", BigInteger, nullable=False, server_default=text("0")),
    Column("purged_seq", BigInteger, nullable=False, server_default=text("0")),
)

membership = Table(
    "membership",
    metadata,
    _key("entity"),
    _key("id"),
    _key("scope"),
    _ms("since", required=True),
    _ms("until"),
    PrimaryKeyConstraint("entity", "id", "scope", "since"),
)

lock_key = Table(
    "lock_key",
    metadata,
    _key("key", primary_key=True),
    comment="locks on records that do not exist yet; its rows never outlive the transaction that made them",
)

# -- pushes and their history -------------------------------------------------------------------------------------

replica = Table(
    "replica",
    metadata,
    _key("replica", primary_key=True),
    Column("technician_id", Text),
    Column("device_id", Text),
    Column("last_n", BigInteger, nullable=False, server_default=text("0")),
    Column("last_at", BigInteger, nullable=False, server_default=text("0")),
    Column("sealed", Boolean, nullable=False, server_default=text("false")),
    _ms("first_seen"),
    Index("ix_replica_device_id", "device_id"),
    postgresql_with={"fillfactor": "85"},
)

push = Table(
    "push",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _key("replica", nullable=True, comment="null: written at the office"),
    Column("first_n", BigInteger),
    Column("last_n", BigInteger),
    Column("committed_seq", BigInteger, nullable=False),
    _ms("committed_at", required=True),
    Column("actor", Text, nullable=False),
    Column("hashes", LargeBinary, comment="32 bytes for each n"),
    Column("content", LargeBinary, nullable=False, comment="bodies, results and history: JSON under zstd"),
    UniqueConstraint("replica", "first_n"),
    Index("ix_push_replica_last_n", "replica", "last_n"),
    Index("ix_push_committed_seq", "committed_seq"),
)

change = Table(
    "change",
    metadata,
    _key("entity"),
    _key("id"),
    Column("version", BigInteger, nullable=False),
    Column("push", BigInteger, nullable=False),
    PrimaryKeyConstraint("entity", "id", "version", "push"),
    comment="which push holds the history of a version",
)

renamed = Table(
    "renamed",
    metadata,
    _key("origin_replica"),
    Column("origin_n", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    _key("replica"),
    Column("n", BigInteger, nullable=False),
    PrimaryKeyConstraint("origin_replica", "origin_n", "hash"),
)

# -- review -------------------------------------------------------------------------------------------------------

review_case = Table(
    "review_case",
    metadata,
    _key("id", primary_key=True),
    Column("type", Text, nullable=False),
    Column(
        "status",
        Text,
        _one_of("status", "open", "claimed", "resolved", "reopened"),
        nullable=False,
    ),
    Column("impact", Integer, nullable=False),
    _key("entity"),
    _key("record_id"),
    Column("scopes", ARRAY(Text(collation="C")), nullable=False),
    Column("fields", JSONB, nullable=False),
    Column("doc", JSONB, nullable=False, comment="base, current, incoming, evidence"),
    Column("technician_id", Text),
    _ms("opened_at", required=True),
    Column("opened_version", BigInteger),
    Column("claimed_by", Text),
    _ms("claimed_until"),
    _ms("resolved_at"),
    Column("resolution", JSONB),
    Column("version", Integer, nullable=False),
    Index("ix_review_case_status_impact_id", "status", "impact", "id"),
    Index("ix_review_case_entity_record_id", "entity", "record_id"),
)

waiting_mutation = Table(
    "waiting_mutation",
    metadata,
    _key("replica"),
    Column("n", BigInteger, nullable=False),
    _key("case_id"),
    _key("entity"),
    _key("id"),
    Column("op", Text, nullable=False),
    Column("doc", JSONB, nullable=False),
    Column("state", Text, _one_of("state", "waiting", "applied", "dropped"), nullable=False),
    PrimaryKeyConstraint("replica", "n"),
    Index("ix_waiting_mutation_entity_id", "entity", "id", postgresql_where=text("state = 'waiting'")),
    Index("ix_waiting_mutation_case_id", "case_id"),
)

# -- who may connect ----------------------------------------------------------------------------------------------

device = Table(
    "device",
    metadata,
    _key("id", primary_key=True),
    Column("technician_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("platform", Text, nullable=False),
    Column("app_version", Text, nullable=False),
    Column("public_key", Text),
    _ms("enrolled_at", required=True),
    _ms("last_seen"),
    _ms("last_pull_at"),
    _ms("last_push_at"),
    Column("cursor_seq", BigInteger),
    Column("clock_skew_ms", BigInteger),
    Column("revoked", Text, _one_of("revoked", "retired", "lost")),
    _ms("revoked_at"),
    Index("ix_device_technician_id", "technician_id"),
)

refresh_family = Table(
    "refresh_family",
    metadata,
    _key("id", primary_key=True),
    _key("device_id"),
    Column("technician_id", Text, nullable=False),
    Column("counter", BigInteger, nullable=False, comment="of the newest token that was issued"),
    Column("used", Boolean, nullable=False, comment="the newest token was presented, so the one before it is dead"),
    _ms("revoked_at"),
    Index("ix_refresh_family_device_id", "device_id"),
)

enrolment_code = Table(
    "enrolment_code",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("technician_id", Text, nullable=False),
    Column("note", Text),
    _ms("expires_at", required=True),
    _ms("used_at"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
)

client = Table(
    "client",
    metadata,
    _key("id", primary_key=True),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("system", Text),
    Column("scopes", ARRAY(Text(collation="C")), nullable=False),
    _ms("created_at", required=True),
    _ms("revoked_at"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _ms("at", required=True),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    _key("subject"),
    Column("detail", JSONB, nullable=False),
    Column("correlation_id", Text),
    Index("ix_audit_subject_id", "subject", "id"),
    Index("ix_audit_correlation_id", "correlation_id", postgresql_where=text("correlation_id IS NOT NULL")),
    comment="append only: a trigger refuses changes",
)
