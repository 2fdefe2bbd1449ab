"""Votes decide about rules: not too early, not by a few, and seldom wrongly."""

import math
import random
from collections.abc import Iterator
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.rules.rule import Arm
from master.rules.trial import MOST_VOTES, Decision, Terms, Verdict, Vote, decide

TERMS = Terms()
scores = st.floats(0, 1)
compared = st.sampled_from((Arm.CANARY, Arm.CONTROL))
vote = st.builds(Vote, st.sampled_from([f"user:{n}" for n in range(12)]), compared, scores)
votes = st.lists(vote, max_size=60)


def many(arm: Arm, good: int, bad: int, raters: int = 20) -> list[Vote]:
    """So many good and bad votes, of people who take turns."""
    said = [1.0] * good + [0.0] * bad
    return [Vote(f"user:{n % raters}", arm, score) for n, score in enumerate(said)]


def clear(tried: Arm = Arm.CANARY) -> list[Vote]:
    return many(tried, 36, 4) + many(Arm.CONTROL, 12, 28)


def test_a_clear_lift_is_promoted_and_its_reason_has_the_numbers() -> None:
    found = decide(clear(), Arm.CANARY, TERMS)
    assert found.verdict is Verdict.PROMOTE
    assert (found.tried.votes, found.tried.raters, found.tried.given) == (40, 20, 40)
    assert (found.tried.mean, found.control.mean) == (0.9, 0.3)
    assert found.lift == pytest.approx(0.6)
    assert found.evidence >= found.needed == 20
    assert found.reason.startswith(
        "better: 0.90 with it (40 votes, 20 raters), 0.30 without (40 votes, 20 raters); evidence "
    )


def test_the_same_the_other_way_round_is_rejected() -> None:
    worse = [Vote(each.rater, each.arm, 1 - each.score) for each in clear()]
    assert decide(worse, Arm.CANARY, TERMS).verdict is Verdict.REJECT


def test_an_active_rule_is_rolled_back_or_left_alone() -> None:
    better = clear(Arm.ACTIVE)
    worse = [Vote(each.rater, each.arm, 1 - each.score) for each in better]
    assert decide(better, Arm.ACTIVE, TERMS).verdict is Verdict.WAIT
    assert decide(worse, Arm.ACTIVE, TERMS).verdict is Verdict.ROLL_BACK


@pytest.mark.parametrize(
    "said",
    [
        [],
        many(Arm.CANARY, 40, 0),
        many(Arm.CANARY, 29, 0) + many(Arm.CONTROL, 0, 40),
        many(Arm.CANARY, 40, 0) + many(Arm.CONTROL, 0, 29),
        many(Arm.CANARY, 400, 0, raters=4) + many(Arm.CONTROL, 0, 400),
        many(Arm.SHADOW, 400, 0) + many(Arm.CONTROL, 0, 400),
    ],
    ids=["nothing", "one arm", "29 with it", "29 without", "4 raters", "in the shadow"],
)
def test_too_little_is_waited_for(said: list[Vote]) -> None:
    assert decide(said, Arm.CANARY, TERMS).verdict is Verdict.WAIT


@given(votes, st.randoms(use_true_random=False))
def test_the_order_of_votes_says_nothing(said: list[Vote], dice: random.Random) -> None:
    found = decide(said, Arm.CANARY, TERMS)
    dice.shuffle(said)
    again = decide(said, Arm.CANARY, TERMS)
    assert again.lift == pytest.approx(found.lift)
    assert again.evidence == pytest.approx(found.evidence)


@given(votes)
def test_evidence_is_a_number_and_knows_no_side(said: list[Vote]) -> None:
    found = decide(said, Arm.CANARY, TERMS)
    turned = [Vote(each.rater, each.arm, 1 - each.score) for each in said]
    assert 0 < found.evidence < math.inf
    assert decide(turned, Arm.CANARY, TERMS).lift == pytest.approx(-found.lift, abs=1e-9)
    assert decide(turned, Arm.CANARY, TERMS).evidence == pytest.approx(found.evidence)


@given(votes, st.floats(0, 1), st.integers(1, 500))
def test_one_rater_moves_a_mean_by_at_most_its_bound(
    said: list[Vote], score: float, count: int
) -> None:
    before = decide(said, Arm.CANARY, TERMS).tried
    more = [*said, *[Vote("user:new", Arm.CANARY, score)] * count]
    after = decide(more, Arm.CANARY, TERMS).tried
    assert after.votes - before.votes == min(count, MOST_VOTES)
    assert after.raters == before.raters + 1
    if before.votes:
        assert abs(after.mean - before.mean) <= MOST_VOTES / after.votes + 1e-9


