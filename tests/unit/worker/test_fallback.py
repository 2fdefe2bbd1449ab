"""Several engines for one model: who answers, what goes on where, and what is told of it."""

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any

import pytest

from queue_schemas.messages import Channel, Completed, ErrorKind, Failed, SubtaskRequest
from queue_schemas.registry import Model
from tests.doubles.no_waiting import no_waiting
from tests.doubles.subtasks import a_model, a_subtask
from worker.execute import begin, execute
from worker.providers.breaker import FIRST_PAUSE_SECONDS
from worker.providers.diagnosis import (
    BAD_REQUEST,
    BUSY,
    CRASHED,
    FAULT,
    NO_MODEL,
    TOO_LONG,
    TRUNCATED,
    UNAUTHORIZED,
    UNREACHABLE,
    UNSUPPORTED,
    Diagnosis,
    failure,
)
from worker.providers.fallback import Engine, FallbackProvider
from worker.providers.protocol import Delta, Finish, ProviderError
from worker.providers.registry import make_provider

Item = str | Delta | Finish | Diagnosis | float | Exception
"""What an engine does next: says, thinks, ends, fails, is silent so many seconds, has a bug."""


class Clock:
    """Seconds that a test lets go by."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Lines:
    """An engine that does one list of things for each call; the last list again and again."""

    def __init__(self, *calls: Sequence[Item], ill: Diagnosis | None = None) -> None:
        self.calls = list(calls)
        self.asked: list[SubtaskRequest] = []
        self.ill = ill
        self.left = 0
        self.closed = False

    async def complete(self, subtask: SubtaskRequest) -> AsyncGenerator[Delta | Finish, None]:
        self.asked.append(subtask)
        try:
            for item in self.calls[min(len(self.asked), len(self.calls)) - 1]:
                match item:
                    case str():
                        yield Delta(item)
                    case Delta() | Finish():
                        yield item
                    case tuple():
                        raise failure(item, f"the engine said {item[1]}")
                    case Exception():
                        raise item
                    case _:
                        await asyncio.sleep(item)
        finally:
            self.left += 1

    async def check(self) -> None:
        if self.ill:
            raise failure(self.ill, f"not ready: {self.ill[1]}")

    async def aclose(self) -> None:
        self.closed = True
        if self.ill:
            raise RuntimeError("cannot even be closed")


DONE = Finish("stop", 10, 4)
OTHERS = [{"provider": "scripted", "engine_model": name} for name in ("second", "third")]


def several(
    *engines: Lines, now: Clock | None = None, **fields: Any
) -> tuple[FallbackProvider, Model]:
    model = a_model(fallbacks=OTHERS[: len(engines) - 1], **fields)
    names = ("first", "second", "third")
    made = [Engine(name, model, lines) for name, lines in zip(names, engines, strict=False)]
    return FallbackProvider(made, now or Clock()), model


async def nowhere(_queue: str, _message: object) -> None:
    """A wire that nobody reads."""


async def answer(provider: FallbackProvider, model: Model, **fields: Any) -> Completed | Failed:
    execution = begin(a_subtask(**fields), 0, "worker-1", nowhere, 0.025)
    return await execute(execution, provider, model)


async def completed(provider: FallbackProvider, model: Model, **fields: Any) -> Completed:
    outcome = await answer(provider, model, **fields)
    assert isinstance(outcome, Completed), outcome
    return outcome


async def failed(provider: FallbackProvider, model: Model, **fields: Any) -> Failed:
    outcome = await answer(provider, model, **fields)
    assert isinstance(outcome, Failed), outcome
    return outcome


async def test_the_first_engine_answers_while_it_is_well() -> None:
    first, second = Lines(["a", " b", DONE]), Lines(["c", DONE])

    outcome = await completed(*several(first, second))

    assert (outcome.text, outcome.seams, outcome.usage.estimated) == ("a b", (), False)
    assert not second.asked


@pytest.mark.parametrize(
    "fault", [BUSY, FAULT, UNREACHABLE, TRUNCATED, CRASHED, UNAUTHORIZED, NO_MODEL, UNSUPPORTED]
)
async def test_nothing_is_told_of_an_engine_that_fails_before_the_first_word(
    fault: Diagnosis,
) -> None:
    first, second = Lines([fault]), Lines(["c", " d", DONE])

    outcome = await completed(*several(first, second))

    assert (outcome.text, outcome.seams) == ("c d", ())
    assert (outcome.usage.prompt_tokens, outcome.usage.completion_tokens) == (10, 4)
    assert not outcome.usage.estimated
    assert second.asked[0].shown == ""


@pytest.mark.parametrize("fault", [BAD_REQUEST, TOO_LONG])
async def test_what_is_the_requests_own_fault_is_asked_nowhere_else(fault: Diagnosis) -> None:
    first, second = Lines([fault]), Lines(["c", DONE])
    provider, model = several(first, second)

    for _ in range(4):
        assert (await failed(provider, model)).code == fault[1]

    assert not second.asked
    assert len(first.asked) == 4, "and says nothing against the engine"


async def test_after_some_text_the_next_one_goes_on_from_it() -> None:
    first, second = Lines(["The mill", " turns", TRUNCATED]), Lines([" slowly.", DONE])

    outcome = await completed(*several(first, second))

    assert outcome.text == "The mill turns slowly."
    assert second.asked[0].shown == "The mill turns"
    seam = outcome.seams[0]
    assert (seam.offset, seam.provider, seam.code) == (14, "second", "upstream_truncated")


async def test_text_that_was_shown_by_an_earlier_attempt_stays_in_front() -> None:
    first, second = Lines([" mill", FAULT]), Lines([" turns.", DONE])

    outcome = await completed(*several(first, second), shown="The")

    assert outcome.text == "The mill turns."
    assert (second.asked[0].shown, outcome.seams[0].offset) == ("The mill", 8)


async def test_an_engine_that_added_nothing_leaves_no_seam() -> None:
    engines = Lines(["The mill", TRUNCATED]), Lines([BUSY]), Lines([" turns.", DONE])

    outcome = await completed(*several(*engines))

    assert outcome.text == "The mill turns."
    seams = [(seam.offset, seam.provider, seam.code) for seam in outcome.seams]
    assert seams == [(8, "third", "engine_busy")]


async def test_every_engine_may_say_a_part() -> None:
    engines = Lines(["a", TRUNCATED]), Lines(["b", FAULT]), Lines(["c", DONE])

    outcome = await completed(*several(*engines))

    assert outcome.text == "abc"
    assert [seam.offset for seam in outcome.seams] == [1, 2]


async def test_what_engines_that_broke_off_have_cost_is_added_as_an_estimate() -> None:
    provider, model = several(Lines(["x" * 40, TRUNCATED]), Lines(["y", DONE]))

    usage = (await completed(provider, model)).usage

    assert usage.estimated
    assert usage.prompt_tokens == 10 + 10, "24 characters and a message before the 10 counted"
    assert usage.completion_tokens == 10 + 4


async def test_where_nobody_counts_everything_is_estimated() -> None:
    provider, model = several(Lines(["x" * 40, TRUNCATED]), Lines(["y" * 8, Finish("stop")]))

    usage = (await completed(provider, model)).usage

    assert (usage.estimated, usage.completion_tokens) == (True, 12)
    assert usage.prompt_tokens == 10 + 20, "the second one was given the text of the first as well"


async def test_before_the_text_thoughts_are_thought_again_and_follow() -> None:
    first = Lines([Delta("Hm", Channel.REASONING), TRUNCATED])
    second = Lines([Delta("Well", Channel.REASONING), Delta(".", Channel.REASONING), "Yes", DONE])

    outcome = await completed(*several(first, second))

    assert (outcome.reasoning, outcome.text, outcome.seams) == ("Hm\n\nWell.", "Yes", ())
    assert second.asked[0].shown == ""


async def test_within_the_text_further_thoughts_are_not_shown() -> None:
    first = Lines([Delta("Hm", Channel.REASONING), "Yes", TRUNCATED])
    second = Lines([Delta("What?", Channel.REASONING), ", it does.", DONE])

    outcome = await completed(*several(first, second))

    assert (outcome.reasoning, outcome.text) == ("Hm", "Yes, it does.")


async def test_half_a_character_is_not_handed_on() -> None:
    first, second = Lines(["a\0", "b\ud83d", TRUNCATED]), Lines(["c", DONE])

    outcome = await completed(*several(first, second))

    assert second.asked[0].shown == "a\ufffdb"
    assert outcome.text == "a\ufffdb\ufffdc"
    assert outcome.seams[0].offset == 3


async def test_an_engine_that_ends_without_saying_so_has_failed() -> None:
    outcome = await completed(*several(Lines(["The mill"]), Lines([" turns.", DONE])))

    assert (outcome.text, outcome.seams[0].code) == ("The mill turns.", "upstream_truncated")


async def test_an_engine_that_is_silent_gives_way_before_and_within_the_text() -> None:
    no_waiting(asyncio.get_running_loop())  # those that speak are not late because we stood still
    engines = Lines([math.inf]), Lines(["The mill", math.inf]), Lines([" turns.", DONE])

    outcome = await completed(
        *several(*engines, first_token_seconds=0.05, inter_token_seconds=0.05)
    )

    assert outcome.text == "The mill turns."
    assert outcome.seams[0].code == "inter_token_timeout"
    assert [engine.left for engine in engines] == [1, 1, 1]


async def test_when_all_are_silent_the_outcome_says_so() -> None:
    provider, model = several(Lines([math.inf]), Lines([math.inf]), first_token_seconds=0.02)

    outcome = await failed(provider, model)

    assert (outcome.kind, outcome.code) == (ErrorKind.TRANSIENT, "first_token_timeout")


async def test_the_whole_answer_has_one_deadline() -> None:
    provider, model = several(Lines([math.inf]), Lines(["a", DONE]), timeout_seconds=0.05)

    assert (await failed(provider, model)).code == "timeout"


async def test_when_all_fail_the_last_error_has_the_text_and_its_seams() -> None:
    provider, model = several(Lines(["a", TRUNCATED]), Lines(["b", FAULT]))

    outcome = await failed(provider, model)

    assert (outcome.code, outcome.text) == ("engine_error", "ab")
    assert [seam.offset for seam in outcome.seams] == [1]


async def test_a_failure_that_may_pass_is_told_before_one_that_stays() -> None:
    outcome = await failed(*several(Lines([BUSY]), Lines([UNAUTHORIZED])))

    assert (outcome.kind, outcome.code) == (ErrorKind.TRANSIENT, "engine_busy")


async def test_a_new_failure_is_told_before_one_that_is_remembered() -> None:
    provider, model = several(Lines([BUSY], [FAULT]), Lines([UNREACHABLE]))

    codes = [(await failed(provider, model)).code for _ in range(2)]

    assert codes == ["engine_unreachable", "engine_error"]


async def test_engines_that_all_refuse_the_kind_of_request_say_that() -> None:
    assert (await failed(*several(Lines([UNSUPPORTED]), Lines([UNSUPPORTED])))).code == (
        "unsupported_by_model"
    )


async def test_an_engine_that_is_gone_is_left_alone_and_closed_again_when_it_is_back() -> None:
    clock = Clock()
    first, second = Lines([UNREACHABLE], ["back", DONE]), Lines(["c", DONE])
    provider, model = several(first, second, now=clock)

    said = [(await completed(provider, model)).text for _ in range(3)]
    assert (said, len(first.asked)) == (["c"] * 3, 1)

    clock.now += FIRST_PAUSE_SECONDS
    said = [(await completed(provider, model)).text for _ in range(2)]
    assert said == ["back"] * 2


async def test_while_a_probe_is_out_the_others_do_not_wait_for_it() -> None:
    clock = Clock()
    first, second = Lines([UNREACHABLE], [math.inf]), Lines(["c", DONE])
    provider, model = several(first, second, now=clock)
    await completed(provider, model)
    clock.now += FIRST_PAUSE_SECONDS
    probe = asyncio.create_task(answer(provider, model))
    while len(first.asked) < 2:  # noqa: ASYNC110 - the double has no event to wait for
        await asyncio.sleep(0)

    assert (await completed(provider, model)).text == "c"

    probe.cancel()
    with suppress(asyncio.CancelledError):
        await probe
    first.calls.append(["back", DONE])
    assert (await completed(provider, model)).text == "back", "the probe told nothing"


async def test_while_all_are_left_alone_the_last_error_says_for_how_long() -> None:
    clock = Clock()
    first, second = Lines([UNREACHABLE]), Lines([UNREACHABLE])
    provider, model = several(first, second, now=clock)
    await failed(provider, model)
    clock.now += 5

    outcome = await failed(provider, model)

    assert (outcome.code, outcome.retry_after_seconds) == ("engine_unreachable", 10)
    assert (len(first.asked), len(second.asked)) == (1, 1)


async def test_leaving_closes_the_engine_that_speaks() -> None:
    first = Lines(["a", "b", DONE])
    provider, _ = several(first, Lines(["c", DONE]))

    async with aclosing(provider.complete(a_subtask())) as items:
        await anext(items)

    assert first.left == 1


async def test_a_bug_is_nobody_elses_turn() -> None:
    second = Lines(["c", DONE])

    assert (await failed(*several(Lines([ValueError("oops")]), second))).code == "internal_error"
    assert not second.asked


async def test_one_engine_that_is_ready_is_enough() -> None:
    clock = Clock()
    first, second = Lines(["a", DONE], ill=UNREACHABLE), Lines(["c", DONE])
    provider, model = several(first, second, now=clock)

    await provider.check()

    assert (await completed(provider, model)).text == "c", "who failed the check is left alone"
    first.ill = None
    await provider.check()
    assert (await completed(provider, model)).text == "a", "and is probed when it passed one"


async def test_when_none_is_ready_all_remedies_are_named() -> None:
    provider, _ = several(Lines(ill=UNREACHABLE), Lines(ill=NO_MODEL))

    with pytest.raises(ProviderError, match=r"engine_unreachable; .*model_not_found") as caught:
        await provider.check()

    assert caught.value.kind is ErrorKind.TRANSIENT


async def test_all_are_closed_even_when_one_cannot_be() -> None:
    first, second = Lines(), Lines(ill=FAULT)
    provider, _ = several(first, second)

    with pytest.raises(RuntimeError):
        await provider.aclose()

    assert first.closed
    assert second.closed


async def test_an_entry_with_fallbacks_gets_a_provider_over_all() -> None:
    script = {"faults": [{"kind": "fail"}]}
    other = {"provider": "scripted", "engine_model": "second", "options": {"text": "here"}}
    model = a_model(options=script, fallbacks=[other])
    provider = make_provider(model)

    assert isinstance(provider, FallbackProvider)
    assert (await completed(provider, model)).text == "here"


async def test_offline_leaves_out_what_is_remote() -> None:
    here = {"provider": "scripted", "engine_model": "second", "options": {"text": "here"}}
    model = a_model(remote=True, options={"text": "there"}, fallbacks=[here])
    online, offline = make_provider(model), make_provider(model, offline=True)
    assert isinstance(online, FallbackProvider)
    assert isinstance(offline, FallbackProvider)

    assert (await completed(online, model)).text == "there"
    assert (await completed(offline, model)).text == "here"


@pytest.mark.parametrize(
    "fallbacks", [[], [{"provider": "scripted", "engine_model": "second", "remote": True}]]
)
def test_offline_with_nothing_but_remote_engines_is_refused(fallbacks: list[object]) -> None:
    with pytest.raises(ProviderError, match="MILLRACE_OFFLINE") as caught:
        make_provider(a_model(remote=True, fallbacks=fallbacks), offline=True)

    assert (caught.value.kind, caught.value.code) == (ErrorKind.PERMANENT, "offline")
