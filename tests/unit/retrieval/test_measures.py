"""Measures against values worked out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.retrieval.evaluation.measures import ndcg, paired_interval, recall, reciprocal_rank

ids = st.lists(st.sampled_from("abcdefgh"), unique=True)
grades = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(-1, 3))


def test_a_perfect_order_has_ndcg_1() -> None:
    assert ndcg(["a", "b", "x"], {"a": 2, "b": 1}, 10) == 1.0


def test_ndcg_discounts_by_the_logarithm_of_the_place() -> None:
    assert ndcg(["x", "a"], {"a": 1}, 10) == pytest.approx(1 / math.log2(3))


def test_ndcg_weighs_grades() -> None:
    best = 3 + 1 / math.log2(3)
    assert ndcg(["b", "a"], {"a": 3, "b": 1}, 10) == pytest.approx((1 + 3 / math.log2(3)) / best)


def test_what_is_behind_k_does_not_count() -> None:
    ranked, relevant = ["x", "y", "a"], {"a": 1}
    assert [measure(ranked, relevant, 2) for measure in (ndcg, recall, reciprocal_rank)] == [0] * 3


def test_more_relevant_passages_than_places_can_still_be_perfect() -> None:
    assert ndcg(["a", "b"], {"a": 1, "b": 1, "c": 1}, 2) == 1.0
    assert recall(["a", "b"], {"a": 1, "b": 1, "c": 1}, 2) == pytest.approx(2 / 3)


def test_reciprocal_rank_is_that_of_the_first_relevant() -> None:
    assert reciprocal_rank(["x", "b", "a"], {"a": 1, "b": 1}, 10) == 0.5


def test_grade_0_is_not_relevant() -> None:
    assert recall(["b"], {"a": 1, "b": 0}, 10) == 0
    assert reciprocal_rank(["b", "a"], {"a": 1, "b": 0}, 10) == 0.5
    assert ndcg(["b", "a"], {"a": 1, "b": -1}, 10) == pytest.approx(1 / math.log2(3))


@pytest.mark.parametrize("measure", [ndcg, recall, reciprocal_rank])
def test_nothing_found_or_nothing_relevant_is_0(measure) -> None:  # type: ignore[no-untyped-def]  # three of one shape
    assert measure([], {"a": 1}, 10) == 0
    assert measure(["a"], {}, 10) == 0
    assert measure(["a"], {"a": 0}, 10) == 0


def test_an_id_that_is_ranked_twice_counts_once() -> None:
    assert ndcg(["a", "a"], {"a": 1, "b": 1}, 10) == ndcg(["a"], {"a": 1, "b": 1}, 10)
    assert recall(["x", "x", "a"], {"a": 1}, 2) == 1.0


@given(ids, grades, st.integers(1, 10))
def test_measures_are_between_0_and_1(ranked: list[str], relevant: dict[str, int], k: int) -> None:
    for measure in (ndcg, recall, reciprocal_rank):
        assert 0 <= measure(ranked, relevant, k) <= 1 + 1e-12


@given(ids, grades, st.integers(1, 10))
def test_a_relevant_passage_in_front_never_makes_it_worse(
    ranked: list[str], relevant: dict[str, int], k: int
) -> None:
    better = ["best", *ranked]
    wanted = {**relevant, "best": 3}
    for measure in (ndcg, reciprocal_rank):
        assert measure(better, wanted, k) >= measure([*ranked, "best"], wanted, k) - 1e-12


def test_the_interval_of_one_and_the_same_ranking_is_0() -> None:
    interval = paired_interval([0.5, 1.0, 0.0], [0.5, 1.0, 0.0])
    assert (interval.low, interval.mean, interval.high) == (0, 0, 0)


def test_a_constant_lead_is_certain() -> None:
    interval = paired_interval([0.75] * 20, [0.5] * 20)
    assert (interval.low, interval.mean, interval.high) == (0.25, 0.25, 0.25)


def test_a_lead_on_one_query_of_many_is_not_certain() -> None:
    interval = paired_interval([1.0] + [0.5] * 29, [0.5] * 30)
    assert interval.low == 0 < interval.mean < interval.high


def test_the_interval_is_near_that_of_the_normal_distribution() -> None:
    ours = [1.0] * 300 + [0.0] * 100
    interval = paired_interval(ours, [0.0] * 400)
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert interval.low == pytest.approx(0.75 - half, abs=0.01)
    assert interval.high == pytest.approx(0.75 + half, abs=0.01)


def test_the_same_seed_gives_the_same_interval() -> None:
    ours, theirs = [(n * 37 % 101) / 101 for n in range(60)], [0.4] * 60
    assert paired_interval(ours, theirs) == paired_interval(ours, theirs)
    assert paired_interval(ours, theirs, seed=1) != paired_interval(ours, theirs, seed=2)


def test_lists_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_interval([1.0, 0.5], [1.0])


def test_no_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="no queries"):
        paired_interval([], [])
