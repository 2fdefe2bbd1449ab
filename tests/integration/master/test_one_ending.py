"""Every stream ends with one terminal event, whatever ends it, on every API (P3, B23, B44, B45)."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from master import live, metrics
from millrace.chaos.stack import until
from tests.integration.master.conftest import MakeMill
from tests.integration.master.gated import Gates
from tests.integration.master.mill import Mill, a_script

QUICKLY = {"slow_consumer_seconds": 1, "slow_consumer_characters": 1000}
TERMINAL = {"response.completed", "response.failed", "response.incomplete", "error"}


@dataclass
class Seen:
    """What came of a stream: the name and the payload of each event."""

    events: list[tuple[str, Any]] = field(default_factory=list)
    name: str = ""

    def take(self, line: str) -> None:
        if line.startswith("event: "):
            self.name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            said = line.removeprefix("data: ")
            self.events.append((self.name, said if said == "[DONE]" else json.loads(said)))
            self.name = ""

    @property
    def done(self) -> int:
        return [said for _, said in self.events].count("[DONE]")

    @property
    def text(self) -> str:
        return "".join(map(_text, self.events))

    def terminal(self) -> list[str]:
        """What the terminal events say: `completed`, or the code of an error."""
        return [word for event in self.events if (word := _terminal(event))]


def _text(event: tuple[str, Any]) -> str:
    name, said = event
    if said == "[DONE]":
        return ""
    if name == "response.output_text.delta":
        return str(said["delta"])
    if name == "text":
        return str(said["text"])
    return "".join(c["delta"].get("content") or "" for c in said.get("choices", ()))


def _terminal(event: tuple[str, Any]) -> str:
    name, said = event
    if said == "[DONE]":
        return ""
    if "choices" in said:
        return "completed" if any(c["finish_reason"] for c in said["choices"]) else ""
    if name in TERMINAL:
        found = said["response"] if "response" in said else {"error": {"type": said["code"]}}
        return found["error"]["type"] if found["error"] else "completed"
    if name == "end":
        return said["error"]["code"] if said["error"] else said["state"]
    return str(said["error"]["code"]) if "error" in said else ""


@contextlib.asynccontextmanager
async def chat(mill: Mill, http: httpx2.AsyncClient) -> AsyncGenerator[httpx2.Response]:
    body = mill.body(stream=True)
    async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        yield answer


@contextlib.asynccontextmanager
async def responses(mill: Mill, http: httpx2.AsyncClient) -> AsyncGenerator[httpx2.Response]:
    body = {"model": "mill", "input": "Why?", "stream": True}
    async with http.stream("POST", "/v1/responses", json=body) as answer:
        yield answer


@contextlib.asynccontextmanager
async def events(mill: Mill, http: httpx2.AsyncClient) -> AsyncGenerator[httpx2.Response]:
    body = {"model": "mill", "input": "Why?", "background": True}
    asked = await http.post("/v1/responses", json=body)
    request = asked.headers["x-millrace-request-id"]
    async with http.stream("GET", f"/v1/requests/{request}/events") as answer:
        answer.headers["x-millrace-request-id"] = request
        yield answer


ENDPOINTS = [chat, responses, events]
Endpoint = Callable[[Mill, httpx2.AsyncClient], contextlib.AbstractAsyncContextManager[Any]]

TALKS = a_script(text="one two three")
BREAKS = a_script(
    text="one two three",
    faults=[{"kind": "fail", "error_kind": "permanent", "code": "bad_luck", "after_tokens": 2}],
)
HANGS = a_script(text="one two three", faults=[{"kind": "hang", "after_tokens": 2}])
TALKS_MUCH = a_script(text=200 * "w", tokens=10_000)


async def cancel(mill: Mill, answer: httpx2.Response, _: float) -> None:
    await mill.http.delete(f"/v1/requests/{answer.headers['x-millrace-request-id']}")


async def let_go(mill: Mill, answer: httpx2.Response, _: float) -> None:
    mill.running.streams.interrupt()


async def cut_off(mill: Mill, answer: httpx2.Response, before: float) -> None:
    """Read nothing until the master says that this is too slow."""
    # The last frame may wait, as this process may stand still before it reads it.
    settings = mill.running.settings
    mill.running.settings = settings.model_copy(update={"slow_consumer_seconds": 600})

    async def noticed() -> bool:
        return slow_consumers() > before

    await until(noticed, 30)


async def fail_inside(mill: Mill, answer: httpx2.Response, _: float) -> None:
    """The deepest layer of a stream has a bug from now on; some text makes it work."""
    (stream,) = mill.running.streams._live.values()
    stream._segments = ()  # a bug: the next text belongs to no part
    stream._cursor = None  # type: ignore[assignment]
    stream._wake()


def slow_consumers() -> float:
    found = metrics.registry.get_sample_value("millrace_slow_consumers_total")
    assert found is not None
    return found


CASES = {
    "completed": (TALKS, None, "completed"),
    "failed": (BREAKS, None, "bad_luck"),
    "cancelled": (HANGS, cancel, "cancelled"),
    "expired": (HANGS | {"expires": True}, None, "deadline_exceeded"),
    "drained": (HANGS, let_go, "server_draining"),
    "slow": (TALKS_MUCH, cut_off, "slow_consumer"),
    "internal error": (HANGS, fail_inside, "internal_error"),
}
OF_THE_STREAM_ALONE = {"drained", "slow", "internal error"}


@contextlib.asynccontextmanager
async def narrow_client(mill: Mill) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client whose socket takes little that was not read."""
    options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)]
    transport = httpx2.AsyncHTTPTransport(socket_options=options)
    headers = {"Authorization": f"Bearer {mill.key}"}
    async with httpx2.AsyncClient(
        base_url=mill.url, headers=headers, timeout=30, transport=transport
    ) as http:
        yield http


