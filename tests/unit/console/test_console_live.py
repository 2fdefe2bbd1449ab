"""Live parts: one rendering for all who look, none for nobody."""

import asyncio
import contextlib
from uuid import uuid4

import pytest
import structlog

from master.api.errors import ApiError, not_found, server_error, service_unavailable
from master.console.live import MOST_PARTS, REST, Part, Parts, as_event

ONE, OTHER = uuid4(), uuid4()
SOON = 0.001


class Counted:
    """A rendering that counts itself, always the same."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.count = 0
        self.often = asyncio.Event()

    async def __call__(self) -> str:
        self.count += 1
        if self.count == 5:
            self.often.set()
        return self.text


async def newest(part: Part, version: int = 0) -> bytes:
    assert await part.after(version, 60)
    return part.frame


async def test_all_who_look_at_the_same_share_one_rendering() -> None:
    parts, render, other = Parts(), Counted("a"), Counted("b")
    async with parts.looking(ONE, "x", render, 60) as first:
        assert await newest(first) == b"data: a\n\n"
        async with parts.looking(ONE, "x", other, 60) as second:
            assert second is first
            assert len(parts) == 1
    assert (render.count, other.count) == (1, 0)
    assert len(parts) == 0


async def test_tenants_and_keys_are_apart() -> None:
    parts = Parts()
    async with (
        parts.looking(ONE, "x", Counted("a"), 60) as mine,
        parts.looking(OTHER, "x", Counted("b"), 60) as theirs,
        parts.looking(ONE, "y", Counted("c"), 60) as another,
    ):
        frames = [await newest(part) for part in (mine, theirs, another)]
    assert frames == [b"data: a\n\n", b"data: b\n\n", b"data: c\n\n"]


async def test_one_tenant_cannot_keep_a_replica_busy_alone() -> None:
    parts = Parts()
    async with contextlib.AsyncExitStack() as looking:
        for key in range(MOST_PARTS):
            assert parts.has_room(ONE, key)
            await looking.enter_async_context(parts.looking(ONE, key, Counted("a"), 60))
        assert not parts.has_room(ONE, MOST_PARTS)
        assert parts.has_room(ONE, 0)  # somebody looks at it already
        assert parts.has_room(OTHER, MOST_PARTS)
    assert parts.has_room(ONE, MOST_PARTS)


async def test_who_looks_at_much_sees_it_less_often() -> None:
    parts = Parts()
    async with contextlib.AsyncExitStack() as looking:
        part = await looking.enter_async_context(parts.looking(ONE, 0, Counted("a"), 60))
        await newest(part)
        part.took_seconds = 1.0
        assert part.pause_seconds == 60
        for key in range(1, 20):
            await looking.enter_async_context(parts.looking(ONE, key, Counted("a"), 60))
            await looking.enter_async_context(parts.looking(OTHER, key, Counted("a"), 60))
        assert part.pause_seconds == REST * 20 * 1.0
    assert parts.of(ONE) == 0


async def test_a_rendering_is_timed_and_an_outage_is_not() -> None:
    async def render() -> str:
        raise service_unavailable("the database does not answer")

    part = Part(Counted("a"), SOON)
    await part._frame()
    assert part.took_seconds > 0
    part.render = render
    await part._frame()
    assert part.pause_seconds == SOON


async def test_what_has_not_changed_is_not_sent_again() -> None:
    parts, render = Parts(), Counted("a")
    async with parts.looking(ONE, "x", render, SOON) as part:
        await newest(part)
        await render.often.wait()
        assert part.version == 1
        assert not await part.after(1, SOON)


async def test_nobody_renders_when_nobody_looks_any_more() -> None:
    parts, render = Parts(), Counted("a")
    async with parts.looking(ONE, "x", render, SOON) as part:
        await newest(part)
    assert part.task is not None
    await asyncio.wait({part.task})
    assert part.task.cancelled()


async def test_an_outage_is_told_and_over_when_it_is_over() -> None:
    parts, away = Parts(), True

    async def render() -> str:
        if away:
            raise service_unavailable("the database does not answer")
        return "a"

    async with parts.looking(ONE, "x", render, SOON) as part:
        with structlog.testing.capture_logs() as logged:
            assert (await newest(part)).startswith(b"event: stale\n")
            assert not await part.after(1, 10 * SOON)
        assert [line["event"] for line in logged] == ["console.stale"]  # and not every second
        away = False
        assert await newest(part, 1) == b"data: a\n\n"


async def test_a_rendering_that_hangs_is_told_and_over_when_it_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("master.console.live.RENDER_SECONDS", SOON)
    hangs = True

    async def render() -> str:
        if hangs:
            await asyncio.Event().wait()
        return "a"

    async with Parts().looking(ONE, "x", render, SOON) as part:
        assert (await newest(part)).startswith(b"event: stale\n")
        hangs = False
        assert await newest(part, 1) == b"data: a\n\n"


@pytest.mark.parametrize(
    "why", [not_found("this\nrequest"), server_error("a broken plan")], ids=["gone", "broken"]
)
async def test_what_is_gone_for_good_is_told_once_and_not_looked_for_again(why: ApiError) -> None:
    async def render() -> str:
        raise why

    async with Parts().looking(ONE, "x", render, SOON) as part:
        words = " ".join(why.message.split())
        assert await newest(part) == f"event: gone\ndata: {words}\n\n".encode()
        assert part.gone
        assert part.task is not None
        await asyncio.wait_for(part.task, 60)  # ends by itself


def test_lines_of_html_are_lines_of_one_event() -> None:
    assert as_event("<p>\r\na</p>\n") == b"data: <p>\ndata: a</p>\n\n"
    assert as_event("") == b"data: \n\n"
