"""The engine of the chaos kit: it knows what to say, and fails while it is in a mood."""

import random
from collections import Counter
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final

from millrace.chaos import texts
from millrace.chaos.engine import Call, Reply
from millrace.chaos.openai_engine import OpenAIEngine

WORD_SECONDS: Final = 0.04


class Mood(StrEnum):
    """What an engine does instead of answering."""

    BUSY = "busy"
    """Answers 503."""
    HANG = "hang"
    """Stops in the middle and keeps the connection."""
    CUT = "cut"
    """Breaks the connection in the middle."""
    GARBAGE = "garbage"
    """Sends in the middle what is no chunk of an answer."""


class MoodyEngine(OpenAIEngine):
    """Answers each prompt with its own text; about half of its calls give way to its mood.

    Which calls do is a function of the seed, the prompt and the number of the call.
    """

    def __init__(self, model: str, seed: int) -> None:
        super().__init__(models=(model,))
        self.mood: Mood | None = None
        self._seed = seed
        self._called: Counter[str] = Counter()

    def reply_to(self, call: Call) -> Reply:
        prompt, shown = _asked(call.body)
        self._called[prompt] += 1
        number = self._called[prompt]
        dice = random.Random(f"{self._seed}/{prompt}/{number}")
        words = texts.pieces(prompt, number, shown)
        return _moody(self.mood if dice.random() < 0.5 else None, words, dice)


def _moody(mood: Mood | None, words: tuple[str, ...], dice: random.Random) -> Reply:
    if mood is Mood.BUSY:
        return Reply(status=503, error="the engine is overloaded")
    reply = Reply(words=words, word_seconds=WORD_SECONDS, completion_tokens=len(words))
    place = dice.randint(0, len(words))
    match mood:
        case Mood.HANG:
            return replace(reply, hang_after=place)
        case Mood.CUT:
            return replace(reply, cut_after=place)
        case Mood.GARBAGE:
            return replace(reply, garbage_after=place)
        case _:
            return reply


def _asked(body: dict[str, Any]) -> tuple[str, str]:
    """The user's last message, and the beginning of an answer that is to be gone on with."""
    messages = body["messages"]
    shown = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
    prompt = next(m["content"] for m in reversed(messages) if m["role"] == "user")
    return prompt, shown
