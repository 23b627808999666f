"""Version vectors: what somebody had seen, and what follows what."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sync.clock import EPOCH_BITS, HUB, Dot, contains, descends, is_concurrent, join, next_version

clocks = st.dictionaries(st.sampled_from([HUB, "r_a", "r_b", "r_c"]), st.integers(0, 5))
dots = st.builds(Dot, st.integers(1, 6), st.sampled_from(["r_a", "r_b", "r_c"]), st.integers(1, 6))


def test_a_story_of_two_devices() -> None:
    """Serves as an example: both read version 3, then each writes without knowing of the other."""
    read = {HUB: 3}
    ada, ben = Dot(4, "r_ada", 1), Dot(5, "r_ben", 1)

    assert not contains(read, ada)
    assert contains({HUB: 3, "r_ada": 1}, ada), "a device knows its own work before it pulls it"
    assert not contains({HUB: 3, "r_ada": 1}, ben)
    assert contains({HUB: 5}, ada)
    assert contains({HUB: 5}, ben)


def test_either_coordinate_of_a_dot_is_enough() -> None:
    assert contains({HUB: 4}, Dot(4, "r_a", 9))
    assert contains({"r_a": 9}, Dot(4, "r_a", 9))
    assert not contains({HUB: 3, "r_a": 8}, Dot(4, "r_a", 9))


def test_a_dot_without_a_replica_is_known_by_its_version_alone() -> None:
    assert not contains({HUB: 3, "r_a": 99}, Dot(4))
    assert contains({HUB: 4}, Dot(4))


def test_nothing_was_seen_by_an_empty_base() -> None:
    assert not contains({}, Dot(1, "r_a", 1))


def test_vectors_that_each_lack_something_are_concurrent() -> None:
    assert is_concurrent({HUB: 3, "r_a": 1}, {HUB: 3, "r_b": 1})
    assert not is_concurrent({HUB: 3}, {HUB: 3, "r_b": 1})
    assert not is_concurrent({HUB: 3}, {HUB: 3})


@given(clocks)
def test_a_vector_is_its_own_descendant(clock: dict[str, int]) -> None:
    assert descends(clock, clock)
    assert not is_concurrent(clock, clock)


@given(clocks, clocks)
def test_of_two_vectors_exactly_one_relation_holds(one: dict[str, int], two: dict[str, int]) -> None:
    after, before = descends(one, two), descends(two, one)

    assert is_concurrent(one, two) == is_concurrent(two, one) == (not after and not before)


@given(clocks, clocks, clocks)
def test_joining_is_commutative_associative_and_idempotent(
    a: dict[str, int], b: dict[str, int], c: dict[str, int]
) -> None:
    assert join([a, b]) == join([b, a])
    assert join([a, join([b, c])]) == join([join([a, b]), c]) == join([a, b, c])
    assert join([a, a]) == a
    assert join([]) == {}


@given(clocks, clocks)
def test_a_join_is_the_least_vector_above_both(one: dict[str, int], two: dict[str, int]) -> None:
    both = join([one, two])

    assert descends(both, one)
    assert descends(both, two)
    assert all(both[actor] in (one.get(actor), two.get(actor)) for actor in both)


@given(clocks, clocks, dots)
def test_whoever_descends_has_seen_no_less(one: dict[str, int], two: dict[str, int], dot: Dot) -> None:
    if contains(one, dot):
        assert contains(join([one, two]), dot)


def test_versions_count_up_and_jump_to_the_floor_of_a_later_epoch() -> None:
    assert next_version(0, 0) == 1
    assert next_version(17, 0) == 18
    assert next_version(17, 3) == (3 << EPOCH_BITS) + 1
    assert next_version((3 << EPOCH_BITS) + 5, 3) == (3 << EPOCH_BITS) + 6


@given(st.integers(0, 2**31), st.integers(0, 2**20), st.integers(0, 2**20))
def test_no_version_is_issued_twice_across_a_restore(version: int, epoch: int, later: int) -> None:
    """Whatever was issued before the backup was restored lies below all that is issued after it."""
    lost = next_version(max(version, (epoch << EPOCH_BITS) + version), epoch)

    assert next_version(version, epoch + 1 + later) > lost
