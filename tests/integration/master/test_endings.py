"""Every stream ends once, whatever the engine does (P3, B27-B29, B41, B42)."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from millrace.chaos.stack import until
from queue_schemas import topology
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import Mill, Streamed, a_script

TEN = " ".join(f"word{n}" for n in range(10))
SPLIT = "millrace/split"
QUESTIONS = "1. What is a mill?\n2. What is a wheel?\n3. What is a race?"


def fault(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, **more}


def permanently(**more: Any) -> dict[str, Any]:
    return fault(
        "fail", error_kind="permanent", code="bad_request", message="no such parameter", **more
    )


async def agrees(mill: Mill, got: Streamed) -> dict[str, Any]:
    """The record, after checking that it says what the client saw."""
    assert got.ends_once(), got.frames[-3:]
    record = await mill.record(got.request)
    assert record["finished_at"] is not None
    if record["state"] == "completed":
        assert record["answer"] == got.text
        assert got.finish_reasons == [record["finish_reason"]]
    else:
        assert got.error["code"] == record["error"]["code"]
        assert got.error["message"] == record["error"]["message"]
    await mill.idle()
    assert await mill.count("outbox") == 0
    return record


async def test_an_answer_is_streamed_and_recorded(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(text=TEN))
    got = await mill.streamed()
    record = await agrees(mill, got)
    assert (got.text, record["state"]) == (TEN, "completed")


async def test_a_permanent_failure_in_the_middle_is_one_error_frame(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(text=TEN, faults=[permanently(after_tokens=4)]))
    got = await mill.streamed()
    record = await agrees(mill, got)
    assert TEN.startswith(got.text)
    assert record["state"] == "failed"
    assert got.error["code"] == "bad_request"
    [subtask] = record["subtasks"]
    assert (subtask["state"], subtask["attempt"]) == ("failed", 1)


async def test_a_whole_answer_that_fails_has_a_status_and_the_request_id(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(a_script(text=TEN, faults=[permanently(after_tokens=4)]))
    answer = await mill.ask()
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad_request"
    assert answer.headers["x-should-retry"] == "false"
    record = await mill.record(answer.headers["x-millrace-request-id"])
    assert record["state"] == "failed"


async def test_a_failure_before_the_first_token_is_invisible(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(text=TEN, faults=[fault("fail", attempts=[1, 2])]))
    got = await mill.streamed()
    record = await agrees(mill, got)
    assert got.text == TEN
    [subtask] = record["subtasks"]
    assert subtask["attempt"] == 3
    outcomes = [(a["attempt"], a["outcome"], a["applied"]) for a in subtask["attempts"]]
    assert outcomes == [
        (1, "engine_busy", True),
        (2, "engine_busy", True),
        (3, "completed", True),
    ]


@pytest.mark.parametrize("kind", ["fail", "truncate"])
async def test_after_a_failure_in_the_middle_the_text_goes_on_without_repetition(
    make_mill: MakeMill, kind: str
) -> None:
    mill = await make_mill(a_script(text=TEN, faults=[fault(kind, attempts=[1], after_tokens=5)]))
    got = await mill.streamed()
    record = await agrees(mill, got)
    assert got.text == TEN
    assert record["subtasks"][0]["attempt"] == 2


async def test_the_reasoning_is_not_repeated_after_a_failure(make_mill: MakeMill) -> None:
    mill = await make_mill(
        a_script(
            text=TEN,
            reasoning="first think well",
            faults=[fault("fail", attempts=[1], after_tokens=3)],
        )
    )
    got = await mill.streamed()
    await agrees(mill, got)
    assert (got.reasoning, got.text) == ("first think well", TEN)


async def test_an_engine_that_hangs_is_left_and_tried_again(make_mill: MakeMill) -> None:
    mill = await make_mill(
        a_script(
            text=TEN,
            faults=[fault("hang", attempts=[1], after_tokens=5)],
            entry={"inter_token_seconds": 0.3},
        )
    )
    got = await mill.streamed()
    record = await agrees(mill, got)
    assert got.text == TEN
    outcomes = [a["outcome"] for a in record["subtasks"][0]["attempts"]]
    assert outcomes == ["inter_token_timeout", "completed"]


async def test_an_engine_that_always_hangs_fails_in_the_end(make_mill: MakeMill) -> None:
    mill = await make_mill(
        a_script(
            text=TEN,
            faults=[fault("hang", after_tokens=5)],
            entry={"inter_token_seconds": 0.2},
        ),
        max_attempts=2,
    )
    got = await mill.streamed()
    record = await agrees(mill, got)
    assert TEN.startswith(got.text)
    assert record["state"] == "failed"
    assert got.error["code"] == "inter_token_timeout"
    assert record["subtasks"][0]["state"] == "dead"


async def test_a_bug_of_a_provider_ends_the_stream_and_not_the_worker(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(text=TEN, faults=[fault("bug", contains="break")]))
    got = await mill.streamed("break it")
    await agrees(mill, got)
    assert got.error["code"] == "internal_error"
    assert (await mill.streamed("fine")).text == TEN


async def test_a_split_of_which_all_parts_fail_has_failed(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(text=TEN, faults=[permanently()]))
    got = await mill.streamed(QUESTIONS, SPLIT)
    record = await agrees(mill, got)
    assert record["state"] == "failed"
    assert [s["state"] for s in record["subtasks"]] == ["failed"] * 3


@pytest.mark.parametrize("after_tokens", [0, 4, 9], ids=["at once", "in the middle", "at the end"])
@pytest.mark.parametrize("missing", ["part-1", "part-2", "part-3"])
@pytest.mark.parametrize("pace", [0, 100], ids=["fast", "paced"])
async def test_a_split_without_one_of_its_parts_names_it(
    make_mill: MakeMill, missing: str, after_tokens: int, pace: int
) -> None:
    number = int(missing[-1]) - 1
    # With what follows it: the prompts of the other parts name this one too.
    prompt = QUESTIONS.splitlines()[number].split(". ")[1] + "\n\nAnswer only"
    mill = await make_mill(
        a_script(
            text="{step} " + TEN,
            tokens_per_second=pace,
            faults=[permanently(contains=prompt, after_tokens=after_tokens)],
        )
    )
    got = await mill.streamed(QUESTIONS, SPLIT)
    record = await agrees(mill, got)
    assert [s["step"] for s in record["subtasks"] if s["state"] == "failed"] == [missing]
    assert record["state"] == "completed"
    assert record["error"]["code"] == "partial"
    assert record["error"]["missing"][0].startswith(f"Part {number + 1}")
    assert "could not be answered" in got.text
    assert "no such parameter" in got.text


async def test_a_request_past_its_deadline_expires_and_its_worker_stops(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(a_script(text="word", tokens=1000, tokens_per_second=50))

    async def let_it_pass(got: Streamed) -> None:
        if got.text:
            async with mill.running.engine.begin() as connection:
                now = "UPDATE millrace.requests SET deadline_at = now() WHERE deadline_at > now()"
                await connection.execute(text(now))

    got = await mill.streamed(seen=let_it_pass)
    record = await agrees(mill, got)
    assert record["state"] == "expired"
    assert got.error["code"] == "deadline_exceeded"
    assert got.text
    await stopped(mill, got.request)


async def test_a_whole_answer_past_its_deadline_is_a_504(make_mill: MakeMill) -> None:
    mill = await make_mill(
        a_script(text="word", tokens=1000, tokens_per_second=50), request_seconds=0.5
    )
    answer = await mill.ask()
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")


async def test_a_deleted_request_ends_its_stream_and_its_worker(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(text="word", tokens=1000, tokens_per_second=20))

    async def delete(got: Streamed) -> None:
        if got.text and not deleted:
            deleted.append(await mill.http.delete(f"/v1/requests/{got.request}"))

    deleted: list[Any] = []
    got = await mill.streamed(seen=delete)
    assert deleted[0].json() == {"id": got.request, "object": "request", "state": "cancelled"}
    record = await agrees(mill, got)
    assert record["state"] == "cancelled"
    assert got.error["code"] == "cancelled"
    await stopped(mill, got.request)
    again = await mill.http.delete(f"/v1/requests/{got.request}")
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")


async def stopped(mill: Mill, request: str) -> None:
    """The execution was told to stop: its result says so, and changed nothing."""

    async def in_the_ledger() -> bool:
        [subtask] = (await mill.record(request))["subtasks"]
        assert subtask["state"] == "cancelled"
        return [(a["outcome"], a["applied"]) for a in subtask["attempts"]] == [("cancelled", False)]

    await until(in_the_ledger, 30)
    assert not mill.broker.queues[topology.subtasks("mill").name].ready


async def test_a_race_of_cancels_and_completions_ends_each_request_once(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(a_script(text=TEN, tokens_per_second=200, entry={"slots": 32}))

    async def one(number: int) -> str:
        async def delete(got: Streamed) -> None:
            if len(got.frames) == 2:
                await asyncio.sleep(number * 0.002)
                await mill.http.delete(f"/v1/requests/{got.request}")

        got = await mill.streamed(f"question {number}", seen=delete)
        assert got.ends_once(), got.frames[-3:]
        record = await mill.record(got.request)
        said = "completed" if got.finish_reasons else got.error["code"]
        assert record["state"] == said
        return str(said)

    ends = await asyncio.gather(*(one(number) for number in range(40)))
    assert set(ends) <= {"completed", "cancelled"}
    await mill.idle()
