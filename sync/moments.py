"""Moments: RFC 3339 text on the wire, milliseconds since the Unix epoch (UTC) inside."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:([Zz])|([+-])(\d\d):(\d\d))", re.ASCII
)
_START = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)

FIRST_YEAR, LAST_YEAR = 1970, 2200  # outside of it a clock is broken, and 64-bit sums stay far from their ends
_END = (datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC) - _START) // _MS


def parse_moment(text: str) -> int:
    """ms since the Unix epoch. Raises ValueError unless `text` is RFC 3339 with offset, from 1970 to 2200 (UTC)."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("not a moment: write it as 2026-11-20T10:15:00+01:00")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    zone = UTC
    if match[8] is None:
        ahead = timedelta(hours=int(match[10]), minutes=int(match[11]))
        zone = timezone(ahead if match[9] == "+" else -ahead)
    # A leap second is the second before it: no clock here can tell them apart.
    moment = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=zone)
    if second > 60 or int(match[11] or 0) > 59:
        raise ValueError("an hour has 60 minutes of 60 seconds")
    at = (moment - _START) // _MS + int((match[7] or "0").ljust(3, "0")[:3])
    if not 0 <= at < _END:
        raise ValueError(f"the year lies outside {FIRST_YEAR} to {LAST_YEAR}")
    return at


def format_moment(at: int) -> str:
    """`at` (ms since the Unix epoch) as RFC 3339 text in UTC, to the millisecond."""
    return (_START + at * _MS).isoformat(timespec="milliseconds").replace("+00:00", "Z")
