"""The shipped double does what its script says."""

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest

from queue_schemas.messages import Channel, ErrorKind, SubtaskRequest
from tests.doubles.subtasks import a_model, a_subtask
from worker.providers.protocol import Delta, Finish, ProviderError
from worker.providers.scripted import Scripted


async def played(script: dict[str, Any], subtask: SubtaskRequest | None = None) -> list[Any]:
    provider = Scripted(a_model(options=script))
    return [item async for item in provider.complete(subtask or a_subtask())]


def text_of(items: list[Any]) -> str:
    return "".join(i.text for i in items if isinstance(i, Delta) and i.channel is Channel.CONTENT)


async def error_of(script: dict[str, Any], subtask: SubtaskRequest | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await played(script, subtask)
    return caught.value


async def test_the_template_is_filled_in_once() -> None:
    subtask = a_subtask("What does {model} mean?", step="part-2")

    items = await played({"text": "{model}/{step}: {prompt}"}, subtask)

    assert text_of(items) == "mill/part-2: What does {model} mean?"


async def test_the_text_comes_word_by_word_and_ends_with_the_counts() -> None:
    *deltas, finish = await played({"text": "one two three"})

    assert [delta.text for delta in deltas] == ["one", " two", " three"]
    assert isinstance(finish, Finish)
    assert (finish.finish_reason, finish.completion_tokens) == ("stop", 3)


async def test_a_token_count_repeats_or_cuts_the_text() -> None:
    assert text_of(await played({"text": "a b", "tokens": 5})) == "a b a b a"
    assert text_of(await played({"text": "a b c", "tokens": 2})) == "a b"


async def test_max_tokens_is_respected() -> None:
    items = await played({"text": "a b c"}, a_subtask(parameters={"max_tokens": 2}))

    assert text_of(items) == "a b"
    assert items[-1].finish_reason == "length"


async def test_the_first_rule_that_fits_answers() -> None:
    script = {
        "text": "no rule",
        "tokens": 50,
        "rules": [
            {"contains": "Split this", "text": '{"parts": ["a", "b"]}'},
            {"contains": "Split", "text": "second"},
        ],
    }
    messages = (
        {"role": "system", "content": "Split this question."},
        {"role": "user", "content": [{"type": "text", "text": "a and b"}]},
    )

    assert text_of(await played(script, a_subtask(messages=messages))) == '{"parts": ["a", "b"]}'
    assert len(text_of(await played(script, a_subtask("else"))).split()) == 50


async def test_it_goes_on_from_shown_text() -> None:
    assert text_of(await played({"text": "one two three"}, a_subtask(shown="one tw"))) == "o three"


async def test_the_pace_is_kept() -> None:
    began = asyncio.get_running_loop().time()
    await played({"tokens": 20, "tokens_per_second": 100, "first_token_seconds": 0.1})
    took = asyncio.get_running_loop().time() - began

    assert 0.29 <= took < 30


async def test_tool_calls_and_reasoning_can_be_scripted() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    items = await played({"reasoning": "hm hm", "rules": [{"contains": "", "tool_calls": [call]}]})

    assert items[-1].tool_calls == (call,)
    assert items[-1].finish_reason == "tool_calls"
    assert [i.text for i in items[:-1] if i.channel is Channel.REASONING] == ["hm", " hm"]


async def test_a_fault_hits_the_attempts_it_names() -> None:
    script = {"faults": [{"kind": "fail", "attempts": [1, 2], "error_kind": "poison",
                          "code": "engine_crashed", "retry_after_seconds": 3}]}  # fmt: skip

    error = await error_of(script, a_subtask(attempt=2))

    assert (error.kind, error.code, error.retry_after_seconds) == (
        ErrorKind.POISON, "engine_crashed", 3.0,
    )  # fmt: skip
    assert await played(script, a_subtask(attempt=3))


async def test_a_fault_with_a_probability_is_the_same_every_time() -> None:
    script = {"seed": 3, "faults": [{"kind": "fail", "probability": 0.5}]}
    subtasks = [a_subtask(seed=seed) for seed in range(40)]

    async def failures() -> list[bool]:
        return [
            isinstance(found[0], ProviderError)
            for found in [
                await asyncio.gather(played(script, s), return_exceptions=True) for s in subtasks
            ]
        ]

    first = await failures()
    assert first == await failures()
    assert 8 < sum(first) < 32


async def test_a_truncated_answer_comes_up_to_the_cut() -> None:
    provider = Scripted(
        a_model(options={"text": "a b c", "faults": [{"kind": "truncate", "after_tokens": 2}]})
    )
    items = []

    async def listen() -> None:
        async for item in provider.complete(a_subtask()):
            items.append(item)  # noqa: PERF401 - what came before the error is the point

    with pytest.raises(ProviderError, match="upstream_truncated"):
        await listen()

    assert text_of(items) == "a b"


async def test_a_hanging_engine_says_nothing_more() -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(played({"faults": [{"kind": "hang", "after_tokens": 1}]}), 0.1)


async def test_a_slow_engine_takes_its_time_for_every_token() -> None:
    began = asyncio.get_running_loop().time()
    items = await played(
        {"text": "a b c", "faults": [{"kind": "slow", "seconds": 0.05, "after_tokens": 1}]}
    )

    assert asyncio.get_running_loop().time() - began >= 0.1
    assert text_of(items) == "a b c"


def test_a_crash_ends_the_whole_process() -> None:
    code = (
        "import asyncio\n"
        "from tests.doubles.subtasks import a_model, a_subtask\n"
        "from worker.providers.scripted import Scripted\n"
        "async def main():\n"
        "    s = Scripted(a_model(options={'faults': [{'kind': 'crash', 'after_tokens': 1}]}))\n"
        "    async for item in s.complete(a_subtask()): print(item.text, flush=True)\n"
        "asyncio.run(main())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                         env={**os.environ, "PYTHONPATH": "."})  # fmt: skip

    assert (run.returncode, run.stdout) == (137, "mill\n")
