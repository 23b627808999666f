"""Can this be read? The checks that need nothing but the declarations, for both sides.

What cannot be read becomes the mutation's `fault` and is answered by itself: one bad mutation does not cost a day's
work. Whether a readable mutation may take place is another question (`sync.admit`).
The checks are compiled once per entity (`sync.values`), so that a push of 500 mutations asks no declaration anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

from sync.clock import Origin
from sync.entities import ENTITY_TYPES
from sync.entity import EntityType
from sync.errors import CaptureRefused, Unprocessable
from sync.mutation import MAX_PUSH, Mutation, Problem
from sync.values import Check, compile_check, is_decimal, is_id, is_whole, json_problem, moment_or_none

WHOLE_UNITS: Final = frozenset("ea each pc pcs piece pieces unit units set kit pair c62 h87".split())
"""Units of which there is no half, in lower case; c62 and h87 are UN/CEFACT's "one" and "piece"."""

RESERVED: Final = frozenset({"id", "version", "clock", "updated_at"})
"""They stand beside the fields in answers, so no field may be called so."""

MAX_DETAIL: Final = 4_000  # characters of what the sender of a void says

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field. path: its name. code: stable."""

    path: str
    code: str
    detail: str


def parse_mutation(raw: object) -> Mutation:
    """The mutation that `raw`, a JSON value, describes; what is wrong with it stands in `fault`.

    What orders it (n, group, origin) is read even where the rest cannot be.
    Raises Unprocessable if it is no object or has no usable `n`: then no answer could name it.
    """
    if not isinstance(raw, dict):
        raise Unprocessable("A mutation is an object.")
    n = raw.get("n")
    if not is_whole(n, 1):
        raise Unprocessable("A mutation's n is an integer from 1 to 2^53-1.")
    parts, faults = _envelope(raw)
    if parts["op"] in ("create", "update") and not faults:
        found = _checks(ENTITY_TYPES[parts["entity"]]).problems(parts["op"], parts["patch"])
        faults += [Problem(problem.code, f"{problem.path}: {problem.detail}") for problem in found]
    return Mutation(n=n, body=raw, fault=faults[0] if faults else None, **parts)


def check_capture(raw: object) -> Mutation:
    """The same, before a device says "saved". Raises CaptureRefused with `problem` if no server could ever take it."""
    try:
        mutation = parse_mutation(raw)
    except Unprocessable as error:
        raise _refusal(Problem("invalid_mutation", error.detail)) from error
    problem = mutation.fault
    # On an update the unit may stand in the record alone; the hub looks there, and parks it.
    if problem is None and (mutation.op == "create" or "uom" in mutation.patch):
        problem = fraction_of_whole_unit(ENTITY_TYPES[mutation.entity], mutation.patch)
    if problem:
        raise _refusal(problem)
    return mutation


def check_values(entity: EntityType, op: Literal["create", "update"], patch: Mapping[str, Any]) -> list[FieldProblem]:
    """What is wrong with the values of `patch`; on create also which required ones are missing."""
    unreadable = [
        FieldProblem(_short(name), "invalid_value", wrong)
        for name, value in patch.items()
        if (wrong := json_problem({name: value}))
    ]
    return unreadable or list(_checks(entity).problems(op, patch))


def fraction_of_whole_unit(entity: EntityType, data: Mapping[str, Any]) -> Problem | None:
    """Says so if `data` counts a fraction of something that comes whole; where it names no unit, the declared one."""
    declared = entity.fields.get("uom")
    unit, quantity = (data.get("uom") or declared.default) if declared else None, data.get("quantity")
    if not isinstance(unit, str) or unit.lower() not in WHOLE_UNITS:
        return None
    if not is_decimal(quantity) or Decimal(quantity) % 1 == 0:
        return None
    return Problem("fraction_of_whole_unit", f"The quantity is {quantity}, but {unit} is a unit that comes whole.")


def _refusal(problem: Problem) -> CaptureRefused:
    return CaptureRefused(problem.detail, problem={"code": problem.code, "detail": problem.detail})


def _short(name: object) -> str:
    """A name that an answer can hold, whatever it was."""
    return ascii(name)[1:-1][:64]


# -- the envelope -------------------------------------------------------------------------------------------------

_OPS: Final = ("create", "update", "delete", "void")


class _Part(NamedTuple):
    """A part of a mutation. read: gives its value, None if it is not what it `must_be`."""

    name: str
    read: Callable[[object], Any]
    must_be: str
    default: Callable[[], Any] = lambda: None


def _object(value: object) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def _clock(value: object) -> dict[str, int] | None:
    whole = isinstance(value, dict) and all(is_id(actor) and is_whole(n, 0) for actor, n in value.items())
    return value if whole and isinstance(value, dict) else None


def read_origin(value: object) -> Origin | None:
    """The first name of a mutation, None if `value` is not one."""
    if isinstance(value, dict) and is_id(value.get("replica")) and is_whole(value.get("n"), 1):
        return Origin(value["replica"], value["n"])
    return None


_PARTS: Final = (
    _Part("patch", _object, "an object", dict),
    _Part("base", _clock, "a clock: {hub: version, replica: n}, each 0 to 2^53-1", dict),
    _Part("was", _object, "an object"),
    _Part("seen", lambda value: value if is_whole(value, 0) else None, "a feed position, 0 to 2^53-1"),
    _Part("occurred_at", moment_or_none, "a time with offset, such as 2026-11-20T10:15:00+01:00"),
    _Part("group", lambda value: value if is_id(value) else None, "1 to 64 of letters, digits and _ . : -"),
    _Part("group_size", lambda value: value if is_whole(value, 1, MAX_PUSH) else None, f"1 to {MAX_PUSH}"),
    _Part("origin", read_origin, "{replica, n}"),
)


def _envelope(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The parts of a mutation as Mutation takes them, and what is wrong with them, the most telling first."""
    op, entity, id = raw.get("op"), raw.get("entity"), raw.get("id")
    faults = []
    if unreadable := json_problem(raw):
        faults.append(Problem("invalid_value", unreadable))
    if op == "void":
        faults.append(_given_up(raw.get("problem")))
    known_op = isinstance(op, str) and op in _OPS
    if not known_op:
        faults.append(Problem("unknown_op", "op must be create, update, delete or void."))
    if not isinstance(entity, str) or entity not in ENTITY_TYPES:
        faults.append(Problem("unknown_entity", "There is no entity of this name."))
    if not is_id(id):
        faults.append(Problem("invalid_id", "id must be 1 to 64 of letters, digits and _ . : -"))
    parts: dict[str, Any] = {
        "entity": entity if is_id(entity) else "",
        "id": id if is_id(id) else "",
        "op": op if known_op else "update",
    }
    for part in _PARTS:
        sent = raw.get(part.name)
        value = None if sent is None else part.read(sent)
        parts[part.name] = part.default() if value is None else value
        if value is None and (sent is not None or (part.name == "patch" and op in ("create", "update"))):
            faults.append(Problem("invalid_mutation", f"{part.name} must be {part.must_be}."))
    if op == "delete":
        parts["patch"] = {}  # a deletion writes no field, whatever stands there
    return parts, faults


