"""Who waits is woken by news of its own scopes, and only as many may wait as there are places."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Collection, Iterator

import pytest

from server.services.pokes import Pokes


class News:
    """A listener that tests poke by hand, over heads that they set."""

    def __init__(self) -> None:
        self.heads: dict[str, int] = {}
        self.looks: list[frozenset[str]] = []
        self._arrived: queue.Queue[None] = queue.Queue()

    def listen(self, stop: threading.Event) -> Iterator[None]:
        yield
        while not stop.is_set():
            try:
                self._arrived.get(timeout=0.05)
            except queue.Empty:
                continue
            yield

    def scope_heads(self, scopes: Collection[str]) -> dict[str, int]:
        self.looks.append(frozenset(scopes))
        return {scope: seq for scope, seq in self.heads.items() if scope in scopes}

    def commit(self, scope: str, seq: int) -> None:
        self.heads[scope] = seq
        self._arrived.put(None)


@pytest.fixture
def news() -> News:
    return News()


@pytest.fixture
def pokes(news: News) -> Iterator[Pokes]:
    opened = Pokes(news.listen, news.scope_heads, waiters=2)
    yield opened
    opened.close()


def test_a_change_in_an_own_scope_ends_the_waiting(news: News, pokes: Pokes) -> None:
    threading.Timer(0.1, news.commit, ["tech:1", 7]).start()

    assert pokes.wait(["tech:1", "catalog:all"], 3, timeout_s=10) == 7


def test_a_change_elsewhere_does_not(news: News, pokes: Pokes) -> None:
    threading.Timer(0.05, news.commit, ["tech:2", 7]).start()

    assert pokes.wait(["tech:1"], 3, timeout_s=0.3) is None


def test_what_came_before_the_waiting_is_not_waited_for(news: News, pokes: Pokes) -> None:
    news.heads["tech:1"] = 5

    started = time.monotonic()
    assert pokes.wait(["tech:1"], 3, timeout_s=10) == 5
    assert time.monotonic() - started < 5


def test_a_new_connection_counts_as_news(news: News, pokes: Pokes) -> None:
    assert pokes.wait(["tech:1"], 3, timeout_s=0.2) is None

    assert len(news.looks) >= 1  # at the start, and when the listener connected


def test_there_are_only_so_many_places(pokes: Pokes) -> None:
    assert [pokes.enter(), pokes.enter(), pokes.enter()] == [True, True, False]
    pokes.leave()
    assert pokes.enter()


def test_with_no_places_nobody_waits(news: News) -> None:
    assert not Pokes(news.listen, news.scope_heads, waiters=0).enter()
