"""What an engine says of a failure is logged without what it repeats of the question."""

import pytest

from queue_schemas.messages import SubtaskRequest
from tests.doubles.subtasks import a_subtask
from worker.quoting import IN_ITS_PLACE, unquoted


def asked(*contents: object) -> SubtaskRequest:
    messages = tuple({"role": "user", "content": each} for each in contents)
    return a_subtask(messages=messages, shown="What clients have seen of it")


@pytest.mark.parametrize(
    "said",
    [
        "cannot parse 'My secret is a mill wheel.'",
        "unexpected token near 'cret is a mill wheel'",
        "after 'clients have seen of it' came nothing",
        "a PIN: 4711!! is no prompt",
    ],
)
def test_a_line_that_repeats_what_was_asked_is_replaced(said: str) -> None:
    parts = [{"type": "text", "text": "My secret is a mill wheel."}, {"type": "image_url"}]
    subtask = asked(parts, "4711!!", None, "x")
    assert unquoted(said, subtask) == IN_ITS_PLACE
    assert unquoted(f"HTTP 400\n{said}", subtask) == f"HTTP 400\n{IN_ITS_PLACE}"


@pytest.mark.parametrize("said", ["", "the engine is busy", "no such model: mill", "is a mill"])
def test_what_an_engine_says_of_itself_stays(said: str) -> None:
    assert unquoted(said, asked("My secret is a mill wheel.", "x")) == said


@pytest.mark.parametrize("before", range(9))
def test_any_sixteen_characters_are_found_wherever_they_are(before: int) -> None:
    subtask = asked("y" * before + "0123456789abcdef" + "z" * 40)
    assert unquoted("<0123456789abcdef>", subtask) == IN_ITS_PLACE
    assert unquoted("<0123456789abcde>\n<123456789abcdef>", subtask).count("<") == 2


def test_a_traceback_against_a_long_question_takes_no_long_time() -> None:
    said = "\n".join(f'  File "engine.py", line {n}, in the_{n}th_function' for n in range(2000))
    long = asked("".join(f"word {n} of " for n in range(40_000)))
    assert unquoted(said, long) == said  # compared run by run: minutes


def test_long_questions_take_no_long_time() -> None:
    assert unquoted("no " * 200, asked("word " * 40_000)) == "no " * 200
