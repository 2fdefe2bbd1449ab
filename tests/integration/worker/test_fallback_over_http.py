"""A model with two engines over real HTTP: one dies, the other goes on, the first comes back."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from millrace.chaos.engine import Reply, serve
from millrace.chaos.openai_engine import OpenAIEngine
from queue_schemas.messages import Completed, Failed
from queue_schemas.registry import Model
from tests.doubles.subtasks import a_model, a_subtask
from worker.execute import begin, execute
from worker.providers.breaker import FIRST_PAUSE_SECONDS
from worker.providers.fallback import Engine, FallbackProvider
from worker.providers.openai import OpenAI

NOBODY = "http://127.0.0.1:9/v1"
QUESTION = {"role": "user", "content": "Why does the wheel turn?"}


@dataclass
class Two:
    """Two engines of the model `mill`, and the clock of its provider."""

    hosted: OpenAIEngine
    local: OpenAIEngine
    urls: list[str]
    now: float = 0.0
    provider: FallbackProvider = field(init=False)
    model: Model = field(init=False)

    @asynccontextmanager
    async def served(self, hosted: str | None = None) -> AsyncIterator["Two"]:
        """With a provider over both; `hosted` is another address of the first."""
        first, second = hosted or self.urls[0], self.urls[1]
        other = {"provider": "openai", "endpoint": second}
        self.model = a_model("openai", endpoint=first, remote=True, fallbacks=[other])
        names = ("hosted", "local")
        engines = [
            Engine(name, model, OpenAI(model))
            for name, model in zip(names, self.model.engines(), strict=True)
        ]
        self.provider = FallbackProvider(engines, lambda: self.now)
        try:
            yield self
        finally:
            await self.provider.aclose()

    async def outcome(self) -> Completed | Failed:
        """Of one more subtask."""
        execution = begin(a_subtask(messages=(QUESTION,)), 0, "worker-1", _nowhere, 0.025)
        return await execute(execution, self.provider, self.model)

    async def completed(self) -> Completed:
        outcome = await self.outcome()
        assert isinstance(outcome, Completed), outcome
        return outcome


async def _nowhere(_queue: str, _message: object) -> None:
    """A wire that nobody reads."""


@pytest.fixture
def two() -> Iterator[Two]:
    hosted, local = OpenAIEngine(), OpenAIEngine(Reply(words=("Local", " water", ".")))
    with serve(hosted) as first, serve(local) as second:
        yield Two(hosted, local, [f"{first}/v1", f"{second}/v1"])


@pytest.mark.parametrize(
    "reply",
    [
        Reply(cut_after=0),
        Reply(end_after=0),
        Reply(status=503, error="overloaded"),
        Reply(status=429, error="insufficient credits"),
        Reply(status=401, error="the key has expired"),
        Reply(error_after=0, error="the runner lost its way"),
    ],
    ids=["cut", "ended", "503", "429", "401", "error"],
)
async def test_an_engine_that_dies_before_its_first_word_is_not_noticed(
    two: Two, reply: Reply
) -> None:
    two.hosted.reply = reply
    async with two.served():
        outcome = await two.completed()

    assert (outcome.text, outcome.seams) == ("Local water.", ())
    assert two.local.chats[0].body["messages"] == [QUESTION]


@pytest.mark.parametrize("echo", ["", "The mill turns slow"], ids=["plain", "echo"])
async def test_an_engine_killed_in_mid_answer_leaves_one_continuous_text(
    two: Two, echo: str
) -> None:
    two.hosted.reply = Reply(words=("The", " mill", " turns", " slow", "ly."), cut_after=4)
    words = (*([echo] if echo else []), "ly, and", " grinds.")
    two.local.reply = Reply(words=words, prompt_tokens=20, completion_tokens=6)
    async with two.served():
        outcome = await two.completed()

    assert outcome.text == "The mill turns slowly, and grinds."
    seams = [(seam.offset, seam.provider, seam.code) for seam in outcome.seams]
    assert seams == [(len("The mill turns slow"), "local", "upstream_truncated")]
    last = two.local.chats[0].body["messages"][-1]
    assert last == {"role": "assistant", "content": "The mill turns slow"}
    assert outcome.usage.estimated
    assert outcome.usage.completion_tokens == 5 + 6


async def test_the_breaker_opens_and_recovery_closes_it(two: Two) -> None:
    two.hosted.reply = Reply(cut_after=2)
    async with two.served():
        texts = [(await two.completed()).text for _ in range(4)]
        assert texts == ["The millLocal water."] * 3 + ["Local water."]
        assert len(two.hosted.chats) == 3, "left alone after three failures"

        two.now += FIRST_PAUSE_SECONDS
        assert (await two.completed()).seams, "the probe fails as well"
        two.hosted.reply = Reply()
        two.now += FIRST_PAUSE_SECONDS
        assert (await two.completed()).text == "Local water.", "the pause is longer now"
        two.now += FIRST_PAUSE_SECONDS
        texts = [(await two.completed()).text for _ in range(3)]

    assert texts == ["The mill turns slowly."] * 3
    assert len(two.hosted.chats) == 3 + 1 + 3


async def test_a_worker_is_ready_while_nobody_listens_at_its_first_engine(two: Two) -> None:
    async with two.served(hosted=NOBODY):
        await two.provider.check()
        assert (await two.completed()).text == "Local water."


async def test_when_all_are_away_the_error_of_the_last_is_told(two: Two) -> None:
    two.hosted.reply = Reply(status=500, error="lost")
    two.local.reply = Reply(status=503, error="server busy")
    async with two.served():
        outcome = await two.outcome()

    assert isinstance(outcome, Failed)
    assert (outcome.kind.value, outcome.code, outcome.text) == ("transient", "engine_busy", "")


async def test_a_bad_request_goes_nowhere_else(two: Two) -> None:
    two.hosted.reply = Reply(status=400, error="temperature must be a number")
    async with two.served():
        outcome = await two.outcome()

    assert isinstance(outcome, Failed)
    assert outcome.code == "bad_request"
    assert not two.local.chats
