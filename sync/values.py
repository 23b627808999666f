"""What a value may be on the wire, by the type of its field: each declared field compiled into one plain function.

`null` clears a field, unless it is required or a state. A set, log or counter takes its operators.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from math import isfinite
from typing import Any, Final, TypeGuard

from sync.entity import ANY_ENTITY, Field
from sync.moments import FIRST_YEAR, LAST_YEAR, parse_moment
from sync.mutation import Problem

MAX_INTEGER: Final = 2**53 - 1  # above it, a client that reads numbers as doubles sees another number
MAX_DIGITS: Final = 19  # of one number; stock and money stay far below
MAX_DEPTH: Final = 61  # of one mutation: a body may be 64 deep, and a sync wraps its mutations into three levels
MAX_ELEMENTS: Final = 200  # of one set, or appended at once
MAX_ELEMENT: Final = 64  # characters
MAX_ENTRY: Final = 4_000  # characters of a log entry that is a text

Check = Callable[[Any], Problem | None]
"""What is wrong with a value, None if nothing is."""

Describe = Callable[[Any], str | None]
"""The same in words only; never asked about null."""

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_DECIMAL = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def compile_check(spec: Field, creating: bool) -> Check:
    """The function that checks a value sent for `spec`. creating: where counters and logs begin plainly."""
    if spec.server:
        return lambda value: Problem("server_field", "only the server writes this; leave it out")
    plain = _coded(_TYPES[spec.type](spec))
    if spec.policy == "counter":
        check = _operated("$inc", plain, creating)
    elif spec.type == "log":
        check = _operated("$append", plain, creating)
    else:
        check = plain
    if spec.required:
        return _unless_null(check, Problem("missing_field", "is required"))
    if spec.states:
        return _unless_null(check, Problem("invalid_value", "a state is never empty"))
    return check if check is not plain and not creating else _unless_null(check, None)


def json_problem(value: object) -> str | None:
    """What the JSON of this exchange cannot hold: NUL, half a surrogate pair, a number too large, too deep a nest."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                if not all(isinstance(name, str) and not _UNSTORABLE.search(name) for name in item):
                    return "A name is no text, or holds NUL or half of a surrogate pair."
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif wrong := _scalar_problem(item):
                return wrong
        if not below:
            return None
        level = below
    return f"It is nested deeper than {MAX_DEPTH} levels."


def _scalar_problem(value: object) -> str | None:
    match value:
        case str():
            return "A text holds NUL or half of a surrogate pair." if _UNSTORABLE.search(value) else None
        case None | bool():
            return None
        case int():
            return None if abs(value) <= MAX_INTEGER else "An integer is beyond 2^53-1. Send large numbers as texts."
        case float():
            return None if isfinite(value) else "A number is not finite."
        case _:
            return f"A {type(value).__name__} has no JSON form."


def is_id(value: object) -> TypeGuard[str]:
    """Is it an id, as records, replicas and groups have?"""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def is_whole(value: object, least: int, most: int = MAX_INTEGER) -> TypeGuard[int]:
    """Is it an integer between the two?"""
    return type(value) is int and least <= value <= most  # type(): to isinstance, true is an int


def is_decimal(value: object) -> TypeGuard[str]:
    """Is it an exact number, of however many digits?"""
    return isinstance(value, str) and _DECIMAL.fullmatch(value) is not None


