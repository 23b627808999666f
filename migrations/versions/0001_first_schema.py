"""The first schema.

Revision: 0001, after nothing
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.Text(collation="C")
TABLES = (
    "audit",
    "change",
    "client",
    "device",
    "enrolment_code",
    "feed",
    "feed_epoch",
    "feed_head",
    "lock_key",
    "membership",
    "push",
    "record",
    "refresh_family",
    "renamed",
    "replica",
    "review_case",
    "scope_head",
    "waiting_mutation",
)


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("subject", KEY, nullable=False),
        sa.Column("detail", JSONB, nullable=False),
        sa.Column("correlation_id", sa.Text),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
        comment="append only: a trigger refuses changes",
    )
    op.create_index(
        "ix_audit_correlation_id", "audit", ["correlation_id"], postgresql_where=sa.text("correlation_id IS NOT NULL")
    )
    op.create_index("ix_audit_subject_id", "audit", ["subject", "id"])
    op.create_table(
        "change",
        sa.Column("entity", KEY, nullable=False),
        sa.Column("id", KEY, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("push", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("entity", "id", "version", "push", name=op.f("pk_change")),
        comment="which push holds the history of a version",
    )
    op.create_table(
        "client",
        sa.Column("id", KEY, nullable=False),
        sa.Column("secret_hash", sa.LargeBinary, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("system", sa.Text),
        sa.Column("scopes", ARRAY(KEY), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_client")),
    )
    op.create_table(
        "device",
        sa.Column("id", KEY, nullable=False),
        sa.Column("technician_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("app_version", sa.Text, nullable=False),
        sa.Column("public_key", sa.Text),
        sa.Column("enrolled_at", sa.BigInteger, nullable=False),
        sa.Column("last_seen", sa.BigInteger),
        sa.Column("last_pull_at", sa.BigInteger),
        sa.Column("last_push_at", sa.BigInteger),
        sa.Column("cursor_seq", sa.BigInteger),
        sa.Column("clock_skew_ms", sa.BigInteger),
        sa.Column("revoked", sa.Text),
        sa.Column("revoked_at", sa.BigInteger),
        sa.CheckConstraint("revoked IN ('retired', 'lost')", name=op.f("ck_device_revoked")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device")),
    )
    op.create_index("ix_device_technician_id", "device", ["technician_id"])
    op.create_table(
        "enrolment_code",
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("technician_id", sa.Text, nullable=False),
        sa.Column("note", sa.Text),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger),
        sa.Column("attempts", sa.Integer, server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_enrolment_code")),
    )
    op.create_table(
        "feed",
        sa.Column("scope", KEY, nullable=False),
        sa.Column("entity", KEY, nullable=False),
        sa.Column("id", KEY, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("op", sa.Text, nullable=False),
        sa.CheckConstraint("op IN ('put', 'delete', 'evict')", name=op.f("ck_feed_op")),
        sa.PrimaryKeyConstraint("scope", "entity", "id", name=op.f("pk_feed")),
        postgresql_with={"fillfactor": "85"},
    )
    op.create_index("ix_feed_scope_seq", "feed", ["scope", "seq"])
    op.create_table(
        "feed_epoch",
        sa.Column("one", sa.Boolean, server_default=sa.text("true"), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("rotated_at", sa.BigInteger),
        sa.Column("durable_seq", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("purged_seq", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("one", name=op.f("ck_feed_epoch_only")),
        sa.PrimaryKeyConstraint("one", name=op.f("pk_feed_epoch")),
    )
    op.create_table(
        "feed_head",
        sa.Column("one", sa.Boolean, server_default=sa.text("true"), nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.CheckConstraint("one", name=op.f("ck_feed_head_only")),
        sa.PrimaryKeyConstraint("one", name=op.f("pk_feed_head")),
        postgresql_with={"fillfactor": "10"},
    )
    op.create_table(
        "lock_key",
        sa.Column("key", KEY, nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_lock_key")),
        comment="locks on records that do not exist yet; its rows never outlive the transaction that made them",
    )
    op.create_table(
        "membership",
        sa.Column("entity", KEY, nullable=False),
        sa.Column("id", KEY, nullable=False),
        sa.Column("scope", KEY, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger),
        sa.PrimaryKeyConstraint("entity", "id", "scope", "since", name=op.f("pk_membership")),
    )
    op.create_table(
        "push",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("replica", KEY, comment="null: written at the office"),
        sa.Column("first_n", sa.BigInteger),
        sa.Column("last_n", sa.BigInteger),
        sa.Column("committed_seq", sa.BigInteger, nullable=False),
        sa.Column("committed_at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("hashes", sa.LargeBinary, comment="32 bytes for each n"),
        sa.Column("content", sa.LargeBinary, nullable=False, comment="bodies, results and history: JSON under zstd"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_push")),
        sa.UniqueConstraint("replica", "first_n", name=op.f("uq_push_replica_first_n")),
    )
    op.create_index("ix_push_committed_seq", "push", ["committed_seq"])
    op.create_index("ix_push_replica_last_n", "push", ["replica", "last_n"])
    op.create_table(
        "record",
        sa.Column("entity", KEY, nullable=False),
        sa.Column("id", KEY, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("data", JSONB, nullable=False, comment="the values, for queries and reports"),
        sa.Column("meta", sa.Text, nullable=False, comment="merge metadata; see server/store/meta.py"),
        sa.Column("wire", sa.Text, nullable=False, comment="version, clock and data as JSON text, ready for a pull"),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.Column("scopes", ARRAY(KEY), nullable=False),
        sa.Column("refs", ARRAY(KEY), nullable=False, comment="entity:id of the records its scopes are read from"),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("entity", "id", name=op.f("pk_record")),
        postgresql_with={"fillfactor": "85"},
    )
    op.create_index("ix_record_refs", "record", ["refs"], postgresql_using="gin", postgresql_with={"fastupdate": "off"})
    op.create_table(
        "refresh_family",
        sa.Column("id", KEY, nullable=False),
        sa.Column("device_id", KEY, nullable=False),
        sa.Column("technician_id", sa.Text, nullable=False),
        sa.Column("counter", sa.BigInteger, nullable=False, comment="of the newest token that was issued"),
        sa.Column(
            "used", sa.Boolean, nullable=False, comment="the newest token was presented, so the one before it is dead"
        ),
        sa.Column("revoked_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refresh_family")),
    )
    op.create_index("ix_refresh_family_device_id", "refresh_family", ["device_id"])
    op.create_table(
        "renamed",
        sa.Column("origin_replica", KEY, nullable=False),
        sa.Column("origin_n", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("replica", KEY, nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("origin_replica", "origin_n", "hash", name=op.f("pk_renamed")),
    )
    op.create_table(
        "replica",
        sa.Column("replica", KEY, nullable=False),
        sa.Column("technician_id", sa.Text),
        sa.Column("device_id", sa.Text),
        sa.Column("last_n", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("last_at", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("sealed", sa.Boolean, server_default=sa.text("false"), nullable=False),
        sa.Column("first_seen", sa.BigInteger),
        sa.PrimaryKeyConstraint("replica", name=op.f("pk_replica")),
        postgresql_with={"fillfactor": "85"},
    )
    op.create_index("ix_replica_device_id", "replica", ["device_id"])
    op.create_table(
        "review_case",
        sa.Column("id", KEY, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("impact", sa.Integer, nullable=False),
        sa.Column("entity", KEY, nullable=False),
        sa.Column("record_id", KEY, nullable=False),
        sa.Column("scopes", ARRAY(KEY), nullable=False),
        sa.Column("fields", JSONB, nullable=False),
        sa.Column("doc", JSONB, nullable=False, comment="base, current, incoming, evidence"),
        sa.Column("technician_id", sa.Text),
        sa.Column("opened_at", sa.BigInteger, nullable=False),
        sa.Column("opened_version", sa.BigInteger),
        sa.Column("claimed_by", sa.Text),
        sa.Column("claimed_until", sa.BigInteger),
        sa.Column("resolved_at", sa.BigInteger),
        sa.Column("resolution", JSONB),
        sa.Column("version", sa.Integer, nullable=False),
        sa.CheckConstraint("status IN ('open', 'claimed', 'resolved', 'reopened')", name=op.f("ck_review_case_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review_case")),
    )
    op.create_index("ix_review_case_entity_record_id", "review_case", ["entity", "record_id"])
    op.create_index("ix_review_case_status_impact_id", "review_case", ["status", "impact", "id"])
    op.create_table(
        "scope_head",
        sa.Column("scope", KEY, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("live", sa.BigInteger, nullable=False),
        sa.Column(
            "checksum", sa.Numeric(precision=20, scale=0), nullable=False, comment="of the live rows, modulo 2^64"
        ),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_scope_head")),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "waiting_mutation",
        sa.Column("replica", KEY, nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.Column("case_id", KEY, nullable=False),
        sa.Column("entity", KEY, nullable=False),
        sa.Column("id", KEY, nullable=False),
        sa.Column("op", sa.Text, nullable=False),
        sa.Column("doc", JSONB, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.CheckConstraint("state IN ('waiting', 'applied', 'dropped')", name=op.f("ck_waiting_mutation_state")),
        sa.PrimaryKeyConstraint("replica", "n", name=op.f("pk_waiting_mutation")),
    )
    op.create_index("ix_waiting_mutation_case_id", "waiting_mutation", ["case_id"])
    op.create_index(
        "ix_waiting_mutation_entity_id",
        "waiting_mutation",
        ["entity", "id"],
        postgresql_where=sa.text("state = 'waiting'"),
    )
    # Compressed already: pglz would only try again.
    op.execute("ALTER TABLE push ALTER COLUMN content SET STORAGE EXTERNAL, ALTER COLUMN hashes SET STORAGE EXTERNAL")
    op.execute("INSERT INTO feed_head (seq, at) VALUES (0, 0)")
    op.execute("INSERT INTO feed_epoch (number, id) VALUES (0, gen_random_uuid()::text)")
    op.execute(
        """
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is append only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
        END
        $$
        """
    )
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER never_emptied BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
    op.execute("DROP FUNCTION refuse_change()")
