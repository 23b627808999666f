"""Merge metadata as text, there and back."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from server.store.meta import decode_meta, encode_meta
from sync.clock import Dot, Origin
from sync.record import MISSING, FieldState, Record, Write

names = st.sampled_from(["r_1", "r_2", "hub", "ä"])
counts = st.integers(0, 2**53)
dots = st.builds(Dot, counts, st.none() | names, counts)
scalars = st.none() | st.booleans() | st.integers(-(10**19), 10**19) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    scalars | texts, lambda part: st.lists(part, max_size=3) | st.dictionaries(texts, part, max_size=3), max_leaves=6
)
maybe = st.just(MISSING) | values
origins = st.builds(Origin, names, counts)
writes = st.builds(Write, maybe, dots, origins, counts, st.sampled_from(["device", "fsm", "r_1"]), st.booleans(), maybe)
keys = st.tuples(counts, names, counts, counts)
states = st.builds(
    FieldState,
    dots,
    st.lists(writes, max_size=3).map(tuple),
    st.lists(dots, max_size=3).map(tuple),
    st.lists(keys, max_size=3).map(tuple),
    st.lists(st.tuples(texts, st.lists(dots, max_size=3).map(tuple)), max_size=3).map(tuple),
    st.none() | texts,
)


@st.composite
def plain_states(draw: Any) -> FieldState:
    """What most fields look like: one write, and it stands."""
    dot = draw(dots)
    return FieldState(dot, (Write(draw(maybe), dot, draw(origins), draw(counts), "device"),))


@settings(deadline=None)
@given(
    st.dictionaries(texts, states | plain_states(), max_size=4), st.dictionaries(texts, values, max_size=4),
    st.none() | dots, st.booleans(),
)  # fmt: skip
def test_it_comes_back_exactly(
    fields: dict[str, FieldState], data: dict[str, Any], deleted: Dot | None, standing: bool
) -> None:
    if standing:  # as in a real record, the values that were written are those that it shows
        data = {**data, **{name: state.writes[0].value for name, state in fields.items() if state.writes}}
        data = {name: value for name, value in data.items() if value is not MISSING}
    record = Record("work_order", "WO-1", 3, data, fields, deleted=deleted)

    found = decode_meta(encode_meta(record), data)

    # repr too: it tells 1 from true and 0.0 from -0.0.
    assert repr(found) == repr((fields, deleted))
    assert found == (fields, deleted)


def test_fields_written_together_take_a_few_bytes_each() -> None:
    dot, origin = Dot(7, "r_0123456789abcdef", 41), Origin("r_0123456789abcdef", 41)
    data = {f"field_{n}": "value" * 20 for n in range(10)}
    fields = {
        name: FieldState(dot, (Write(value, dot, origin, 1_800_000_000_000, "device"),)) for name, value in data.items()
    }

    text = encode_meta(Record("work_order", "WO-1", 7, data, fields))

    assert json.loads(text)["f"]["field_3"] == 0
    assert len(text) < 230


def test_a_value_that_only_looks_equal_is_kept() -> None:
    for stored, written in ((1, True), (1.0, 1), (0, False), ([1], [True])):
        dot = Dot(1)
        fields = {"x": FieldState(dot, (Write(written, dot, Origin("r_1", 1), 5, "device"),))}
        record = Record("work_order", "WO-1", 1, {"x": stored}, fields)

        (write,) = decode_meta(encode_meta(record), record.data)[0]["x"].writes
        assert repr(write.value) == repr(written)