def moment_or_none(value: object) -> int | None:
    """ms since the Unix epoch, None if `value` is no RFC 3339 time."""
    try:
        return parse_moment(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _unless_null(check: Check, problem: Problem | None) -> Check:
    return lambda value: problem if value is None else check(value)


def _coded(describe: Describe) -> Check:
    def check(value: Any) -> Problem | None:
        detail = describe(value)
        return Problem("invalid_value", detail) if detail else None

    return check


def _operated(operator: str, operand: Check, creating: bool) -> Check:
    """Changed only by its operator, because writes that set it could not be merged without losing one."""
    needed = Problem("operator_required", f'is never set, only changed: {{"{operator}": …}}')
    unknown = Problem("invalid_value", f"takes no operator but {operator}")

    def check(value: Any) -> Problem | None:
        if isinstance(value, dict):
            return operand(value[operator]) if value.keys() == {operator} else unknown
        return operand(value) if creating else needed

    return check


# -- one function for each type: from a field to what is wrong with a value of it ----------------------------------


def _text(spec: Field) -> Describe:
    def describe(value: Any) -> str | None:
        if not isinstance(value, str):
            return "must be a text"
        return None if len(value) <= spec.max_length else f"must have at most {spec.max_length} characters"

    return describe


def _integer(spec: Field) -> Describe:
    least = 0 if spec.non_negative else -MAX_INTEGER
    return lambda value: None if is_whole(value, least) else f"must be an integer from {least} to {MAX_INTEGER}"


def _decimal(spec: Field) -> Describe:
    def describe(value: Any) -> str | None:
        if not is_decimal(value):
            return 'must be a number in a text, such as "2.500"'
        if len(value.lstrip("-").replace(".", "")) > MAX_DIGITS:
            return f"must have at most {MAX_DIGITS} digits"
        return "must not be below 0" if spec.non_negative and Decimal(value) < 0 else None

    return describe


def _boolean(spec: Field) -> Describe:
    return lambda value: None if isinstance(value, bool) else "must be true or false"


def _moment(spec: Field) -> Describe:
    wrong = "must be a time with offset, such as 2026-11-20T10:15:00+01:00"
    return lambda value: wrong if moment_or_none(value) is None else None


def _date(spec: Field) -> Describe:
    def describe(value: Any) -> str | None:
        wrong = "must be a day of the calendar, such as 2026-11-20"
        if not isinstance(value, str) or not _DATE.fullmatch(value):
            return wrong
        try:
            return None if FIRST_YEAR <= date.fromisoformat(value).year <= LAST_YEAR else wrong
        except ValueError:
            return wrong

    return describe


def _choice(spec: Field) -> Describe:
    choices, wrong = frozenset(spec.choices), f"must be one of {', '.join(spec.choices)}"
    return lambda value: None if isinstance(value, str) and value in choices else wrong


def _reference(spec: Field) -> Describe:
    if spec.target != ANY_ENTITY:
        return lambda value: None if is_id(value) else f"must be the id of a {spec.target}"

    def describe(value: Any) -> str | None:
        # An entity that only a newer peer knows is no mistake: the reference leads nowhere, and that is parked.
        whole = isinstance(value, dict) and value.keys() == {"entity", "id"} and all(map(is_id, value.values()))
        return None if whole else "must be {entity, id}"

    return describe


def _set(spec: Field) -> Describe:
    def describe(value: Any) -> str | None:
        if not isinstance(value, dict):
            return _elements(value)
        if not value or not value.keys() <= {"$add", "$remove"}:
            return 'must be a list, or {"$add": […], "$remove": […]}'
        return next((wrong for part in value.values() if (wrong := _elements(part))), None)

    return describe


def _elements(value: Any) -> str | None:
    if not isinstance(value, list) or len(value) > MAX_ELEMENTS:
        return f"must be a list of at most {MAX_ELEMENTS} texts"
    if not all(isinstance(element, str) and 0 < len(element) <= MAX_ELEMENT for element in value):
        return f"an element must be a text of 1 to {MAX_ELEMENT} characters"
    return None if len(set(value)) == len(value) else "must not name an element twice"


def _log(spec: Field) -> Describe:
    def describe(value: Any) -> str | None:
        if not isinstance(value, list) or len(value) > MAX_ELEMENTS:
            return f"must be a list of at most {MAX_ELEMENTS} entries"
        if all(isinstance(entry, dict) or (isinstance(entry, str) and len(entry) <= MAX_ENTRY) for entry in value):
            return None
        return f"an entry must be an object, or a text of at most {MAX_ENTRY} characters"

    return describe


def _object(spec: Field) -> Describe:
    def describe(value: Any) -> str | None:
        if not isinstance(value, dict):
            return "must be an object"
        return "takes no operator: no name in it may begin with $" if any(n.startswith("$") for n in value) else None

    return describe


_TYPES: Final[Mapping[str, Callable[[Field], Describe]]] = {
    "text": _text,
    "integer": _integer,
    "decimal": _decimal,
    "boolean": _boolean,
    "moment": _moment,
    "date": _date,
    "choice": _choice,
    "reference": _reference,
    "set": _set,
    "log": _log,
    "object": _object,
}
