"""Sightings of a device are gathered and written together; who is wrong too often has to wait."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from server.services.sightings import Sighting, Sightings
from server.services.throttle import Throttle
from sync.errors import TooManyRequests, Unavailable


def test_many_sightings_of_a_device_are_written_once_with_the_newest_of_each() -> None:
    written: list[Sequence[Sighting]] = []
    sightings = Sightings(written.append, every_s=60)
    sightings.note(Sighting("d1", 1, pushed_at=1, cursor_seq=5))
    sightings.note(Sighting("d2", 2))
    sightings.note(Sighting("d1", 3, pulled_at=3))

    sightings.flush()
    sightings.flush()

    assert written == [[Sighting("d1", 3, pulled_at=3, pushed_at=1, cursor_seq=5), Sighting("d2", 2)]]


def test_they_are_written_by_themselves_after_a_while() -> None:
    written: list[Sequence[Sighting]] = []
    sightings = Sightings(written.append, every_s=0.02)
    sightings.note(Sighting("d1", 1))

    deadline = time.monotonic() + 5
    while not written and time.monotonic() < deadline:
        time.sleep(0.01)

    assert written == [[Sighting("d1", 1)]]


def test_a_database_that_is_down_costs_only_the_figures(caplog: pytest.LogCaptureFixture) -> None:
    def fail(seen: Sequence[Sighting]) -> None:
        raise Unavailable

    sightings = Sightings(fail, every_s=0.01)
    sightings.note(Sighting("d1", 1))
    deadline = time.monotonic() + 5
    while not caplog.records and time.monotonic() < deadline:
        time.sleep(0.01)

    assert "not written" in caplog.text


def test_after_so_many_failures_one_has_to_wait_until_the_oldest_is_past() -> None:
    throttle = Throttle(failures=2, window_s=60)
    throttle.failed("10.0.0.1", 0)
    throttle.failed("10.0.0.1", 20_000)

    with pytest.raises(TooManyRequests) as caught:
        throttle.check("10.0.0.1", 30_000)
    throttle.check("10.0.0.2", 30_000)
    throttle.check("10.0.0.1", 60_000)

    assert caught.value.retry_after_s == 30
