"""Moments: RFC 3339 outside, milliseconds inside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.moments import format_moment, parse_moment

FIRST = parse_moment("1970-01-01T00:00:00Z")
LAST = parse_moment("2200-12-31T23:59:59.999Z")


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.001Z", 1),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00-01:00", 3_600_000),
        ("1969-12-31T23:30:00-01:00", 1_800_000),
        ("2026-11-20T10:15:00.000+01:00", 1_795_166_100_000),
        ("2026-11-20t09:15:00z", 1_795_166_100_000),
        ("2026-11-20T09:15:00-00:00", 1_795_166_100_000),
        ("2024-02-29T23:59:59Z", 1_709_251_199_000),
        ("2026-11-20T09:15:00.123999999Z", 1_795_166_100_123),
        ("2026-11-20T09:15:00.5Z", 1_795_166_100_500),
        ("2016-12-31T23:59:60Z", 1_483_228_799_000),
    ],
)
def test_moments_of_every_form_are_read(text: str, at: int) -> None:
    assert parse_moment(text) == at


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-11-20",
        "2026-11-20T09:15:00",
        "2026-11-20 09:15:00Z",
        "2026-11-20T09:15Z",
        "2026-11-20T09:15:00.Z",
        "2026-11-20T09:15:00.1234567890Z",
        "2026-11-20T09:15:00+0100",
        "2026-11-20T09:15:00+25:00",
        "2026-11-20T09:15:00+01:60",
        "2026-13-20T09:15:00Z",
        "2026-02-29T09:15:00Z",
        "2026-11-20T24:00:00Z",
        "2026-11-20T09:60:00Z",
        "2026-11-20T09:15:61Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+01:00",
        "2201-01-01T00:00:00Z",
        "2200-12-31T23:59:59-00:01",
        "9999-01-01T00:00:00Z",
        "٢٠٢٦-11-20T09:15:00Z",
        "2026-11-20T09:15:00Z\n",
        " 2026-11-20T09:15:00Z",
    ],
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # which of the rules it broke is for people only
        parse_moment(text)


def test_a_moment_is_written_in_utc_to_the_millisecond() -> None:
    assert format_moment(1_795_166_100_120) == "2026-11-20T09:15:00.120Z"
    assert format_moment(0) == "1970-01-01T00:00:00.000Z"


@given(st.integers(FIRST, LAST))
def test_what_is_written_reads_back(at: int) -> None:
    assert parse_moment(format_moment(at)) == at


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2199, 12, 31)).map(lambda at: at.replace(microsecond=0)),
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
)
def test_the_offset_does_not_change_the_moment(at: datetime, minutes: int) -> None:
    local = at.replace(tzinfo=UTC).astimezone(timezone(timedelta(minutes=minutes)))

    assert parse_moment(local.isoformat()) == int(at.replace(tzinfo=UTC).timestamp()) * 1000
