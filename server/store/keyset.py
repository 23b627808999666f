"""Pages of a list, found by key: the rows after the last one of the page before, whatever came or went meanwhile."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, and_, cast, false, literal, or_, true
from sqlalchemy.dialects.postgresql import ARRAY


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a sorted list. sort: a name that the list knows. after: sort value and id of the row before."""

    limit: int
    sort: str = "id"
    descending: bool = False
    after: tuple[Any, str] | None = None


def keyset(rows: Select[Any], sort: ColumnElement[Any], id: ColumnElement[str], window: Window) -> Select[Any]:
    """`rows` in the order of `sort`, then of `id` in the same direction; missing values last either way.

    One row more than the limit is asked for, so that its presence says whether there is another page.
    """
    direction = [sort.desc() if window.descending else sort.asc(), id.desc() if window.descending else id.asc()]
    ordered = rows.order_by(direction[0].nulls_last(), direction[1]).limit(window.limit + 1)
    if window.after is None:
        return ordered
    value, last_id = window.after
    later = id < last_id if window.descending else id > last_id
    if value is None:
        return ordered.where(and_(sort.is_(None), later))
    # Typed like the column and read from text by the database, so that a number is compared exactly.
    last = literal(value, sort.type) if not isinstance(value, str) else _read_as(value, sort)
    beyond = sort < last if window.descending else sort > last
    return ordered.where(or_(beyond, and_(sort == last, later), sort.is_(None)))


def _read_as(value: str, sort: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(literal(value, Text), sort.type)


def within(column: Any, scopes: Collection[str]) -> ColumnElement[bool]:
    """Does a row whose scopes stand in `column` lie in reach of a holder of `scopes`? The scope "*" reaches all."""
    if "*" in scopes:
        return true()
    if not scopes:
        return false()
    reach: ColumnElement[bool] = column.overlap(literal(sorted(scopes), ARRAY(Text)))
    return reach
