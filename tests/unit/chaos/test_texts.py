"""The answers of the kit's engine show what was done to them."""

import pytest

from millrace.chaos.engine import Call, Reply
from millrace.chaos.moody_engine import Mood, MoodyEngine
from millrace.chaos.texts import flaw, older_call_after_newer, pieces, steady_answer

WAYWARD = "Why wayward 1-2?"


def call(prompt: str, shown: str = "") -> Call:
    messages = [{"role": "user", "content": prompt}]
    if shown:
        messages.append({"role": "assistant", "content": shown})
    return Call("POST", "/v1/chat/completions", {}, {"messages": messages}, 0.0)


def test_a_steady_engine_says_the_same_each_time() -> None:
    assert "".join(pieces("Why?", 1)) == "".join(pieces("Why?", 9)) == steady_answer("Why?")
    assert flaw("Why?", steady_answer("Why?")) is None


def test_a_wayward_engine_never_says_the_same_twice() -> None:
    first, second = "".join(pieces(WAYWARD, 1)), "".join(pieces(WAYWARD, 2))
    assert first != second
    assert flaw(WAYWARD, first) is flaw(WAYWARD, second) is None


@pytest.mark.parametrize("prompt", ["Why?", WAYWARD])
def test_an_engine_goes_on_from_what_was_shown(prompt: str) -> None:
    shown = "".join(pieces(prompt, 1)[:7])
    whole = shown + "".join(pieces(prompt, 2, shown))
    assert flaw(prompt, whole) is None
    assert older_call_after_newer(whole) is None


def test_a_gap_a_repetition_a_cut_and_a_strangers_word_are_flaws() -> None:
    words = list(pieces("Why?", 1))
    for bad in (
        words[:3] + words[4:],
        words[:4] + words[3:],
        words[:-1],
        [*words[:3], *pieces("What?", 1)[3:4], *words[4:]],
        [*words, " more"],
        [],
    ):
        assert flaw("Why?", "".join(bad)) is not None


def test_the_beginning_of_an_answer_may_end_within_a_word() -> None:
    answer = steady_answer("Why?")
    assert all(flaw("Why?", answer[:n], whole=False) is None for n in range(len(answer)))
    assert flaw("Why?", answer[3:40], whole=False) is not None


def test_words_of_an_older_call_after_those_of_a_newer_one_are_found() -> None:
    first, second = pieces(WAYWARD, 1), pieces(WAYWARD, 2)
    assert older_call_after_newer("".join((*first[:3], *second[3:6]))) is None
    mixed = "".join((*first[:3], *second[3:6], *first[6:]))
    assert older_call_after_newer(mixed) == first[6].strip()


def test_which_calls_give_way_to_a_mood_depends_on_the_seed_alone() -> None:
    def replies(seed: int) -> list[Reply]:
        engine = MoodyEngine("mill", seed)
        engine.mood = Mood.BUSY
        return [engine.reply_to(call(f"Why {n}?")) for n in range(40)]

    assert replies(1) == replies(1)
    assert replies(1) != replies(2)
    assert {reply.status for reply in replies(1)} == {200, 503}
