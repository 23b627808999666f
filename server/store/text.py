"""JSON text between values and columns, exact both ways."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson


def dumps(value: Any) -> str:
    """`value` as compact JSON text. Mappings and sequences of any kind are taken."""
    try:
        return orjson.dumps(value, default=_plain).decode()
    except TypeError:
        # orjson stops at 64 bits, while a body may hold any whole number of 19 digits.
        return json.dumps(value, default=_plain, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def loads(text: str | bytes) -> Any:
    """The value of JSON text. Not by orjson, which reads whole numbers beyond 64 bits as floats."""
    return json.loads(text)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (tuple, set, frozenset)):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
