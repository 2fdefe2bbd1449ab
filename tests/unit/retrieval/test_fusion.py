"""Two legs become one ranking."""

import math

import pytest

from master.retrieval.fusion import fuse, rerank_score


def ranking(dense, sparse, weight=0.7, count=1000):
    return [one.chunk for one in fuse(dense, sparse, weight, count)]


def test_each_leg_alone_keeps_its_order():
    assert ranking({1: 0.9, 2: 0.5, 3: -0.2}, None) == [1, 2, 3]
    assert ranking(None, {7: 3.0, 8: 12.0}) == [8, 7]


def test_the_weight_decides_where_the_legs_disagree():
    dense, sparse = {1: 0.9, 2: 0.3}, {1: 0.0, 2: 20.0}
    assert ranking(dense, sparse, 0.9) == [1, 2]
    assert ranking(dense, sparse, 0.1) == [2, 1]


def test_scores_are_between_zero_and_one_whatever_the_legs_say():
    fused = fuse({1: 1.0000001, 2: -1.0}, {1: 1e6, 3: 0.0}, 0.5, 10)
    assert all(0 <= one.score <= 1 for one in fused)


def test_how_many_candidates_there_are_changes_no_score():
    few = fuse({1: 0.8}, {1: 4.0}, 0.7, 1000)[0]
    many = fuse({1: 0.8, 2: 0.1, 3: 0.99}, {1: 4.0, 4: 30.0}, 0.7, 1000)
    assert few in many


def test_a_rare_word_is_half_of_what_words_can_say():
    [only] = fuse(None, {1: one_rare_word(1000)}, 0.7, 1000)
    assert only.score == pytest.approx(0.5)


def one_rare_word(count: int) -> float:
    """BM25 of one word that one chunk has, repeated without end: ln(1+(N-0.5)/1.5) * 2.2."""
    return math.log(1 + (count - 0.5) / 1.5) * 2.2


def test_equals_have_one_order():
    assert ranking({5: 0.5, 3: 0.5, 4: 0.5}, {}) == [3, 4, 5]


def test_nothing_found_is_an_empty_ranking():
    assert fuse({}, {}, 0.7, 0) == []
    assert fuse(None, None, 0.7, 0) == []


def test_the_second_ranking_is_the_seeds_by_default():
    assert rerank_score(1.0, 0.0) == pytest.approx(0.6)
    assert rerank_score(0.0, 1.0) == pytest.approx(0.4)
