"""Answers that no server of ours gives: they end in an error that keeps the work, and never in a dead thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from client_sdk.background import BackgroundSync
from client_sdk.retry import Retries
from client_sdk.transport import error_of
from sync.errors import InvariantBroken, Malformed, SyncError, Unavailable
from sync.wire import page_from_wire, push_result_from_wire, results_from_extras

AT_ONCE = Retries(chance=lambda: 0.0)
RESULT = {"n": 1, "status": "applied"}
PAGE = {"changes": [], "cursor": "x", "more": False, "as_of": 1}


@pytest.mark.parametrize(
    "results", [["x"], [None], [{**RESULT, "status": "done"}], [{**RESULT, "n": "1"}], [{"n": 1}], "x", None]
)
def test_an_answer_to_a_push_that_is_none_settles_nothing(results: Any) -> None:
    with pytest.raises(Malformed):
        push_result_from_wire({"results": results, "last_n": 1, "committed_seq": 1})


@pytest.mark.parametrize("results", [["x"], [{"n": 1}], [{**RESULT, "status": ""}], 5])
def test_odd_results_beside_a_fork_settle_nothing(results: Any) -> None:
    with pytest.raises(Malformed):
        results_from_extras(results)


@pytest.mark.parametrize("tally", [{"scope": "s", "count": 1, "checksum": "no hex"}, {"scope": "s", "count": 1}, 7])
def test_a_tally_that_cannot_be_compared_is_no_page(tally: Any) -> None:
    with pytest.raises(Malformed):
        page_from_wire({**PAGE, "scopes": [tally]})


def refused(retry_after: str) -> int:
    error = error_of(httpx.Response(503, headers={"Retry-After": retry_after}))
    assert isinstance(error, Unavailable)
    return error.retry_after_s


def test_a_time_to_come_again_may_be_a_date() -> None:
    later = datetime.now(UTC) + timedelta(seconds=90)

    assert 85 <= refused(format_datetime(later, usegmt=True)) <= 90
    assert refused(format_datetime(later - timedelta(days=1), usegmt=True)) == 0
    assert refused("90") == 90
    assert refused("9" * 5_000) == 3_600
    assert refused("soon") == refused("") == 2


def running(sync: Callable[[], object], **callbacks: Any) -> BackgroundSync:
    return BackgroundSync(sync, interval_s=60, retries=AT_ONCE, **callbacks)


def test_a_thread_outlives_what_nobody_expected() -> None:
    calls, done, told = iter(range(9)), threading.Event(), list[SyncError]()

    def sync() -> None:
        if next(calls) == 0:
            raise ZeroDivisionError
        done.set()

    background = running(sync, on_error=told.append)

    assert done.wait(5)
    background.stop()
    assert [type(error) for error in told] == [InvariantBroken]


def test_a_thread_outlives_callbacks_that_raise() -> None:
    calls, done = iter(range(9)), threading.Event()

    def sync() -> None:
        if next(calls) == 0:
            raise Unavailable
        done.set()

    def broken(_: object) -> None:
        raise ZeroDivisionError

    background = running(sync, on_error=broken, on_connectivity=broken)

    assert done.wait(5)
    background.stop()


def test_a_callback_may_stop_the_thread() -> None:
    stopped, made = threading.Event(), threading.Event()
    background: list[BackgroundSync] = []

    def stop(_: bool) -> None:
        made.wait(5)
        background[0].stop()
        stopped.set()

    background.append(running(lambda: None, on_connectivity=stop))
    made.set()

    assert stopped.wait(5)