def _given_up(problem: object) -> Problem:
    """Why the sender of a void mutation could not send the one whose number it fills."""
    if isinstance(problem, dict):
        code, detail = problem.get("code"), problem.get("detail")
        if isinstance(code, str) and _NAME.fullmatch(code) and isinstance(detail, str):
            return Problem(code, detail[:MAX_DETAIL])
    return Problem("invalid_mutation", "A void mutation needs problem: {code, detail}.")


# -- the fields ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Checks:
    """The compiled checks of one entity, a function for each field, by op."""

    entity: EntityType
    required: tuple[str, ...]
    create: Mapping[str, Check]
    update: Mapping[str, Check]

    def problems(self, op: str, patch: Mapping[str, Any]) -> Iterator[FieldProblem]:
        """What is wrong with `patch`, in its order."""
        checks = self.create if op == "create" else self.update
        for name, value in patch.items():
            check = checks.get(name)
            problem = check(value) if check else _stranger(name)
            if problem:
                yield FieldProblem(_short(name), problem.code, problem.detail)
        if op == "create":
            yield from (
                FieldProblem(name, "missing_field", "is required") for name in self.required if name not in patch
            )


_COMPILED: dict[str, _Checks] = {}


def _checks(entity: EntityType) -> _Checks:
    found = _COMPILED.get(entity.name)
    if found is None or found.entity is not entity:
        fields = entity.fields.values()
        found = _COMPILED[entity.name] = _Checks(
            entity,
            required=tuple(spec.name for spec in fields if spec.required),
            create={spec.name: compile_check(spec, creating=True) for spec in fields},
            update={spec.name: compile_check(spec, creating=False) for spec in fields},
        )
    return found


def _stranger(name: str) -> Problem | None:
    """A field that only a newer peer knows is kept as it came, if it could be a field at all."""
    if name in RESERVED:
        return Problem("server_field", "only the server writes this; leave it out")
    return None if _NAME.fullmatch(name) else Problem("invalid_value", "could not be the name of a field")
