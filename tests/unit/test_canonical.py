"""Canonical JSON against the vectors of RFC 8785 and of its author's test suite."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.canonical import canonical, digest

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def double(bits: str) -> float:
    """The IEEE 754 double with these bits, as RFC 8785 appendix B writes them."""
    return float(struct.unpack(">d", bytes.fromhex(bits))[0])


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("ffefffffffffffff", "-1.7976931348623157e+308"),
        ("4340000000000000", "9007199254740992"),
        ("c340000000000000", "-9007199254740992"),
        ("4430000000000000", "295147905179352830000"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("44b52d02c7e14af7", "1.0000000000000001e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef4f", "999999999999999900000"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"),
        ("41b3de4355555554", "333333333.33333325"),
        ("41b3de4355555555", "333333333.3333333"),
        ("41b3de4355555556", "333333333.3333334"),
        ("41b3de4355555557", "333333333.33333343"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
    ],
)
def test_numbers_print_as_in_appendix_b(bits: str, text: str) -> None:
    assert canonical(double(bits)) == text


def test_the_example_of_section_3_2() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }

    assert canonical(value) == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def test_names_sort_by_utf_16_code_units() -> None:
    """Section 3.2.3: the emoji sorts before the Hebrew letter of the last plane's presentation forms."""
    value = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }

    assert list(json.loads(canonical(value)).values()) == [
        "Carriage Return",
        "One",
        "Control",
        "Latin Small Letter O With Diaeresis",
        "Euro Sign",
        "Emoji: Grinning Face",
        "Hebrew Letter Dalet With Dagesh",
    ]


def test_control_characters_are_escaped_and_others_are_not() -> None:
    assert canonical("\b\t\n\f\r\x00\x1f\x7f\u2028é/") == '"\\b\\t\\n\\f\\r\\u0000\\u001f\x7f\u2028é/"'


def test_containers_have_no_spaces() -> None:
    assert canonical({"b": [1, {"a": "x"}, ()], "a": {}}) == '{"a":{},"b":[1,{"a":"x"},[]]}'


def test_whole_numbers_keep_all_their_digits() -> None:
    assert canonical(9007199254740993) == "9007199254740993"
    assert canonical(-7) == "-7"


def test_a_number_is_not_a_boolean() -> None:
    assert canonical(True) == "true"
    assert canonical(1) == "1"


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), float("-inf"), [float("nan")], {1, 2}, b"bytes", object()]
)
def test_what_has_no_json_form_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="no JSON form"):
        canonical(value)


@given(json_values)
def test_canonical_text_reads_back_as_the_same_value(value: Any) -> None:
    # One kind of number: the text of a large float has no point, as ECMAScript has none.
    assert json.loads(canonical(value), parse_int=float) == json.loads(json.dumps(value), parse_int=float)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_reads_back_exactly(value: float) -> None:
    assert float(canonical(value)) == value


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 9)))
def test_the_order_of_names_does_not_matter(value: dict[str, int]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


def test_the_digest_is_the_sha_256_of_the_text() -> None:
    assert digest({"b": 1, "a": "é"}) == hashlib.sha256('{"a":"é","b":1}'.encode()).digest()


def test_a_lone_surrogate_has_a_digest_too() -> None:
    """Shells refuse such text before; the core must not fall over it."""
    assert digest({"a": "\ud800"}) != digest({"a": "\ud801"})
