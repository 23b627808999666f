"""List queries: `limit`, `after`, `sort` and `field=value` filters, out of a query string and into one value.

Pages are found by key, not by offset: `after` names the last row of the page before, so what is inserted or deleted
meanwhile neither repeats a row nor hides one. It is signed, so that only what this server wrote ever reaches a query.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from werkzeug.datastructures import MultiDict

from server.services.keys import base64url
from sync.errors import InvalidCursor, UnknownFilter, Unprocessable

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 500
_RESERVED: Final = frozenset({"limit", "after", "sort"})
_MAC_BYTES: Final = 16
_MAX_AFTER_CHARS: Final = 2048

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class ListQuery:
    """What a list was asked for.

    after: (value of the sort field, id) of the last row of the page before; None for the first page. Rows with equal
    values are ordered by id, in the same direction. filters: field to the text asked for.
    """

    limit: int = DEFAULT_LIMIT
    after: tuple[Scalar, str] | None = None
    sort: str = "id"
    descending: bool = False
    filters: Mapping[str, str] = field(default_factory=dict)


def read_list_query(
    args: MultiDict[str, str],
    *,
    secret: bytes,
    sortable: Collection[str] = ("id",),
    filterable: Collection[str] = (),
    default_sort: str = "id",
    beside: Collection[str] = (),
) -> ListQuery:
    """The query in `args` (`request.args`).

    secret: what `next_after` signed with. default_sort: `field` or `-field`. beside: names the caller reads itself.
    Raises UnknownFilter (422) for a name in none of the lists, Unprocessable (422) for a wrong limit, sort or repeated
    parameter, InvalidCursor (400) for an `after` that `next_after` did not make for this sort.
    """
    given = {name: _only(name, values) for name, values in args.lists() if name not in beside}
    filters = {name: value for name, value in given.items() if name not in _RESERVED}
    if unknown := sorted(set(filters) - set(filterable)):
        raise UnknownFilter(
            errors=[{"path": name[:64], "detail": "not a filter of this list"} for name in unknown[:100]]
        )
    sort = given.get("sort", default_sort)
    name, descending = sort.removeprefix("-"), sort.startswith("-")
    if name not in sortable:
        raise _wrong("sort", f"one of {', '.join(sortable)}, with - in front for descending")
    after = _read_after(given["after"], sort, secret) if "after" in given else None
    return ListQuery(_limit(given.get("limit", str(DEFAULT_LIMIT))), after, name, descending, filters)


def next_after(query: ListQuery, value: Scalar, last_id: str, *, secret: bytes) -> str:
    """The `next` of a page of `query` whose last row has `value` in the sort field and the id `last_id`."""
    sort = f"-{query.sort}" if query.descending else query.sort
    content = json.dumps([sort, value, last_id], separators=(",", ":")).encode()
    return base64url(_mac(secret, content) + content)


def _read_after(text: str, sort: str, secret: bytes) -> tuple[Scalar, str]:
    content = _opened(text, secret)
    if content is None or content[0] != sort:
        raise InvalidCursor("`after` is not the `next` of this list with this sort. Start again without it.")
    return content[1], content[2]


def _opened(text: str, secret: bytes) -> Any:
    """What `next_after` put in; None if it did not."""
    if len(text) > _MAX_AFTER_CHARS or not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        return None
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        return None
    mac, content = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    return json.loads(content) if hmac.compare_digest(mac, _mac(secret, content)) else None


def _mac(secret: bytes, content: bytes) -> bytes:
    """The label keeps it apart from other things that are signed with the same secret."""
    return hmac.new(secret, b"after\n" + content, hashlib.sha256).digest()[:_MAC_BYTES]


def _limit(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text, re.ASCII) or not 1 <= int(text) <= MAX_LIMIT:
        raise _wrong("limit", f"a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def _only(name: str, values: list[str]) -> str:
    if len(values) != 1:
        raise _wrong(name, "given once")
    if "\x00" in values[0]:  # PostgreSQL has no such text, and would answer with an error of its own
        raise _wrong(name, "text without NUL")
    return values[0]


def _wrong(name: str, must_be: str) -> Unprocessable:
    return Unprocessable(errors=[{"path": name[:64], "detail": f"must be {must_be}"}])
