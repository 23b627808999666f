"""Hypothesis strategies for mutations, derived from the declarations: a new entity or field needs nothing here."""

from __future__ import annotations

import string
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from sync.entities import ENTITY_TYPES
from sync.entity import EntityType, Field
from sync.values import MAX_ELEMENT, MAX_INTEGER

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
"""Anything a JSON parser could give, and some that a strict one would not (NaN, lone surrogates, huge integers)."""

ids = st.text(string.ascii_letters + string.digits + "_.:-", min_size=1, max_size=64)
storable = st.characters(codec="utf-8", exclude_characters="\x00")
numbers = st.decimals(Decimal("-999999999"), Decimal("999999999"), allow_nan=False, places=3).map(lambda d: f"{d:f}")
amounts = st.decimals(Decimal(0), Decimal("999999999"), allow_nan=False, places=3).map(lambda d: f"{abs(d):f}")
moments = st.datetimes(
    datetime(1971, 1, 1),
    datetime(2199, 12, 31),
    timezones=st.integers(-14, 14).map(lambda hours: timezone(timedelta(hours=hours))) | st.just(UTC),
).map(datetime.isoformat)
elements = st.lists(st.text(storable, min_size=1, max_size=MAX_ELEMENT), max_size=5, unique=True)
entries = st.lists(
    st.dictionaries(st.sampled_from(["question", "value", "at"]), st.text(storable, max_size=9)), max_size=3
)

_BY_TYPE: dict[str, Callable[[Field], st.SearchStrategy[Any]]] = {
    "text": lambda spec: st.text(storable, max_size=min(spec.max_length, 40)),
    "integer": lambda spec: st.integers(0 if spec.non_negative else -MAX_INTEGER, MAX_INTEGER),
    "decimal": lambda spec: amounts if spec.non_negative else numbers,
    "boolean": lambda spec: st.booleans(),
    "moment": lambda spec: moments,
    "date": lambda spec: st.dates(date(1970, 1, 1), date(2200, 12, 31)).map(date.isoformat),
    "choice": lambda spec: st.sampled_from(spec.choices),
    "reference": lambda spec: (
        st.fixed_dictionaries({"entity": st.sampled_from(sorted(ENTITY_TYPES)), "id": ids})
        if spec.target == "*"
        else ids
    ),
    "set": lambda spec: elements | st.fixed_dictionaries({"$add": elements}, optional={"$remove": elements}),
    "log": lambda spec: st.fixed_dictionaries({"$append": entries}),
    "object": lambda spec: st.dictionaries(st.sampled_from(["oem", "gtin", "by"]), st.text(storable, max_size=9)),
}


def values(spec: Field) -> st.SearchStrategy[Any]:
    """Values that a device may send for `spec` in an update; null only where it clears."""
    if spec.policy == "counter":
        return st.fixed_dictionaries({"$inc": numbers})
    plain = _BY_TYPE[spec.type](spec)
    cannot_clear = spec.required or spec.states is not None or spec.type == "log"
    return plain if cannot_clear else plain | st.none()


def patches(entity: EntityType, creating: bool = False) -> st.SearchStrategy[dict[str, Any]]:
    """Patches that can be read; with `creating`, those that hold every required field."""
    fields = [spec for spec in entity.fields.values() if not spec.server]
    needed = {spec.name: values(spec) for spec in fields if creating and spec.required}
    optional = {spec.name: values(spec) for spec in fields if spec.name not in needed}
    # Not `optional=` of one dictionary: half of thirty fields in every example says little and shrinks slowly.
    some = st.lists(st.sampled_from(sorted(optional)), max_size=5, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: optional[name] for name in names})
    )
    return st.builds(lambda must, may: {**must, **may}, st.fixed_dictionaries(needed), some)


@st.composite
def mutations(draw: st.DrawFn) -> dict[str, Any]:
    """Mutations that can be read, of any entity."""
    entity = draw(st.sampled_from(sorted(ENTITY_TYPES)))
    op = draw(st.sampled_from(["create", "update", "delete"]))
    mutation: dict[str, Any] = {"n": draw(st.integers(1, MAX_INTEGER)), "entity": entity, "id": draw(ids), "op": op}
    if op != "delete":
        mutation["patch"] = draw(patches(ENTITY_TYPES[entity], creating=op == "create"))
    more = {
        "base": st.dictionaries(st.just("hub") | ids, st.integers(0, MAX_INTEGER), max_size=3),
        "seen": st.integers(0, MAX_INTEGER),
        "occurred_at": moments,
        "group": ids,
        "group_size": st.integers(1, 500),
        "origin": st.fixed_dictionaries({"replica": ids, "n": st.integers(1, MAX_INTEGER)}),
        "from_a_newer_app": st.booleans(),
    }
    return mutation | draw(st.fixed_dictionaries({}, optional=more))
