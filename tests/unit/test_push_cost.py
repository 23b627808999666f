"""A push costs what it holds: not its square, and not what its records have gathered."""

from __future__ import annotations

from typing import Any

import pytest

import sync.merge3
from sync.clock import HUB
from sync.record import MISSING, Key
from tests.support.hub import Hub, device, mutation

ADA = device("T-1")
EVERYTHING = {HUB: 1_000_000}
LINES = [f"line {number}\n" for number in range(100)]


@pytest.fixture
def hub() -> Hub:
    return Hub()


def told(n: int, patch: dict[str, Any], base: dict[str, int], **more: Any) -> dict[str, Any]:
    return mutation(n, "update", "work_order", "WO-1", patch, base, **more)


def test_the_history_of_a_long_log_holds_only_what_came(hub: Hub) -> None:
    for n in range(1, 51):
        hub.one(ADA, told(n, {"labour": {"$append": [{"n": n}]}}, EVERYTHING))

    assert hub.data("work_order", "WO-1")["labour"] == [{"n": n} for n in range(1, 51)]
    *_, last = hub.store.state.history[Key("work_order", "WO-1")]
    (field,) = last.fields
    assert (field["before"], field["after"]) == ([], [{"n": 50}])


def test_each_text_is_compared_with_its_ancestor_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty edits of different lines that did not know of each other: a thousand comparisons, if each asked anew."""
    compared: list[str] = []
    table = sync.merge3._common_lines

    def counted(one: Any, two: Any) -> Any:
        compared.append("".join(two))
        return table(one, two)

    monkeypatch.setattr(sync.merge3, "_common_lines", counted)
    sync.merge3._changes.cache_clear()
    was, texts = "".join(LINES), []
    for place in range(0, 60, 2):
        texts.append("".join([*LINES[:place], f"other {place}\n", *LINES[place + 1 :]]))
    hub.push(ADA, *(told(n, {"resolution": text}, {}, was={"resolution": was}) for n, text in enumerate(texts, 1)))

    assert sorted(compared) == sorted(texts)


def test_a_text_longer_than_the_field_was_never_shown(hub: Hub) -> None:
    huge = {"title": "x" * 100_000}
    for n in (1, 2):
        hub.one(ADA, told(n, {"title": f"{n}"}, {}, was=huge))

    assert all(write.was is MISSING for write in hub.record("work_order", "WO-1").fields["title"].writes)