@pytest.mark.parametrize("how", CASES)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_a_stream_has_one_terminal_event_however_it_ends(
    make_mill: MakeMill, endpoint: Endpoint, how: str
) -> None:
    script, meddle, said = CASES[how]
    model = {name: value for name, value in script.items() if name != "expires"}
    expires = {"request_seconds": 0.5} if "expires" in script else {}
    mill = await make_mill(model, **QUICKLY, **expires)
    seen, cut = Seen(), slow_consumers()
    async with narrow_client(mill) as http, endpoint(mill, http) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            seen.take(line)
            if meddle is not None and seen.text:
                await meddle(mill, answer, cut)
                meddle = None
    assert seen.terminal() == [said], seen.events[-3:]
    of_the_stream = how in OF_THE_STREAM_ALONE or endpoint is chat
    assert seen.done == of_the_stream
    if of_the_stream:
        assert seen.events[-1][1] == "[DONE]"
    await mill.nothing_open()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_a_bug_where_text_is_put_together_ends_the_stream_and_says_so(
    make_mill: MakeMill,
    endpoint: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = 0
    advance = live.advance

    def sometimes(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise RuntimeError("a bug in the deepest layer")
        return advance(*arguments)

    monkeypatch.setattr(live, "advance", sometimes)
    gates = Gates()
    mill = await make_mill(a_script(text="one two", tokens=100), provider=gates)
    seen = Seen()

    async def followed() -> bool:
        return calls > 0

    async with endpoint(mill, mill.http) as answer:
        await until(followed, 30)
        gates.open("mill")
        async for line in answer.aiter_lines():
            seen.take(line)
    assert seen.terminal() == ["internal_error"]
    assert seen.events[-1][1] == "[DONE]"
    logged = capsys.readouterr().out
    assert "stream.failed" in logged
    assert answer.headers["x-millrace-request-id"] in logged
    assert "a bug in the deepest layer" in logged
    monkeypatch.undo()
    assert (await asyncio.wait_for(mill.ask(), 30)).status_code == 200
