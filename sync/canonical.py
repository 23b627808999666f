"""Canonical JSON (RFC 8785), so that the same content always has the same hash."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any


def canonical(value: Any) -> str:
    """`value` (what a JSON parser gives) as RFC 8785 text. Raises ValueError for NaN, infinity or a foreign type."""
    if value is None or isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(canonical(item) for item in value) + "]"
    if isinstance(value, dict):
        # RFC 8785 §3.2.3: names sort by their UTF-16 code units, which differs from code points beyond the first plane.
        names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        return (
            "{" + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{canonical(value[name])}" for name in names) + "}"
        )
    raise ValueError(f"{type(value).__name__} has no JSON form")


def digest(value: Any) -> bytes:
    """The SHA-256 of `value`'s canonical text, 32 bytes."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).digest()


def _number(value: float) -> str:
    """A float as ECMAScript prints it (RFC 8785 §3.2.2.3)."""
    if not math.isfinite(value):
        raise ValueError("NaN and infinity have no JSON form")
    if value == 0:
        return "0"
    sign, digits, exponent = ("-" if value < 0 else ""), *_shortest(abs(value))
    point = len(digits) + exponent
    if 0 < point <= 21:
        if exponent >= 0:
            return sign + digits + "0" * exponent
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    mantissa = digits if len(digits) == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{sign}{mantissa}e{'+' if point > 0 else '-'}{abs(point - 1)}"


def _shortest(value: float) -> tuple[str, int]:
    """The shortest digits that read back as `value`, and the power of ten of the last one."""
    mantissa, _, power = f"{value!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    exponent = int(power or 0) - len(fraction)
    stripped = digits.rstrip("0")
    return stripped, exponent + len(digits) - len(stripped)
