"""In a small world the share of good answers rises, and cheats do not turn that round."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from queue_schemas.states import RuleState
from scripts.learning_simulation import (
    BASE,
    SPOILED,
    Outcome,
    World,
    first_and_last,
    simulate,
    svg,
    table,
)

SMALL = World(people=40, days=40, questions=80, rating_share=0.5, share=0.3)


def test_good_rules_come_and_a_harmful_one_goes() -> None:
    found = simulate(SMALL, seed=1)
    assert found.states["better-route"] is RuleState.ACTIVE
    assert found.states["harmful-prompt"] is RuleState.REJECTED
    assert first_and_last([found])[1] > BASE + 0.1


@pytest.mark.parametrize("seed", [1, 2])
def test_a_third_of_the_votes_from_three_cheats_do_not_let_it_fall(seed: int) -> None:
    found = simulate(replace(SMALL, poisoned=0.3), seed)
    assert found.states["harmful-prompt"] is not RuleState.ACTIVE
    assert first_and_last([found])[1] >= BASE


def test_a_rule_that_turns_bad_is_taken_back() -> None:
    found = simulate(replace(SMALL, spoils=True, days=80), seed=1)
    assert [said.split()[0] for said in found.histories[SPOILED]] == ["active", "retired"]


def test_without_votes_nothing_becomes_active() -> None:
    found = simulate(replace(SMALL, rating_share=0.0), seed=1)
    assert set(found.states.values()) == {RuleState.CANARY}


def test_the_same_seed_is_the_same_run() -> None:
    short = replace(SMALL, days=10)
    assert simulate(short, 3) == simulate(short, 3)


def test_table_and_plot_show_every_scene_within_the_frame() -> None:
    outcome = Outcome([0.4, 0.8] * 20, {}, dict.fromkeys(("x",), RuleState.ACTIVE))
    states = dict.fromkeys(simulate(replace(SMALL, days=1), 1).states, RuleState.ACTIVE)
    scenes = {f"scene <{n}>": [replace(outcome, states=states)] * 2 for n in range(4)}
    assert table(scenes).count("| 2 active |") >= 4
    drawn = svg(scenes)
    root = ElementTree.fromstring(drawn)
    assert len(root.findall("{*}polyline")) == 4 * 3
    heights = [float(y) for y in re.findall(r"\d+,(\d+)[ \"]", drawn)]
    assert min(heights) >= 40
    assert max(heights) <= 340
