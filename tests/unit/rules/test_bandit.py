"""Which model is chosen: nothing changes without evidence, and no one rater changes it."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.rules.bandit import (
    LEAST_RATERS,
    LEAST_VOTES,
    MARGIN,
    MOST_OF_A_RATER,
    Tally,
    Why,
    belief,
    choose,
    explanation,
    settled,
)

MODELS = ("first", "second", "third")


@st.composite
def tallies(draw: st.DrawFn) -> Tally:
    votes = draw(st.floats(0, 300))
    raters = draw(st.integers(0, 50)) if votes else 0
    return Tally(votes, votes * draw(st.floats(0, 1)), raters)


def tally(good: float, votes: float, raters: int | None = None) -> Tally:
    return Tally(votes, good, raters if raters is not None else round(votes / MOST_OF_A_RATER) + 1)


@given(st.integers(0, 2**32))
def test_without_evidence_the_registrys_model_is_chosen(seed: int) -> None:
    assert settled({}, MODELS).model == "first"
    assert choose({}, MODELS, 0.0, Random(seed)) == settled({}, MODELS)


@given(tallies(), st.floats(0, MOST_OF_A_RATER), st.floats(0, 1))
def test_one_rater_alone_puts_no_model_in_the_place_of_another(
    default: Tally, votes: float, mean: float
) -> None:
    one = Tally(votes, votes * mean, 1)
    assert settled({"first": default, "second": one}, MODELS).model == "first"
    dice = Random(1)
    chosen = {choose({"first": default, "second": one}, MODELS, 1e-9, dice).model for _ in range(9)}
    assert chosen == {"first"}


@given(st.floats(0, 300), st.floats(0, 1))
def test_one_rater_moves_what_is_believed_by_little(votes: float, mean: float) -> None:
    before = Tally(votes, votes * mean, 20)
    worst = Tally(votes + MOST_OF_A_RATER, before.good, 21)
    moved = belief(before, default=False).mean - belief(worst, default=False).mean
    assert 0 <= moved <= MOST_OF_A_RATER / (10 + votes)


@given(st.dictionaries(st.sampled_from(MODELS), tallies()))
def test_who_takes_the_default_models_place_was_judged_enough_and_is_clearly_better(found) -> None:
    chosen = settled(found, MODELS)
    if chosen.why is Why.FIRST:
        assert chosen.model == "first"
        return
    best = found[chosen.model]
    default = found.get("first", Tally())
    assert (best.votes >= LEAST_VOTES, best.raters >= LEAST_RATERS) == (True, True)
    lift = belief(best, default=False).mean - belief(default, default=True).mean
    assert lift > MARGIN


def test_a_better_model_wins_as_evidence_grows_and_stays() -> None:
    dice = Random(7)
    quality = {"first": 0.6, "second": 0.85, "third": 0.5}
    good: Counter[str] = Counter()
    chosen = []
    for people in range(1, 60):
        for name in MODELS:
            good[name] += sum(dice.random() < quality[name] for _ in range(2))
        found = {name: Tally(2.0 * people, good[name], people) for name in MODELS}
        chosen.append(settled(found, MODELS).model)
    assert chosen[:3] == ["first"] * 3
    assert set(chosen[-20:]) == {"second"}


def test_a_default_model_that_is_disliked_gives_way_and_a_better_one_takes_it_back() -> None:
    better = {"first": tally(4, 40), "second": tally(28, 40)}
    assert settled(better, MODELS).why is Why.JUDGED
    assert settled(better | {"second": tally(0, 90)}, MODELS).model == "first"


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_every_model_gets_its_share_of_what_is_explored(share: float) -> None:
    dice, found = Random(3), {"first": tally(90, 100), "second": tally(1, 100)}
    asked = 4_000
    chosen = Counter(choose(found, MODELS, share, dice).model for _ in range(asked))
    for name in MODELS:
        assert chosen[name] > 0.8 * asked * share / len(MODELS)
    assert chosen["first"] > asked * (1 - share)


def test_thompson_asks_those_most_that_are_most_likely_the_best() -> None:
    found = {"first": tally(60, 100), "second": tally(72, 100), "third": tally(40, 100)}
    dice = Random(5)
    chosen = Counter(choose(found, MODELS, 0.001, dice).model for _ in range(2_000))
    assert chosen["second"] > chosen["first"] > chosen["third"]


def test_a_choice_says_whether_it_is_only_tried() -> None:
    dice = Random(1)
    seen = {choose({}, MODELS, 0.5, dice) for _ in range(200)}
    assert {(choice.model, choice.why) for choice in seen} == {
        ("first", Why.FIRST),
        ("second", Why.TRIED),
        ("third", Why.TRIED),
    }


def test_every_model_has_an_explanation() -> None:
    found = {"first": tally(10, 40), "second": tally(36, 40), "third": tally(2, 2, 1)}
    best = settled(found, MODELS).model
    assert best == "second"
    said = {name: explanation(found, MODELS, name, best) for name in MODELS}
    assert said == {
        "first": "the registry prefers it; second was judged better",
        "second": "judged better than first: 0.82 against 0.40",
        "third": "2 of 10 votes by 1 of 4 people",
    }
    close = {"second": tally(30, 40)}
    assert "not better than first" in explanation(close, MODELS, "second", "first")
