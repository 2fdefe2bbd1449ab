"""Several followers of one answer: each gets all of it once, from its own place on."""

import asyncio
from collections.abc import Sequence
from random import Random
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from master.aggregation.cursor import PartText, final_text
from master.aggregation.layout import layout
from master.ending import Ending
from master.live import Grown, Live, Reasoning, Status, Text
from master.planning.plan import AggregatorName, Plan, Step, StepKind
from queue_schemas.messages import Channel, Completed, TokenChunk
from queue_schemas.states import RequestState

REQUEST = UUID(int=1)


def a_plan(parts: int) -> Plan:
    steps = tuple(
        Step(key=f"part-{n}", kind=StepKind.ANSWER, title=f"Part {n}", model="mill", messages=())
        for n in range(1, parts + 1)
    )
    kind = AggregatorName.SECTIONS if parts > 1 else AggregatorName.SINGLE
    return Plan(strategy="split", aggregator=kind, reason="a test", steps=steps)


def a_live(parts: int = 1) -> tuple[Live, list[UUID]]:
    subtasks = [UUID(int=10 * n) for n in range(1, parts + 1)]
    steps = {subtask: f"part-{n}" for n, subtask in enumerate(subtasks, start=1)}
    return Live(REQUEST, a_plan(parts), steps), subtasks


def chunk(subtask: UUID, offset: int, text: str) -> TokenChunk:
    return TokenChunk(
        request=REQUEST,
        subtask=subtask,
        attempt=1,
        execution=UUID(int=subtask.int ^ 1),
        delivery=0,
        offset=offset,
        text=text,
    )


def result(subtask: UUID, text: str) -> Completed:
    return Completed(
        request=REQUEST,
        subtask=subtask,
        attempt=1,
        execution=UUID(int=subtask.int ^ 1),
        worker="w",
        text=text,
        finish_reason="stop",
    )


async def read(live: Live, skip: int = 0) -> str:
    return "".join([i.text async for i in live.follow(10, skip) if isinstance(i, Text)])


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def statuses(live: Live) -> list[str]:
    """What it has to say by now."""
    live.interrupt()
    return [i.description async for i in live.follow(10) if isinstance(i, Status)]


ABSENT = {"mill": "Starting mill, no worker is running yet", "wheel": "Starting wheel"}


async def test_who_waits_for_a_first_worker_is_told_once_and_again_when_it_is_there() -> None:
    live, _ = a_live()
    for absent in (ABSENT, ABSENT, {}, {}):
        live.note_absent(absent)
    assert await statuses(live) == [ABSENT["mill"], "mill is ready"]


async def test_a_part_that_a_worker_has_waits_for_none_though_that_one_drains() -> None:
    live, (subtask,) = a_live()
    live.note_begun(subtask)
    live.note_begun(UUID(int=999))  # of another plan
    live.note_absent(ABSENT)
    assert await statuses(live) == []


async def test_a_part_that_has_text_waits_for_no_worker() -> None:
    live, (subtask,) = a_live()
    live.take(chunk(subtask, 0, "The wheel"))
    live.note_absent(ABSENT)
    assert await statuses(live) == []


async def test_a_step_that_cannot_begin_yet_is_not_waited_for() -> None:
    first = Step(key="first", kind=StepKind.ANSWER, model="mill", messages=())
    then = Step(key="then", kind=StepKind.SYNTHESIS, model="wheel", messages=())
    then = then.model_copy(update={"depends_on": ("first",)})
    aggregator = AggregatorName.SYNTHESIS
    plan = Plan(strategy="split", aggregator=aggregator, reason="a test", steps=(first, then))
    subtask = UUID(int=10)
    live = Live(REQUEST, plan, {subtask: "first", UUID(int=20): "then"})
    live.note_absent({"wheel": "Starting wheel"})
    live.finish_part(result(subtask, "It turns."))
    live.note_absent({"wheel": "Starting wheel"})
    assert await statuses(live) == ["Starting wheel"]


async def test_a_follower_hears_of_it_while_it_waits() -> None:
    live, _ = a_live()
    async with asyncio.timeout(60):
        items = live.follow(10)
        following = asyncio.create_task(anext(items))
        await settle()
        live.note_absent(ABSENT)
        assert await following == Status(ABSENT["mill"])
        await items.aclose()


