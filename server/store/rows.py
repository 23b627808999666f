"""Records and review cases as rows, both ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from server.store.documents import case_document
from server.store.meta import decode_meta, encode_meta
from server.store.text import dumps, loads
from sync.entities import ENTITY_TYPES
from sync.record import Key, Record
from sync.scopes import references
from sync.store import Case

Row = tuple[Any, ...]

# The values come from the wire text, which is exact; jsonb would turn 1e22 into a whole number.
RECORD_COLUMNS = """
    record.entity, record.id, record.version, record.wire, record.meta, record.scopes, record.updated_at,
    CASE WHEN record.deleted THEN record.data::text END
"""

CASE_COLUMNS = """
    review_case.id, review_case.type, review_case.status, review_case.impact, review_case.entity,
    review_case.record_id, review_case.scopes, review_case.fields, review_case.doc, review_case.technician_id,
    review_case.opened_at, review_case.version, review_case.claimed_by, review_case.resolution
"""


def columns_of(keys: Iterable[Key]) -> tuple[list[str], list[str]]:
    """Keys as the two parallel arrays that `unnest` takes, sorted."""
    ordered = sorted(keys)
    return [key.entity for key in ordered], [key.id for key in ordered]


def record_of(row: Row) -> Record:
    """The record in a row of RECORD_COLUMNS."""
    entity, id, version, wire, meta, scopes, updated_at, hidden = row
    data = loads(hidden) if hidden is not None else loads(f"{{{wire}}}")["data"]
    fields, deleted = decode_meta(meta, data)
    return Record(entity, id, version, data, fields, tuple(scopes), deleted, updated_at)


def record_row(record: Record) -> dict[str, Any]:
    """The columns of a record."""
    wire = f'"version":{record.version},"clock":{dumps(record.clock)}'
    if record.deleted is None:
        wire += f',"data":{dumps(record.data)}'
    return {
        "entity": record.entity,
        "id": record.id,
        "version": record.version,
        "data": record.data,
        "meta": encode_meta(record),
        "wire": wire,
        "deleted": record.deleted is not None,
        "scopes": record.scopes,
        "refs": sorted(ref_of(key) for key in references(ENTITY_TYPES[record.entity], record.data)),
        "updated_at": record.updated_at,
    }


def ref_of(key: Key) -> str:
    """A key as it stands in `refs` and `lock_key`. No entity's name has a colon, so it can be taken apart again."""
    return f"{key.entity}:{key.id}"


def case_of(row: Row) -> Case:
    """The case in a row of CASE_COLUMNS."""
    (id, type, status, impact, entity, record_id, scopes, fields, doc, technician_id, opened_at, version, claimed_by,
     resolution) = row  # fmt: skip
    return Case(
        id=id, type=type, entity=entity, record_id=record_id, scopes=tuple(scopes), fields=tuple(fields),
        base=doc["base"], current=doc["current"], incoming=doc["incoming"], evidence=doc["evidence"],
        technician_id=technician_id, opened_at=opened_at, impact=impact, status=status, version=version,
        claimed_by=claimed_by, resolution=resolution,
    )  # fmt: skip


def case_row(case: Case, record: Record | None, now: int) -> dict[str, Any]:
    """The columns of a case. record: what it is about, as it stands now; now: ms."""
    return {
        "id": case.id, "type": case.type, "status": case.status, "impact": case.impact, "entity": case.entity,
        "record_id": case.record_id, "scopes": case.scopes, "fields": case.fields, "doc": case_document(case),
        "technician_id": case.technician_id, "opened_at": case.opened_at,
        "opened_version": record.version if record else None, "resolution": _mapping(case.resolution),
        "resolved_at": now if case.status == "resolved" else None, "version": case.version,
    }  # fmt: skip


def _mapping(value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if value is None else dict(value)
