"""How much room memory has: rules may say something, too."""

from typing import Any
from uuid import UUID

import pytest

from master.planning.assign import output_limit
from master.planning.chat import estimate_chat_tokens
from master.planning.compose import messages_for
from master.planning.memory import Past, remember, woven
from master.planning.question import Question
from master.planning.strategies import plan
from master.planning.under_rules import under_rules
from master.remembering import room_for_memory
from master.rules.matching import RuleInForce
from master.rules.rule import PromptChange, Scope
from queue_schemas.states import RuleState
from tests.unit.planning.fleets import SMALL, fleet, small
from tests.unit.planning.test_memory import exchange

ASKED: Any = ({"role": "user", "content": "And now?"},)
LONG = PromptChange(kind="prompt", text="Be brief. " * 199)


def brief(state: RuleState = RuleState.ACTIVE, **scope: Any) -> RuleInForce:
    return RuleInForce(UUID(int=1), "brief", 1, Scope(**scope), LONG, state)


@pytest.mark.parametrize("model", [SMALL, "millrace/direct", "millrace/auto"])
def test_what_a_rule_says_fits_beside_what_is_remembered(model: str) -> None:
    engine = small(context_length=4096, max_output_tokens=1024)
    known, asked = fleet(engine), Question(model, ASKED)
    past = Past(UUID(int=9), tuple(exchange(n, "w " * 50, "w " * 100) for n in range(40)), 40)
    room = room_for_memory(asked, known, [brief()])
    given = Question(model, ASKED, remembered=remember(past, ASKED, 40, room))
    made = plan(woven(under_rules(given, [brief()], UUID(int=5), known)), known)
    assert [rule.name for rule in made.rules] == ["brief"]
    told = messages_for(made, made.steps[0], {})
    assert LONG.text[:50] in str(told)
    assert estimate_chat_tokens(told) + output_limit({}, engine) <= engine.context_length


def test_rules_that_do_not_hold_take_no_room() -> None:
    known, asked = fleet(small()), Question("millrace/direct", ASKED)
    alone = room_for_memory(asked, known, [])
    assert room_for_memory(asked, known, [brief()]) < alone
    for other in (brief(RuleState.SHADOW), brief(topic=("weather",)), brief(strategy="crew")):
        assert room_for_memory(asked, known, [other]) == alone
    background = Question("millrace/direct", ASKED, task="title_generation")
    assert room_for_memory(background, known, [brief()]) == alone
