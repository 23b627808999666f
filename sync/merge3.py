"""Three-way merge of text, line by line: changes of different lines are combined, changes of the same lines are not.

Each side is compared with the common ancestor alone, so the outcome cannot depend on which side is called first.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NamedTuple


class Hunk(NamedTuple):
    """`ancestor[start:end]` was replaced by `lines`."""

    start: int
    end: int
    lines: tuple[str, ...]


def merge_texts(ancestor: str, texts: Sequence[str]) -> str | None:
    """The ancestor with the changes of all `texts`, or None if two of them touch or border the same lines."""
    lines = ancestor.splitlines(keepends=True)
    hunks = sorted({hunk for text in texts for hunk in _changes(lines, text)})
    # Bordering counts as touching: two lines inserted at one place have no order of their own.
    if any(later.start <= earlier.end for earlier, later in zip(hunks, hunks[1:], strict=False)):
        return None
    for hunk in reversed(hunks):
        lines[hunk.start : hunk.end] = hunk.lines
    return "".join(lines)


def _changes(ancestor: list[str], text: str) -> list[Hunk]:
    changed = text.splitlines(keepends=True)
    matcher = difflib.SequenceMatcher(None, ancestor, changed, autojunk=False)
    return [Hunk(a, b, tuple(changed[c:d])) for tag, a, b, c, d in matcher.get_opcodes() if tag != "equal"]