@given(votes, st.integers(1, 50))
def test_below_the_least_raters_nothing_is_decided(said: list[Vote], times: int) -> None:
    terms = Terms(votes=1, raters=13)
    assert decide(said * times, Arm.CANARY, terms).verdict is Verdict.WAIT


def test_thousands_of_votes_do_not_overflow() -> None:
    said = many(Arm.CANARY, 20_000, 0, raters=5_000) + many(Arm.CONTROL, 0, 20_000, raters=5_000)
    found = decide(said, Arm.CANARY, TERMS)
    assert found.verdict is Verdict.PROMOTE
    assert math.isfinite(found.evidence)


@pytest.mark.parametrize("score", [-0.01, 1.01, math.nan, math.inf], ids=str)
def test_a_score_beyond_its_bounds_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Vote("user:a", Arm.CANARY, score)


@pytest.mark.parametrize("arm", [Arm.SHADOW, Arm.CONTROL])
def test_an_arm_that_changes_nothing_cannot_be_on_trial(arm: Arm) -> None:
    with pytest.raises(ValueError, match="not changed by the rule"):
        decide([], arm, TERMS)


# --- how often it errs, looked at again and again -----------------------------------------------


def people(
    dice: random.Random, *, raters: int, taste: float, lift: float, share: float, count: int
) -> list[Vote]:
    """Votes as they come: each person likes answers more or less, and votes often or seldom."""
    likings = [min(max(dice.gauss(0.55, taste), 0.02), 0.98) for _ in range(raters)]
    eagerness = list(accumulate(dice.paretovariate(1.2) for _ in range(raters)))
    said = []
    for person in dice.choices(range(raters), cum_weights=eagerness, k=count):
        arm = Arm.CANARY if dice.random() < share else Arm.CONTROL
        liked = dice.random() < likings[person] + lift * (arm is Arm.CANARY)
        said.append(Vote(f"user:{person}", arm, float(liked)))
    return said


def looks(said: list[Vote], every: int) -> Iterator[Decision]:
    return (decide(said[:end], Arm.CANARY, TERMS) for end in range(every, len(said) + 1, every))


def ended(said: list[Vote], every: int = 15) -> Verdict:
    """The first verdict that is one, as a trial ends with it."""
    found = (each.verdict for each in looks(said, every) if each.verdict is not Verdict.WAIT)
    return next(found, Verdict.WAIT)


@pytest.mark.parametrize(
    ("raters", "taste", "share"),
    [(10, 0.3, 0.5), (15, 0.1, 0.2), (60, 0.3, 0.2), (120, 0.0, 0.5)],
)
def test_a_rule_that_changes_nothing_is_seldom_promoted_whenever_one_looks(
    raters: int, taste: float, share: float
) -> None:
    dice = random.Random(20_260 + raters)
    ends = [
        ended(people(dice, raters=raters, taste=taste, lift=0.0, share=share, count=400), 20)
        for _ in range(40)
    ]
    # As many as 40 draws of 5 % have in all but 1 of 1000 series, and of 22 %.
    assert ends.count(Verdict.PROMOTE) <= 7
    assert ends.count(Verdict.REJECT) <= 18


def test_the_larger_the_lift_the_more_often_it_is_found() -> None:
    promoted = []
    for lift in (0.0, 0.15, 0.3):
        dice = random.Random(7)
        ends = [
            ended(people(dice, raters=40, taste=0.15, lift=lift, share=0.4, count=450), 45)
            for _ in range(20)
        ]
        promoted.append(ends.count(Verdict.PROMOTE))
        assert ends.count(Verdict.REJECT) <= 5
    assert promoted == sorted(promoted)
    assert promoted[0] <= 2
    assert promoted[2] >= 16


@pytest.mark.parametrize("lift", [0.0, -0.2])
def test_three_cheats_with_a_third_of_the_votes_do_not_buy_a_rule(lift: float) -> None:
    for seed in range(8):
        dice = random.Random(seed)
        said = people(dice, raters=30, taste=0.15, lift=lift, share=0.3, count=400)
        bought = [
            Vote(f"user:cheat-{dice.randrange(3)}", each.arm, float(each.arm is Arm.CANARY))
            if dice.random() < 1 / 3
            else each
            for each in said
        ]
        assert ended(bought, 25) is not Verdict.PROMOTE