def answer_of(texts: Sequence[str]) -> str:
    parts = {f"part-{n}": PartText(text, done=True) for n, text in enumerate(texts, start=1)}
    return final_text(layout(a_plan(len(texts))), parts)


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(max_size=30), min_size=2, max_size=4),
    skips=st.lists(st.integers(min_value=0, max_value=150), min_size=1, max_size=4),
    size=st.integers(min_value=1, max_value=7),
    order=st.randoms(use_true_random=False),
)
async def test_every_follower_gets_what_it_lacks_whenever_it_comes(
    texts: list[str], skips: list[int], size: int, order: Random
) -> None:
    live, subtasks = a_live(len(texts))
    steps = [
        (subtask, at, text[at : at + size])
        for subtask, text in zip(subtasks, texts, strict=True)
        for at in range(0, len(text), size)
    ]
    joins: list[tuple[int, asyncio.Task[str]]] = []
    waiting = list(skips)
    while steps or waiting:
        if waiting and (not steps or order.random() < 0.3):
            skip = waiting.pop()
            joins.append((skip, asyncio.create_task(read(live, skip))))
        else:
            # In order within a part, and in any order between them.
            subtask = order.choice(sorted({s for s, _, _ in steps}))
            index = next(n for n, step in enumerate(steps) if step[0] == subtask)
            live.take(chunk(*steps.pop(index)))
        await settle()
    for subtask, text in zip(subtasks, texts, strict=True):
        live.finish_part(result(subtask, text))
        await settle()
    whole = answer_of(texts)
    live.end(Ending(RequestState.COMPLETED, answer=whole))
    for skip, reading in joins:
        assert await reading == whole[skip:]
    assert await read(live) == whole


async def test_a_slow_follower_misses_nothing_while_another_one_waits() -> None:
    live, [subtask] = a_live()
    slow = live.follow(10)
    quick = asyncio.create_task(read(live))
    live.take(chunk(subtask, 0, "one "))
    assert await anext(slow) == Text("one ")
    # While the slow one holds an item, the quick one reads on and waits again.
    live.take(chunk(subtask, 4, "two "))
    await settle()
    live.take(chunk(subtask, 8, "three"))
    await settle()
    async with asyncio.timeout(30):
        assert await anext(slow) == Text("two three")
    live.end(Ending(RequestState.COMPLETED, answer="one two three"))
    assert await quick == "one two three"


async def test_the_rest_of_the_record_comes_once_to_each() -> None:
    live, [subtask] = a_live()
    live.take(chunk(subtask, 0, "one "))
    readers = [asyncio.create_task(read(live, skip)) for skip in (0, 2, 6, 99)]
    await settle()
    live.end(Ending(RequestState.COMPLETED, answer="one two"))
    assert [await reader for reader in readers] == ["one two", "e two", "o", ""]


async def test_text_counts_as_shown_when_the_first_follower_has_it() -> None:
    live, [subtask] = a_live()
    live.take(chunk(subtask, 0, "one two"))
    part = live.parts["part-1"]
    assert part.shown == 0
    assert await anext(live.follow(10)) == Text("one two")
    assert part.shown == 7


@pytest.mark.parametrize("who", [1, 3])
async def test_everybody_who_waits_for_the_end_is_told(who: int) -> None:
    live, _ = a_live()
    waiting = [asyncio.create_task(live.ended()) for _ in range(who)]
    await settle()
    live.end(Ending(RequestState.FAILED))
    async with asyncio.timeout(30):
        assert all([await wait for wait in waiting])


async def test_thoughts_that_come_while_a_client_takes_others_are_shown_before_the_text() -> None:
    live, [subtask] = a_live()
    live.take(chunk(subtask, 0, "first ").model_copy(update={"channel": Channel.REASONING}))
    following = live.follow(idle_seconds=60)
    assert await anext(following) == Reasoning("first ")
    live.finish_part(result(subtask, "text").model_copy(update={"reasoning": "first second"}))
    live.end(Ending(RequestState.COMPLETED, answer="text"))
    rest = [item async for item in following]
    assert rest[:2] == [Reasoning("second"), Text("text")]


async def test_who_asks_is_told_of_parts_that_grow_before_their_turn() -> None:
    live, (_, second) = a_live(2)
    watching = live.follow(5, parts=True)
    plain = live.follow(5)
    status = [await anext(watching), await anext(plain)]
    assert all(isinstance(each, Status) for each in status)
    assert isinstance(await anext(watching), Grown)
    hearing, waiting = asyncio.create_task(anext(watching)), asyncio.create_task(anext(plain))
    live.take(chunk(second, 0, "Later."))
    assert isinstance(await hearing, Grown)
    live.end(Ending(RequestState.CANCELLED))
    assert isinstance(await waiting, Ending)
    assert isinstance(await anext(watching), Grown)
    assert isinstance(await anext(watching), Ending)
