"""A client of `/v1/responses` that keeps every event, and can go on after any of them."""

import contextlib
import itertools
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from tests.integration.master.mill import Mill

_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TERMINAL = {"response.completed", "response.failed", "response.incomplete"}


@dataclass
class Events:
    """What came of a stream, from one replica or from several."""

    events: list[dict[str, Any]] = field(default_factory=list)
    streams: int = 0

    @property
    def id(self) -> str:
        """The response's id."""
        found: str = self.events[0]["response"]["id"]
        return found

    @property
    def text(self) -> str:
        """The answer as the client puts it together."""
        deltas = (e for e in self.events if e["type"] == "response.output_text.delta")
        return "".join(event["delta"] for event in deltas)

    @property
    def types(self) -> list[str]:
        """The types of the events, deltas once."""
        kinds = [event["type"] for event in self.events]
        return [kind for n, kind in enumerate(kinds) if kinds[n - 1 : n] != [kind]]

    @property
    def cursor(self) -> int:
        """The number of the last event."""
        found: int = self.events[-1]["sequence_number"]
        return found

    @property
    def last(self) -> dict[str, Any]:
        """The response of the one terminal event."""
        (found,) = [e["response"] for e in self.events if e["type"] in TERMINAL]
        assert self.events[-1]["type"] in TERMINAL
        response: dict[str, Any] = found
        return response

    def take(self, line: str) -> None:
        """A line of a stream: checked against the SDK's own type of the event."""
        if not line.startswith("data: "):
            return
        event = json.loads(line.removeprefix("data: "))
        _EVENT.validate_python(event, strict=False)
        self.events.append(event)

    def rising(self) -> bool:
        """The numbers only ever rise."""
        numbers = [event["sequence_number"] for event in self.events]
        return all(a < b for a, b in itertools.pairwise(numbers))


Stop = Callable[[Events], bool]


async def create(mill: Mill, got: Events, stop: Stop | None = None, **body: Any) -> None:
    """Create a response and read its stream, until it ends or `stop` says so."""
    asked = {"model": "mill", "input": "Why?", "stream": True} | body
    async with mill.http.stream("POST", "/v1/responses", json=asked) as answer:
        await _read(answer, got, stop)


async def resume(mill: Mill, got: Events, stop: Stop | None = None) -> None:
    """Go on after the last event."""
    query = {"stream": "true", "starting_after": str(got.cursor)}
    async with mill.http.stream("GET", f"/v1/responses/{got.id}", params=query) as answer:
        await _read(answer, got, stop)


async def replay(mill: Mill, response: str, after: int | None = None) -> Events:
    """The whole stream, or what comes after a number."""
    query = {"stream": "true"} | ({} if after is None else {"starting_after": str(after)})
    got = Events()
    async with mill.http.stream("GET", f"/v1/responses/{response}", params=query) as answer:
        await _read(answer, got, None)
    return got


async def _read(answer: httpx2.Response, got: Events, stop: Stop | None) -> None:
    got.streams += 1
    if answer.status_code != 200:
        raise AssertionError(f"{answer.status_code}: {(await answer.aread()).decode()}")
    async with contextlib.aclosing(_lines(answer)) as lines:
        async for line in lines:
            got.take(line)
            if stop is not None and stop(got):
                return


async def _lines(answer: httpx2.Response) -> AsyncGenerator[str, None]:
    async for line in answer.aiter_lines():
        yield line
