"""Execute: deadlines, bills and outcomes, with scripted engines."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from queue_schemas.messages import Completed, ErrorKind, Failed, SubtaskRequest, Usage
from queue_schemas.registry import Model
from tests.doubles.no_waiting import no_waiting
from tests.doubles.subtasks import a_model, a_subtask
from worker.execute import Execution, begin, execute
from worker.providers.protocol import Delta, Finish, Provider
from worker.providers.scripted import Scripted


@pytest.fixture(autouse=True)
async def _time_of_its_own() -> None:
    """Deadlines are about engines, and not about how busy the machine is."""
    no_waiting(asyncio.get_running_loop())


async def nowhere(_queue: str, _message: object) -> None:
    """A wire that nobody reads."""


def an_execution(subtask: SubtaskRequest) -> Execution:
    return begin(subtask, 2, "worker-1", nowhere, 0.025)


async def outcome_of(
    script: dict[str, Any], subtask: SubtaskRequest | None = None, **fields: Any
) -> Completed | Failed:
    model = a_model(options=script, **fields)
    return await execute(an_execution(subtask or a_subtask()), Scripted(model), model)


async def failure_of(*args: Any, **fields: Any) -> Failed:
    outcome = await outcome_of(*args, **fields)
    assert isinstance(outcome, Failed)
    return outcome


async def test_a_complete_answer_is_completed_under_the_executions_name() -> None:
    subtask = a_subtask(attempt=3)
    execution = an_execution(subtask)
    model = a_model(options={"text": "a b", "reasoning": "hm"})

    outcome = await execute(execution, Scripted(model), model)

    assert isinstance(outcome, Completed)
    assert (outcome.text, outcome.reasoning, outcome.finish_reason) == ("a b", "hm", "stop")
    assert (outcome.request, outcome.subtask) == (subtask.request, subtask.subtask)
    assert (outcome.attempt, outcome.execution, outcome.worker) == (3, execution.id, "worker-1")


async def test_every_execution_has_an_identity_of_its_own() -> None:
    subtask = a_subtask()

    assert an_execution(subtask).id != an_execution(subtask).id


async def test_the_text_of_record_contains_what_was_shown() -> None:
    outcome = await outcome_of({"text": "one two three"}, a_subtask(shown="one tw"))

    assert isinstance(outcome, Completed)
    assert outcome.text == "one two three"


async def test_tokens_are_estimated_where_the_engine_counts_none() -> None:
    outcome = await outcome_of(
        {"text": "x" * 40, "reasoning": "y" * 8, "counts": False}, a_subtask("z" * 16)
    )

    assert outcome.usage.estimated
    assert outcome.usage.completion_tokens == 12
    assert outcome.usage.prompt_tokens == 8


async def test_time_is_measured() -> None:
    outcome = await outcome_of({"text": "a b", "first_token_seconds": 3, "tokens_per_second": 10})

    assert outcome.usage.first_token_seconds is not None
    assert outcome.usage.first_token_seconds == pytest.approx(3)
    assert outcome.usage.engine_seconds == pytest.approx(3.2)


async def test_a_silent_engine_misses_the_first_token() -> None:
    failed = await failure_of({"faults": [{"kind": "hang"}]}, first_token_seconds=0.05)

    assert (failed.kind, failed.code) == (ErrorKind.TRANSIENT, "first_token_timeout")
    assert failed.usage.first_token_seconds is None
    assert failed.usage.prompt_tokens > 0, "the engine was at it all the time"


async def test_an_engine_that_falls_silent_is_given_up() -> None:
    failed = await failure_of(
        {"text": "a b c", "faults": [{"kind": "hang", "after_tokens": 2}]}, inter_token_seconds=0.05
    )

    assert (failed.kind, failed.code) == (ErrorKind.TRANSIENT, "inter_token_timeout")
    assert failed.text == "a b"
    assert failed.usage.completion_tokens == 1


async def test_a_slow_but_living_engine_is_not_given_up() -> None:
    outcome = await outcome_of(
        {"tokens": 12, "tokens_per_second": 1}, inter_token_seconds=1.5, first_token_seconds=1.5
    )

    assert isinstance(outcome, Completed)
    assert outcome.usage.engine_seconds == pytest.approx(12)


async def test_thinking_counts_as_a_sign_of_life() -> None:
    """A model may think for longer than it may be silent."""
    thoughts = " ".join(f"thought{n}" for n in range(20))
    outcome = await outcome_of(
        {"reasoning": thoughts, "text": "At last.", "tokens_per_second": 1},
        inter_token_seconds=1.5,
        first_token_seconds=1.5,
    )

    assert isinstance(outcome, Completed)
    assert (outcome.reasoning, outcome.text) == (thoughts, "At last.")


@pytest.mark.parametrize("of_subtask", [True, False])
async def test_an_engine_that_never_stops_meets_the_shorter_deadline(of_subtask: bool) -> None:
    script = {"tokens": 1_000_000, "tokens_per_second": 100}
    subtask = a_subtask(timeout_seconds=0.1 if of_subtask else 9.0)

    failed = await failure_of(script, subtask, timeout_seconds=9.0 if of_subtask else 0.1)

    assert (failed.kind, failed.code) == (ErrorKind.TRANSIENT, "timeout")
    assert failed.text
    assert failed.usage.engine_seconds == pytest.approx(0.1)


async def test_what_the_engine_refused_costs_nothing() -> None:
    failed = await failure_of({"faults": [{"kind": "fail", "retry_after_seconds": 2}]})

    assert (failed.code, failed.retry_after_seconds) == ("engine_busy", 2)
    assert failed.usage == Usage(engine_seconds=failed.usage.engine_seconds)


async def test_a_bug_is_permanent_and_does_not_escape() -> None:
    failed = await failure_of({"text": "a", "faults": [{"kind": "bug", "after_tokens": 1}]})

    assert (failed.kind, failed.code) == (ErrorKind.PERMANENT, "internal_error")
    assert failed.text == "a"


async def test_cancel_works_before_the_first_token_and_at_once() -> None:
    model = a_model(options={"faults": [{"kind": "hang"}]})
    execution = an_execution(a_subtask())
    task = asyncio.create_task(execute(execution, Scripted(model), model))
    await asyncio.sleep(0.01)

    began = asyncio.get_running_loop().time()
    execution.cancel()
    execution.cancel()
    outcome = await task

    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.code) == (ErrorKind.PERMANENT, "cancelled")
    assert asyncio.get_running_loop().time() == began


async def test_cancel_before_the_generation_began_is_not_forgotten() -> None:
    model = a_model(options={"tokens": 1_000_000, "tokens_per_second": 100})
    execution = an_execution(a_subtask())
    execution.cancel()

    outcome = await asyncio.wait_for(execute(execution, Scripted(model), model), 1)

    assert isinstance(outcome, Failed)
    assert outcome.code == "cancelled"


async def test_cancel_after_the_end_changes_nothing() -> None:
    model = a_model()
    execution = an_execution(a_subtask())
    outcome = await execute(execution, Scripted(model), model)
    execution.cancel()
    await asyncio.sleep(0)

    assert isinstance(outcome, Completed)


async def test_losing_the_connection_is_no_outcome() -> None:
    model = a_model(options={"faults": [{"kind": "hang"}]})
    task = asyncio.create_task(execute(an_execution(a_subtask()), Scripted(model), model))
    await asyncio.sleep(0.01)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


class Odd:
    """A provider whose generator can be anything."""

    def __init__(self, *items: Delta | Finish, pause: float = 0.0) -> None:
        self.items = items
        self.pause = pause
        self.closed = False

    async def complete(self, _subtask: SubtaskRequest) -> AsyncGenerator[Delta | Finish, None]:
        try:
            for item in self.items:
                await asyncio.sleep(self.pause)
                yield item
            await asyncio.sleep(0)
        finally:
            self.closed = True

    async def check(self) -> None: ...

    async def aclose(self) -> None: ...


async def run_odd(provider: Odd, model: Model) -> Completed | Failed:
    checked: Provider = provider
    return await execute(an_execution(a_subtask()), checked, model)


async def test_a_provider_that_ends_without_a_finish_has_truncated() -> None:
    outcome = await run_odd(Odd(Delta("a")), a_model())

    assert isinstance(outcome, Failed)
    assert outcome.code == "upstream_truncated"


async def test_the_generator_is_closed_after_its_finish() -> None:
    provider = Odd(Delta("a"), Finish("stop"), Delta("b"))

    outcome = await run_odd(provider, a_model())

    assert isinstance(outcome, Completed)
    assert outcome.text == "a"
    assert provider.closed


async def test_signs_of_life_without_text_keep_an_execution_alive() -> None:
    provider = Odd(*[Delta("")] * 11, Finish("tool_calls"), pause=1)

    outcome = await run_odd(provider, a_model(inter_token_seconds=1.5, first_token_seconds=1.5))

    assert isinstance(outcome, Completed)
    assert outcome.usage.first_token_seconds is None


class Slow(Odd):
    """Takes its time to close, and says when it has begun to."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = asyncio.Event()
        self.may_close = asyncio.Event()

    async def complete(self, _subtask: SubtaskRequest) -> AsyncGenerator[Delta | Finish, None]:
        try:
            await asyncio.Event().wait()
            yield Delta("never")
        finally:
            self.closing.set()
            await self.may_close.wait()


async def test_cancel_while_a_deadline_is_closing_the_connection_is_harmless() -> None:
    provider, execution = Slow(), an_execution(a_subtask())
    task = asyncio.create_task(execute(execution, provider, a_model(first_token_seconds=0.01)))
    await asyncio.wait_for(provider.closing.wait(), 5)

    execution.cancel()
    provider.may_close.set()
    outcome = await task

    assert isinstance(outcome, Failed)
    assert outcome.code == "cancelled"


class Leaky(Odd):
    """Lets an exception through that it should have mapped."""

    async def complete(self, _subtask: SubtaskRequest) -> AsyncGenerator[Delta | Finish, None]:
        yield Delta("a")
        raise TimeoutError("of the library, not ours")


async def test_a_providers_own_timeout_is_not_taken_for_a_deadline() -> None:
    outcome = await run_odd(Leaky(), a_model())

    assert isinstance(outcome, Failed)
    assert outcome.code == "internal_error"
