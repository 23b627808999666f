"""Three-way merge of text, line by line: changes of different lines are combined, changes of the same lines are not.

Each side is compared with the common ancestor alone, so the outcome cannot depend on which side is called first.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

MAX_CELLS = 40_000  # 200 changed lines on both sides; some 10 ms, and no text makes a push slow
MAX_KEPT = 512  # comparisons remembered: as many as a push has mutations, at most some 20 MB


class Hunk(NamedTuple):
    """`ancestor[start:end]` was replaced by `lines`."""

    start: int
    end: int
    lines: tuple[str, ...]


def merge_texts(ancestor: str, texts: Sequence[str]) -> str | None:
    """The ancestor with the changes of all `texts`, or None if two of them touch or border the same lines."""
    lines = ancestor.splitlines(keepends=True)
    hunks: list[Hunk] = []
    for text in texts:
        hunks = sorted({*hunks, *_changes(ancestor, text)})
        # Bordering counts as touching: two lines inserted at one place have no order of their own.
        if any(later.start <= earlier.end for earlier, later in pairwise(hunks)):
            return None
    for hunk in reversed(hunks):
        lines[hunk.start : hunk.end] = hunk.lines
    return "".join(lines)


# Every further write of a field asks about all the earlier ones again.
@functools.lru_cache(maxsize=MAX_KEPT)
def _changes(ancestor: str, text: str) -> tuple[Hunk, ...]:
    before, after = ancestor.splitlines(keepends=True), text.splitlines(keepends=True)
    kept = [(-1, -1), *_common_lines(before, after), (len(before), len(after))]
    return tuple(Hunk(a + 1, b, tuple(after[c + 1 : d])) for (a, c), (b, d) in pairwise(kept) if b - a > 1 or d - c > 1)


def _common_lines(one: Sequence[str], two: Sequence[str]) -> list[tuple[int, int]]:
    """The places of a longest common subsequence, by the textbook table."""
    start = 0
    while start < min(len(one), len(two)) and one[start] == two[start]:
        start += 1
    end = 0
    while end < min(len(one), len(two)) - start and one[-1 - end] == two[-1 - end]:
        end += 1
    head = [(place, place) for place in range(start)]
    tail = [(len(one) - end + place, len(two) - end + place) for place in range(end)]
    middle = _table(one[start : len(one) - end], two[start : len(two) - end])
    return [*head, *((start + a, start + b) for a, b in middle), *tail]


def _table(one: Sequence[str], two: Sequence[str]) -> list[tuple[int, int]]:
    if len(one) * len(two) > MAX_CELLS:
        return []  # then the whole middle is one change, and two of those are for a person
    longest = [[0] * (len(two) + 1) for _ in range(len(one) + 1)]
    for a in reversed(range(len(one))):
        for b in reversed(range(len(two))):
            same = one[a] == two[b]
            longest[a][b] = longest[a + 1][b + 1] + 1 if same else max(longest[a + 1][b], longest[a][b + 1])
    places, a, b = [], 0, 0
    while a < len(one) and b < len(two):
        if one[a] == two[b]:
            places.append((a, b))
            a, b = a + 1, b + 1
        elif longest[a + 1][b] >= longest[a][b + 1]:
            a += 1
        else:
            b += 1
    return places
