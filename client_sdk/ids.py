"""Ids made on the device: ULIDs, which sort by the time they were made (https://github.com/ulid/spec)."""

from __future__ import annotations

import secrets
import time

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def mint_id(at_ms: int | None = None, chance: int | None = None) -> str:
    """A new id of 26 characters. at_ms, chance (80 bits): given by tests only."""
    at_ms = time.time_ns() // 1_000_000 if at_ms is None else at_ms
    number = (at_ms & (1 << 48) - 1) << 80 | (secrets.randbits(80) if chance is None else chance & (1 << 80) - 1)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def mint_replica() -> str:
    """The name of a new local database."""
    return "r_" + mint_id()
