"""The trial of a rule as drawings with words."""

import random
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest

from master.console.lift_plot import DatedVote, interval, over_time, rates, running_means
from master.rules.rule import Arm
from master.rules.trial import Decision, Side, Terms, Vote, decide

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)


def votes(count: int = 40, seed: int = 1) -> list[DatedVote]:
    chance = random.Random(seed)
    return [
        DatedVote(
            BEGAN + timedelta(hours=number),
            f"user:{chance.randrange(9)}",
            chance.choice([Arm.CANARY, Arm.CONTROL]),
            chance.choice([0.0, 0.5, 1.0]),
        )
        for number in range(count)
    ]


def decision(said: list[DatedVote]) -> Decision:
    return decide([Vote(each.rater, each.arm, each.score) for each in said], Arm.CANARY, Terms())


def test_the_line_ends_where_the_trial_stands() -> None:
    said = votes()
    found = decision(said)
    for arm, side in ((Arm.CANARY, found.tried), (Arm.CONTROL, found.control)):
        means = running_means(vote for vote in said if vote.arm is arm)
        assert len(means) == side.given
        assert means[-1][1] == pytest.approx(side.mean)


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (Side(0, 0, 0, 0.5), (0.0, 1.0)),
        (Side(10, 10, 5, 1.0), (0.722, 1.0)),
        (Side(10, 10, 5, 0.0), (0.0, 0.278)),
        (Side(100, 100, 40, 0.5), (0.404, 0.596)),
    ],
    ids=["no votes", "all good", "all bad", "half"],
)
def test_intervals_are_as_wide_as_votes_are_few(side: Side, expected: tuple[float, float]) -> None:
    assert interval(side) == pytest.approx(expected, abs=0.001)


def test_a_drawing_says_in_words_what_it_shows() -> None:
    said = votes()
    found = decision(said)
    for drawn in (rates(found), over_time(said, Arm.CANARY)):
        picture = ElementTree.fromstring(str(drawn))
        title, words = picture[0], picture[1]
        assert picture.get("role") == "img"
        assert picture.get("aria-labelledby") == f"{title.get('id')} {words.get('id')}"
        assert "with it" in str(words.text)
        assert "votes" in str(words.text)
        assert "style" not in str(drawn)
    assert f"with it {found.tried.mean:.2f}" in str(rates(found))


def test_many_votes_make_no_long_line() -> None:
    drawn = str(over_time(votes(5000), Arm.CANARY))
    assert len(drawn) < 10_000


def test_without_votes_there_is_no_line_and_no_interval() -> None:
    assert over_time([], Arm.CANARY) == ""
    assert over_time(votes(1), Arm.CANARY) == ""
    assert str(rates(decision([]))).count("no votes yet") == 2


def test_votes_of_one_moment_and_of_one_arm_are_drawn() -> None:
    said = [DatedVote(BEGAN, f"user:{n}", Arm.CANARY, 1.0) for n in range(3)]
    drawn = str(over_time(said, Arm.CANARY))
    assert drawn.count("<polyline") == 1
    assert "without no votes" in drawn
