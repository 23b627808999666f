"""Three-way merge of text: both changes, or nobody's."""

from __future__ import annotations

import time
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from sync.merge3 import merge_texts

texts = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "\n", "a"]), max_size=6).map("".join)


def test_changes_of_different_lines_are_combined() -> None:
    base = "pump\nbelt\nfilter\nvalve\n"

    assert merge_texts(base, ["pump: ok\nbelt\nfilter\nvalve\n", "pump\nbelt\nfilter\nvalve: leaks\n"]) == (
        "pump: ok\nbelt\nfilter\nvalve: leaks\n"
    )


def test_lines_added_at_both_ends_are_combined() -> None:
    assert merge_texts("b\nc\n", ["a\nb\nc\n", "b\nc\nd\n"]) == "a\nb\nc\nd\n"


def test_a_line_taken_out_and_another_one_changed() -> None:
    assert merge_texts("a\nb\nc\n", ["b\nc\n", "a\nb\nC\n"]) == "b\nC\n"


def test_three_changes_of_three_lines_are_combined() -> None:
    base = "1\n2\n3\n4\n5\n"

    assert merge_texts(base, ["x\n2\n3\n4\n5\n", "1\n2\ny\n4\n5\n", "1\n2\n3\n4\nz\n"]) == "x\n2\ny\n4\nz\n"


def test_changes_of_the_same_line_are_not_combined() -> None:
    assert merge_texts("belt\n", ["belt worn\n", "belt torn\n"]) is None


def test_changes_of_bordering_lines_are_not_combined() -> None:
    """Whoever changed one of two lines had read the other."""
    assert merge_texts("a\nb\n", ["A\nb\n", "a\nB\n"]) is None


def test_two_lines_added_at_one_place_have_no_order() -> None:
    assert merge_texts("a\nb\n", ["a\nx\nb\n", "a\ny\nb\n"]) is None
    assert merge_texts("", ["x\n", "y\n"]) is None


def test_the_same_change_on_both_sides_is_made_once() -> None:
    assert merge_texts("a\nb\nc\n", ["a\nB\nc\n", "a\nB\nc\n"]) == "a\nB\nc\n"


def test_a_text_without_a_last_line_break_is_kept_as_it_is() -> None:
    assert merge_texts("a\nb\nc", ["A\nb\nc", "a\nb\nc"]) == "A\nb\nc"


def test_other_line_breaks_are_kept() -> None:
    assert merge_texts("a\r\nb\r\nc\r\n", ["A\r\nb\r\nc\r\n", "a\r\nb\r\nC\r\n"]) == "A\r\nb\r\nC\r\n"


def test_two_long_rewritten_texts_are_left_to_a_person_at_once() -> None:
    base = "".join(f"{n}\n" for n in range(3_000))
    one = "".join(f"one {n}\n" for n in range(3_000))
    two = "".join(f"two {n}\n" for n in range(3_000))
    began = time.perf_counter()

    assert merge_texts(base, [one, two]) is None
    assert time.perf_counter() - began < 1


def test_a_small_change_of_a_long_text_is_merged() -> None:
    lines = [f"{n}\n" for n in range(3_000)]
    one, two = lines.copy(), lines.copy()
    one[10], two[2_500] = "ten\n", "two thousand five hundred\n"

    merged = merge_texts("".join(lines), ["".join(one), "".join(two)])

    assert merged is not None
    assert merged.splitlines()[10] == "ten"
    assert merged.splitlines()[2_500] == "two thousand five hundred"


@given(texts, st.lists(texts, min_size=1, max_size=3))
def test_the_order_of_the_texts_does_not_matter(base: str, changed: list[str]) -> None:
    outcomes = {merge_texts(base, order) for order in permutations(changed)}

    assert len(outcomes) == 1


@given(texts, texts)
def test_against_no_change_the_other_text_stands(base: str, changed: str) -> None:
    assert merge_texts(base, [changed]) == changed
    assert merge_texts(base, [changed, base]) == changed


@given(texts)
def test_nothing_changed_is_the_ancestor(base: str) -> None:
    assert merge_texts(base, [base, base]) == base
    assert merge_texts(base, []) == base


@given(texts, st.lists(texts, min_size=1, max_size=3))
def test_a_text_given_twice_counts_once(base: str, changed: list[str]) -> None:
    assert merge_texts(base, [*changed, *changed]) == merge_texts(base, changed)


@given(texts, texts, texts)
def test_a_line_added_by_one_and_touched_by_nobody_is_in_the_merged_text(base: str, one: str, two: str) -> None:
    merged = merge_texts(base, [one, two])
    if merged is None:
        return

    lines = [set(text.splitlines()) for text in (base, one, two, merged)]
    assert (lines[1] - lines[0]) | (lines[2] - lines[0]) <= lines[3]
