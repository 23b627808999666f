"""Collections: the records of one entity, read and written as Python values.

Decimals are Decimal (or text, never float), moments are aware datetimes; on the wire both are text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar

from client_sdk.ids import mint_id
from sync.entity import EntityType, Field
from sync.errors import CaptureRefused
from sync.record import Key
from sync.replica import Draft, Replica

T = TypeVar("T")
Submit = Callable[[Draft], None]


class Collection(Generic[T]):
    """The records of one entity, with own unsent work on top."""

    def __init__(self, entity: EntityType, replica: Callable[[], Replica], submit: Submit) -> None:
        """submit: puts a draft into the outbox, or into the group that is open."""
        self.entity = entity
        self._replica, self._submit = replica, submit

    def get(self, id: str) -> T | None:
        """A record, None if there is none on this device."""
        data = self._replica().shown(self._key(id))
        return None if data is None else self._typed(id, data)

    def find(self, **equals: Any) -> list[T]:
        """All records whose fields have these values, by id; without any, all."""
        wanted = {name: encode(self._field(name), value) for name, value in equals.items()}
        return [
            self._typed(id, data)
            for id, data in self._replica().shown_all(self.entity.name).items()
            if all(data.get(name) == value for name, value in wanted.items())
        ]

    def values(self, id: str) -> Mapping[str, Any] | None:
        """A record's values as on the wire, fields of newer servers included; None if there is none."""
        return self._replica().shown(self._key(id))

    def create(self, id: str | None = None, **fields: Any) -> str:
        """Save a new record; its id. id: if it has one already, such as a scanned number."""
        id = id or mint_id()
        self._submit(Draft("create", self._key(id), self._encoded(fields)))
        return id

    def update(self, id: str, **fields: Any) -> None:
        """Save new values of a record. See `increment`, `append`, `add` and `remove` for what is not simply set."""
        self._submit(Draft("update", self._key(id), self._encoded(fields)))

    def delete(self, id: str) -> None:
        """Delete a record."""
        self._submit(Draft("delete", self._key(id)))

    def _key(self, id: str) -> Key:
        return Key(self.entity.name, id)

    def _field(self, name: str) -> Field:
        field = self.entity.fields.get(name)
        if field is None:
            raise CaptureRefused(f"A {self.entity.name} has no field {name}.")
        return field

    def _encoded(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {name: encode(self._field(name), value) for name, value in fields.items()}

    def _typed(self, id: str, data: Mapping[str, Any]) -> T:
        known = {name: decode(field, data.get(name)) for name, field in self.entity.fields.items() if name in data}
        # A field that is required now may be missing in what an older server sent.
        declared = dataclasses.fields(self.entity.shape)
        missing = {f.name: None for f in declared if f.default is dataclasses.MISSING and f.name not in known}
        record: T = self.entity.shape(**{**missing, **known, "id": id})
        return record


def increment(by: Decimal | int | str) -> dict[str, str]:
    """Add to a counter (or take away: -2)."""
    return {"$inc": _decimal(by)}


def append(*entries: Any) -> dict[str, list[Any]]:
    """Append to a log."""
    return {"$append": list(entries)}


def add(*elements: str) -> dict[str, list[str]]:
    """Add to a set."""
    return {"$add": list(elements)}


def remove(*elements: str) -> dict[str, list[str]]:
    """Take out of a set."""
    return {"$remove": list(elements)}


def encode(field: Field, value: Any) -> Any:
    """A Python value as on the wire. Raises CaptureRefused for one that has no exact form there."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return dict(value)
    if field.type == "decimal":
        return _decimal(value)
    if field.type == "moment" and isinstance(value, datetime):
        if value.utcoffset() is None:
            raise CaptureRefused(f"{field.name}: give a datetime with its time zone.")
        return value.isoformat(timespec="milliseconds")
    if field.type == "date" and isinstance(value, date):
        return value.isoformat()
    if field.type in ("set", "log") and isinstance(value, Iterable) and not isinstance(value, str):
        return sorted(value) if isinstance(value, set | frozenset) else list(value)
    if isinstance(value, Key):
        return {"entity": value.entity, "id": value.id}
    return value


def _decimal(value: Any) -> Any:
    if isinstance(value, float):
        raise CaptureRefused(f"{value!r} is not exact. Give a Decimal, an int or a text.")
    if isinstance(value, Decimal | int) and not isinstance(value, bool):
        return format(value, "f") if isinstance(value, Decimal) else str(value)
    return value


def decode(field: Field, value: Any) -> Any:
    """A wire value as Python; one that cannot be read stays as it is, because a newer server may know better."""
    try:
        if value is None:
            return None
        if field.type == "decimal":
            return Decimal(value)
        if field.type == "moment":
            return datetime.fromisoformat(value.replace("Z", "+00:00"))
        if field.type == "date":
            return date.fromisoformat(value)
        if field.type in ("set", "log"):
            return tuple(value)
    except (ArithmeticError, TypeError, ValueError, AttributeError):
        return value
    return value
