"""Asking a master one question: live in a terminal, or plainly."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from millrace.client import Answer, Master
from millrace.problems import Problem
from millrace.question import Strategy
from millrace.show.answer import AnswerText
from millrace.show.bill import bill
from millrace.show.plan import PlanView
from millrace.show.sources import sources
from queue_schemas.registry import RESERVED_PREFIX
from queue_schemas.states import REQUEST_TERMINAL

_POLL_SECONDS = 0.2
_SETTLE_SECONDS = 3.0
_FRAMES_PER_SECOND = 8

Body = Mapping[str, Any]
Began = Callable[[Answer], None]
"""Called with an answer that has begun, before its first word."""


def _ignore(_: Answer) -> None:
    pass


async def pick_model(master: Master, strategy: Strategy, model: str | None) -> str:
    """What to name as the model: the one that was asked for, a strategy, or the first real one."""
    if model:
        return model
    if strategy is not Strategy.DIRECT:
        return f"{RESERVED_PREFIX}{strategy}"
    names = [str(entry["id"]) for entry in (await master.get("/v1/models"))["data"]]
    real = [name for name in names if not name.startswith(RESERVED_PREFIX)]
    if not real:
        raise Problem("the master serves no model; see `millrace models`.")
    return real[0]


async def ask_whole(master: Master, body: Body) -> dict[str, Any]:
    """The answer in one piece and the record of its request."""
    request_id, completion = await master.chat(body)
    answer = completion["choices"][0]["message"].get("content") or ""
    return {"answer": answer, "request": await _settled(master, request_id)}


async def ask_plain(
    master: Master, body: Body, *, whole: bool = False, began: Began = _ignore
) -> None:
    """Print nothing but the answer."""
    if whole:
        print((await ask_whole(master, body))["answer"])  # noqa: T201  this is the command line
        return
    async with master.stream(body) as answer:
        began(answer)
        last = "\n"
        async for text in answer.texts():
            sys.stdout.write(text)
            sys.stdout.flush()
            last = text
    if not last.endswith("\n"):
        sys.stdout.write("\n")


async def ask_live(
    master: Master,
    body: Body,
    console: Console,
    *,
    whole: bool = False,
    began: Began = _ignore,
) -> None:
    """Show plan and answer while they happen, then what each part took."""
    if whole:
        with console.status("waiting for the whole answer"):
            result = await ask_whole(master, body)
        shape = AnswerText()
        console.print(*shape.feed(result["answer"]), *shape.close(), sep="\n")
        _print_bill(console, result["request"])
        return
    screen = _Screen(console)
    async with master.stream(body) as answer:
        began(answer)
        try:
            async with screen.shown(), _following(master, answer, screen):
                async for text in answer.texts():
                    screen.add(text)
        finally:
            screen.finish()
            request_id = answer.request_id
            # A broken answer was worth something as well: say what it took.
            if request_id and not _is_cancelled():
                with contextlib.suppress(Problem):
                    _print_bill(console, await _settled(master, request_id))


class _Screen:
    """Whole lines of the answer scroll up; below them stand the growing line and the plan."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._text = AnswerText()
        self.plan = PlanView(time.monotonic())
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=_FRAMES_PER_SECOND,
            transient=True,
        )

    @contextlib.asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        with self._live:
            yield

    def add(self, text: str) -> None:
        for line in self._text.feed(text):
            self._console.print(line)

    def finish(self) -> None:
        for line in self._text.close():
            self._console.print(line)

    def _render(self) -> RenderableType:
        height = self._console.height
        plan = self.plan.render(time.monotonic(), rows=max(3, height // 2 - 2))
        growing = self._text.pending().wrap(self._console, self._console.width)
        tail = list(growing)[-max(1, height // 2 - 2) :]
        return Group(*tail, Text(), plan) if growing else plan


@contextlib.asynccontextmanager
async def _following(master: Master, answer: Answer, screen: _Screen) -> AsyncIterator[None]:
    async def follow(request_id: str) -> None:
        while True:
            with contextlib.suppress(Problem):  # the answer matters; the next look may work
                screen.plan.update(await master.record(request_id), time.monotonic())
            await asyncio.sleep(_POLL_SECONDS)

    task = asyncio.create_task(follow(answer.request_id)) if answer.request_id else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.wait({task})


async def _settled(master: Master, request_id: str | None) -> dict[str, Any] | None:
    """The record once the request has ended; what there is, if that takes too long."""
    if request_id is None:
        return None
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        record = await master.record(request_id)
        if record["state"] in REQUEST_TERMINAL or time.monotonic() > deadline:
            return record
        await asyncio.sleep(_POLL_SECONDS / 4)


def _print_bill(console: Console, record: dict[str, Any] | None) -> None:
    if record is not None:
        console.print(*sources(record), bill(record, console.width), sep="\n")


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
