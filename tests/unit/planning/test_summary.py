"""Which exchanges a summary covers, and what the model is asked."""

from typing import Any

import pytest

from master.planning.chat import estimate_chat_tokens, text_of
from master.planning.front_end import background_task
from master.planning.plan import StepKind
from master.planning.strategies import plan
from master.planning.summary import TASK, summariser, summary_question, to_summarise
from tests.unit.planning.fleets import CODER, QUOTING, SMALL, coder, fleet, small
from tests.unit.planning.test_memory import Summary, at, exchange


def test_all_but_half_a_window_is_covered() -> None:
    found = [exchange(n) for n in range(6)]
    chosen = to_summarise(found, None, 5, small())
    assert [one.request.int for one in chosen] == [0, 1, 2, 3]


def test_fewer_stay_out_where_fewer_were_shown() -> None:
    found = [*(exchange(n) for n in range(5)), exchange(5, turns=1)]
    assert len(to_summarise(found, None, 10, small())) == 5


def test_a_short_conversation_has_nothing_to_summarise() -> None:
    assert to_summarise([exchange(1)], None, 5, small()) == ()
    assert to_summarise([], None, 5, small()) == ()
    assert to_summarise([], None, 0, small()) == ()


def test_what_does_not_fit_the_model_waits_for_the_next_summary() -> None:
    tight = small(context_length=1500, max_output_tokens=500)
    found = [exchange(n, "x" * 800) for n in range(9)]
    chosen = to_summarise(found, None, 4, tight)
    assert 1 <= len(chosen) < 7
    assert estimate_chat_tokens(summary_question(chosen, None, tight).messages) + 600 <= 1500


@pytest.mark.parametrize("text", ["word " * 700, "語" * 3000, "a" * 2000 + "語" * 1000])
def test_a_turn_that_no_summary_has_room_for_is_shortened(text: str) -> None:
    rounds = [exchange(1), *(exchange(n, text, role="tool") for n in range(2, 40))]
    for model in (small(context_length=2048, max_output_tokens=500), small(context_length=8192)):
        chosen = to_summarise([*rounds, exchange(50), exchange(51)], None, 4, model)
        assert len(chosen) == 39
        question = summary_question(chosen, None, model)
        assert estimate_chat_tokens(question.messages) + 600 <= model.context_length
        assert "question 1" in text_of(question.messages[1])


def test_a_context_that_is_too_small_for_any_summary_gets_none() -> None:
    tiny = small(context_length=1100, max_output_tokens=200)
    assert to_summarise([exchange(n) for n in range(9)], None, 4, tiny) == ()


def test_rounds_of_a_tool_are_not_torn_apart() -> None:
    found = [exchange(1), exchange(2, role="tool"), exchange(3), exchange(4, role="tool")]
    assert [one.request.int for one in to_summarise(found, None, 2, small())] == [1, 2]


def test_the_earlier_summary_is_handed_on_and_all_is_quoted() -> None:
    question = summary_question(
        [exchange(3, "Wie heißt der Fluss und wo ist er?")], Summary("S1", at(0)), small()
    )
    instructions, material = (text_of(message) for message in question.messages)
    assert instructions.startswith("Fasse dieses Gespräch")
    assert material.startswith("<conversation-")
    assert material.index("S1") < material.index("User: Wie heißt") < material.index("Assistant:")


def test_it_is_a_background_task_for_the_model_of_the_role() -> None:
    question = summary_question([exchange(1)], None, small())
    assert background_task(question) == TASK
    for roles, model in (({}, SMALL), ({"summarise": CODER}, CODER), ({"task": CODER}, SMALL)):
        made = plan(question, fleet(small(), coder(), roles=roles))
        assert (made.steps[0].kind, made.steps[0].model) == (StepKind.TASK, model)


def test_who_only_quotes_does_not_summarise() -> None:
    given: Any = fleet(QUOTING)
    assert summariser(given) is None
    assert summariser(fleet(QUOTING, small())) == small()
