"""Fake inference engines over real HTTP: what both kinds share.

An engine does what its `reply` says and keeps a record of every call, with the moment when the
client closed the connection. Use `serve(OpenAIEngine())` or `serve(OllamaEngine())`.
"""

import asyncio
import json
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import uvicorn

_GARBAGE = b'data: {"choices": [\xff<html>\n\n'

Json = dict[str, Any]
Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Json]]
Send = Callable[[Json], Awaitable[None]]


@dataclass(frozen=True)
class Reply:
    """How to answer one chat."""

    words: tuple[str, ...] = ("The", " mill", " turns", " slowly", ".")
    reasoning: tuple[str, ...] = ()
    tool_calls: tuple[Json, ...] = ()
    finish_reason: str | None = "stop"
    prompt_tokens: int | None = 11
    completion_tokens: int | None = 5
    first_seconds: float = 0.0
    """Before the first byte, as while a model loads."""
    word_seconds: float = 0.0
    status: int = 200
    error: str = ""
    """With another status than 200: the body. With `error_after`: the frame in the stream."""
    headers: tuple[tuple[str, str], ...] = ()
    error_after: int | None = None
    hang_after: int | None = None
    cut_after: int | None = None
    """After so many words the connection breaks."""
    end_after: int | None = None
    """After so many words the body ends as if all were well, but without a finish."""
    garbage_after: int | None = None
    """After so many words comes what no client can read."""
    extra: Json = field(default_factory=dict)
    """Further fields of the last frame."""


@dataclass
class Call:
    """One request that an engine received."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Json
    began_at: float
    client_left_at: float | None = None
    """When the client closed the connection before the answer was complete."""
    answered: bool = False


class Cut(Exception):
    """Break the connection."""


class Engine:
    """An ASGI application; the subclass knows the paths and the frames."""

    content_type = "application/json"

    def __init__(self, reply: Reply | None = None, models: tuple[str, ...] = ("mill",)) -> None:
        self.reply = reply or Reply()
        self.models = models
        self.replies: deque[Reply] = deque()
        """Taken one by one before `reply` counts."""
        self.calls: list[Call] = []

    @property
    def chats(self) -> list[Call]:
        """The calls that asked for a chat."""
        return [call for call in self.calls if call.path.endswith(("/chat", "/completions"))]

    async def wait_for(self, condition: Callable[[], object], within_seconds: float = 30.0) -> None:
        """Wait until something is true of this engine."""
        async with asyncio.timeout(within_seconds):
            while not condition():  # noqa: ASYNC110 - the engine lives in another thread
                await asyncio.sleep(0.002)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        headers["x-client-port"] = str(scope["client"][1])
        call = Call(scope["method"], scope["path"], headers, body, time.monotonic())
        self.calls.append(call)
        work = asyncio.ensure_future(self.answer(call, send))
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                call.answered = work.exception() is None
                work.result()
            else:
                call.client_left_at = time.monotonic()
        finally:
            for task in (work, gone):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task

    async def answer(self, call: Call, send: Send) -> None:
        """Answer one call; the subclass knows the paths."""
        raise NotImplementedError

    def reply_to(self, call: Call) -> Reply:
        """The reply to one call."""
        return self.replies.popleft() if self.replies else self.reply

    async def chat(self, call: Call, send: Send) -> None:
        """Answer a chat as the reply says."""
        reply = self.reply_to(call)
        await asyncio.sleep(reply.first_seconds)
        if reply.status != 200:
            return await self.respond(send, self.refusal(reply), reply.status, reply.headers)
        await _start(send, 200, self.content_type, reply.headers)
        async for frame in self._frames(call, reply):
            await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return None

    async def respond(
        self,
        send: Send,
        body: Json,
        status: int = 200,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Answer with one JSON body."""
        await _start(send, status, "application/json", headers)
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    async def _frames(self, call: Call, reply: Reply) -> AsyncIterator[bytes]:
        for thought in reply.reasoning:
            yield self.frame(call, reasoning=thought)
        for index, word in enumerate((*reply.words, None)):
            if reply.error_after == index:
                yield self.error_frame(reply)
                return
            if reply.hang_after == index:
                await asyncio.Event().wait()
            if reply.cut_after == index:
                raise Cut
            if reply.end_after == index:
                return
            if reply.garbage_after == index:
                yield _GARBAGE
                return
            if word is not None:
                yield self.frame(call, content=word)
                await asyncio.sleep(reply.word_seconds)
        for frame in self.last_frames(call, reply):
            yield frame

    def refusal(self, reply: Reply) -> Json:
        """The body of a refusal."""
        raise NotImplementedError

    def frame(self, call: Call, content: str = "", reasoning: str = "") -> bytes:
        """A piece of text."""
        raise NotImplementedError

    def error_frame(self, reply: Reply) -> bytes:
        """An error in the middle of the stream."""
        raise NotImplementedError

    def last_frames(self, call: Call, reply: Reply) -> Iterator[bytes]:
        """Tool calls, finish reason and counts."""
        raise NotImplementedError


@contextmanager
def serve(app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> Iterator[str]:
    """Run an ASGI application in a thread on a free port; gives its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app,
            log_config=None,
            ws="none",
            lifespan="off",
            # It must never be the one that closes: a client may be about to ask again.
            timeout_keep_alive=600,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            deadline = time.monotonic() + 60
            while not server.started:
                if time.monotonic() > deadline or not thread.is_alive():
                    raise TimeoutError("the fake engine did not start")
                time.sleep(0.005)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


async def _body(receive: Receive) -> Json:
    received = b""
    while True:
        message = await receive()
        received += message.get("body", b"")
        if not message.get("more_body"):
            break
    found = json.loads(received) if received else {}
    return found if isinstance(found, dict) else {"body": found}


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _start(
    send: Send, status: int, content_type: str, headers: tuple[tuple[str, str], ...]
) -> None:
    pairs = (("content-type", content_type), *headers)
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode(), value.encode()) for name, value in pairs],
        }
    )
