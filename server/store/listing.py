"""What the office looks at: records, their history, review cases and the audit. Reads only, each in one statement."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Engine,
    Numeric,
    Select,
    Text,
    and_,
    cast,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy import case as sql_case
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from server.store.documents import history_in
from server.store.engine import reading
from server.store.keyset import Window, keyset, within
from server.store.meta import decode_meta
from server.store.tables import audit, change, feed_head, push, record, review_case
from server.store.text import loads
from sync.entity import ANY_ENTITY, EntityType, Field
from sync.moments import format_moment, parse_moment
from sync.record import Key, Record
from sync.store import Case, HistoryEntry

# -- records ------------------------------------------------------------------------------------------------------

_RECORD = (
    record.c.entity,
    record.c.id,
    record.c.version,
    cast(record.c.data, Text).label("data"),
    record.c.wire,
    record.c.meta,
    record.c.scopes,
    record.c.updated_at,
    record.c.deleted,
)


def find_record(engine: Engine, scopes: Collection[str], key: Key) -> Record | None:
    """The record, None if there is none in reach. A deleted one is there, with `deleted`."""
    with reading(engine) as connection:
        row = connection.execute(
            select(*_RECORD).where(
                record.c.entity == key.entity, record.c.id == key.id, within(record.c.scopes, scopes)
            )
        ).one_or_none()
    return _record(row) if row else None


class Listed(NamedTuple):
    """A record in a list, and the text of what it is sorted by."""

    record: Record
    sorted_by: str | None


def list_records(
    engine: Engine, entity: EntityType, scopes: Collection[str], filters: Mapping[str, str], window: Window
) -> list[Listed]:
    """Records that are not deleted and lie in reach; one more than the limit if there are more.

    filters: by declared field or `id`; the empty text finds records without a value. Raises ValueError with the name of
    a field whose value can never be what was asked for.
    """
    # The sort's own text is kept for the next page: what is compared is read from it again, exactly.
    shown = _shown(entity, window.sort)
    rows = select(*_RECORD, shown.label("sorted_by")).where(
        record.c.entity == entity.name,
        ~record.c.deleted,
        within(record.c.scopes, scopes),
        *(_matches(entity, name, wanted) for name, wanted in filters.items()),
    )
    with reading(engine) as connection:
        found = connection.execute(keyset(rows, _sortable(entity, window.sort), record.c.id, window)).all()
    return [Listed(_record(row), row.sorted_by) for row in found]


def _record(row: Any) -> Record:
    # The wire text is exact where jsonb is not (1e22), and it has no values of a deleted record.
    data = loads(row.data) if row.deleted else loads(f"{{{row.wire}}}")["data"]
    fields, deleted = decode_meta(row.meta, data)
    return Record(row.entity, row.id, row.version, data, fields, tuple(row.scopes), deleted, row.updated_at)


BESIDE = ("id", "version", "updated_at")


def sortable_fields(entity: EntityType) -> list[str]:
    """What a list of this entity can be sorted by."""
    return [*BESIDE, *(name for name, field in entity.fields.items() if _is_scalar(field))]


def _is_scalar(field: Field) -> bool:
    return field.type not in ("set", "log", "object") and field.target != ANY_ENTITY


def _shown(entity: EntityType, name: str) -> ColumnElement[Any]:
    if name in BESIDE:
        return cast(record.c[name], Text)
    # A moment is shown as it is compared, so that equal ones with different offsets are equal on the next page too.
    is_moment = entity.fields[name].type == "moment"
    return cast(_moment(_text_of(name)), Text) if is_moment else _text_of(name)


def _moment(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """A point in time; null for offsets of 16 hours and more, which RFC 3339 has and PostgreSQL refuses."""
    readable = value.regexp_match(r"([Zz]|[+-](0\d|1[0-5]):\d\d)$")
    return sql_case((readable, cast(value, DateTime(timezone=True))))


def _text_of(name: str) -> ColumnElement[Any]:
    value: ColumnElement[Any] = record.c.data[name].astext
    return value


def _sortable(entity: EntityType, name: str) -> ColumnElement[Any]:
    if name in BESIDE:
        return record.c[name]
    value = _text_of(name)
    match entity.fields[name].type:
        case "decimal" | "integer":
            return cast(value, Numeric)
        case "moment":
            return _moment(value)
        case _:
            return value.collate("C")


def _matches(entity: EntityType, name: str, wanted: str) -> ColumnElement[bool]:
    if name == "id":
        return record.c.id == wanted
    matches: ColumnElement[bool] = _equals(entity.fields[name], record.c.data[name], wanted)
    return matches


def _equals(field: Field, value: Any, wanted: str) -> Any:
    if wanted == "":
        return or_(value.is_(None), value.astext.is_(None))
    match field.type:
        case "set" | "log":
            return value.contains(func.jsonb_build_array(literal(wanted, Text)))
        case "decimal" | "integer":
            return cast(value.astext, Numeric) == cast(literal(wanted, Text), Numeric)
        case "moment":
            return _moment(value.astext) == _moment(literal(format_moment(parse_moment(wanted)), Text))
        case "object":
            return value == cast(literal(wanted, Text), JSONB)
        case "reference" if field.target == ANY_ENTITY:
            target, _, id = wanted.partition(":")
            return and_(value["entity"].astext == target, value["id"].astext == id)
        case _:
            return value.astext == wanted


# -- history ------------------------------------------------------------------------------------------------------


class Past(NamedTuple):
    """One version of a record and when it was committed, ms."""

    entry: HistoryEntry
    recorded_at: int


def read_history(engine: Engine, key: Key, before: int | None, limit: int) -> list[Past]:
    """Versions of a record below `before`, newest first; one more than the limit if there are more."""
    rows = (
        select(change.c.version, push.c.committed_at, push.c.content)
        .join(push, push.c.id == change.c.push)
        .where(change.c.entity == key.entity, change.c.id == key.id)
        .order_by(change.c.version.desc(), change.c.push.desc())
        .limit(limit + 1)
    )
    if before is not None:
        rows = rows.where(change.c.version < before)
    with reading(engine) as connection:
        found = connection.execute(rows).all()
    return list(_past(key, found))


def _past(key: Key, rows: Sequence[Any]) -> Iterator[Past]:
    # A push that changed the record several times is one content with several versions.
    unpacked: dict[bytes, list[HistoryEntry]] = {}
    for version, committed_at, content in rows:
        packed = bytes(content)
        if packed not in unpacked:
            unpacked[packed] = [entry for entry in history_in(packed) if entry.key == key]
        for entry in reversed(unpacked[packed]):
            if entry.version == version:
                yield Past(entry, committed_at)


# -- review cases -------------------------------------------------------------------------------------------------

_CASE = tuple(column for column in review_case.c)
CASE_SORTABLE = ("impact", "opened_at", "id")
_CASE_FILTERS = {
    "status": review_case.c.status,
    "type": review_case.c.type,
    "entity": review_case.c.entity,
    "technician": review_case.c.technician_id,
}
CASE_FILTERABLE = tuple(_CASE_FILTERS)


_OF_CASE = and_(record.c.entity == review_case.c.entity, record.c.id == review_case.c.record_id)


def _case_in_reach(scopes: Collection[str]) -> ColumnElement[bool]:
    """Does a case, joined with its record, lie in reach? It does where the record is now, which may have moved."""
    placed = func.coalesce(func.nullif(record.c.scopes, []), review_case.c.scopes, type_=ARRAY(Text))
    # Without scopes it concerns a record that does not exist yet: it is the whole office's.
    return or_(within(placed, scopes), func.cardinality(placed) == 0)


def list_cases(engine: Engine, scopes: Collection[str], filters: Mapping[str, str], window: Window) -> list[Case]:
    """Review cases in reach; one more than the limit if there are more."""
    rows = (
        select(*_CASE)
        .select_from(review_case.outerjoin(record, _OF_CASE))
        .where(_case_in_reach(scopes), *(_CASE_FILTERS[name] == wanted for name, wanted in filters.items()))
    )
    with reading(engine) as connection:
        found = connection.execute(keyset(rows, review_case.c[window.sort], review_case.c.id, window)).all()
    return [_case(row) for row in found]


def find_case(engine: Engine, scopes: Collection[str], case_id: str) -> tuple[Case, Record | None] | None:
    """A review case in reach and the record it is about, from one snapshot; None if there is no such case."""
    rows = (
        select(*(column.label(f"case_{column.name}") for column in _CASE), *_RECORD)
        .select_from(review_case.outerjoin(record, _OF_CASE))
        .where(review_case.c.id == case_id, _case_in_reach(scopes))
    )
    with reading(engine) as connection:
        row = connection.execute(rows).one_or_none()
    if row is None:
        return None
    case = _case(_Prefixed(row, "case_"))
    return case, _record(row) if row.entity is not None else None


class _Prefixed:
    """A row whose columns have a prefix."""

    def __init__(self, row: Any, prefix: str) -> None:
        self._row, self._prefix = row, prefix

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, self._prefix + name)


def _case(row: Any) -> Case:
    return Case(
        id=row.id, type=row.type, entity=row.entity, record_id=row.record_id, scopes=tuple(row.scopes),
        fields=tuple(row.fields), base=row.doc["base"], current=row.doc["current"], incoming=row.doc["incoming"],
        evidence=row.doc["evidence"], technician_id=row.technician_id, opened_at=row.opened_at, impact=row.impact,
        status=row.status, version=row.version, claimed_by=row.claimed_by, resolution=row.resolution,
    )  # fmt: skip


class Figures(NamedTuple):
    """What the metrics show of the database. feed_head: the position of the last commit."""

    feed_head: int
    open_cases: int


def read_figures(engine: Engine) -> Figures:
    """The figures, from one snapshot."""
    waiting = select(func.count()).select_from(review_case).where(review_case.c.status != "resolved").scalar_subquery()
    with reading(engine) as connection:
        head, count = connection.execute(select(feed_head.c.seq, waiting)).one()
    return Figures(head, count)


# -- audit --------------------------------------------------------------------------------------------------------

AUDIT_FILTERABLE = ("actor", "action", "subject", "correlation_id")


def list_audit(engine: Engine, filters: Mapping[str, str], window: Window) -> list[Mapping[str, Any]]:
    """Entries of the audit by their number; one more than the limit if there are more."""
    rows: Select[Any] = select(audit).where(*(audit.c[name] == wanted for name, wanted in filters.items()))
    with reading(engine) as connection:
        found = connection.execute(keyset(rows, audit.c.id, cast(audit.c.id, Text), window)).mappings().all()
    return [dict(row) for row in found]
