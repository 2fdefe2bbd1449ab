"""A fake OpenAI-compatible engine that is faster than anything it is put behind.

Bytes are made once. The engine's model name is the script: `32` streams 32 chunks at once, each by
a write of its own as real engines do; `20x50` streams 20 chunks with 50 ms before each.
`GET /left` tells when clients closed the connection in the middle of an answer.

    python -m bench.engine PORT
"""

import asyncio
import json
import re
import sys
import time
from functools import lru_cache
from typing import cast

import uvloop

WORD = "turns"
"""What every chunk says, after a space; load generators count it."""
ADDRESS = "127.0.0.1"

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_SCRIPT = re.compile(rb'"model":[ ]?"(?:openai/)?(\d+)(?:x(\d+))?"')
_SEED = re.compile(rb'"seed":[ ]?(\d+)')
_MODELS = json.dumps({"object": "list", "data": []}).encode()

_left: dict[str, list[float]] = {}
"""By the seed of the chat, which goes from the client to the engine: `time.monotonic()`."""


class _Engine(asyncio.Protocol):
    """One connection: requests one after the other, as HTTP clients with a pool send them."""

    def __init__(self) -> None:
        self._received = b""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._due: asyncio.Handle | None = None
        self._seed = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has classes of its own

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._due:
            self._due.cancel()
            _left.setdefault(self._seed, []).append(time.monotonic())

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_ends = self._received.find(b"\r\n\r\n") + 4
        if head_ends < 4:
            return
        head = self._received[:head_ends]
        length = _LENGTH.search(head)
        ends = head_ends + (int(length[1]) if length else 0)
        if len(self._received) >= ends:
            body, self._received = self._received[head_ends:ends], self._received[ends:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET /left "):
            self._write(_whole(200, json.dumps(_left).encode()))
        elif head.startswith(b"GET "):
            self._write(_whole(200, _MODELS))
        elif script := _SCRIPT.search(body):
            seed = _SEED.search(body)
            self._seed = seed[1].decode() if seed else ""
            self._write(_HEAD)
            pause = int(script[2] or 0) / 1000
            self._stream(_frames(int(script[1])), 0, pause, self._loop.time())
        else:
            self._write(_whole(404, b'{"error":{"message":"no such model"}}'))

    def _stream(self, frames: tuple[bytes, ...], place: int, pause: float, began: float) -> None:
        """Write the frames from `place` on. Due times are absolute: pauses do not add up."""
        if pause and place < len(frames) - 1:
            due = began + (place + 1) * pause
            self._due = self._loop.call_at(due, self._next, frames, place, pause, began)
            return
        self._due = None
        for frame in frames[place:]:
            self._write(frame)

    def _next(self, frames: tuple[bytes, ...], place: int, pause: float, began: float) -> None:
        self._write(frames[place])
        self._stream(frames, place + 1, pause, began)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


@lru_cache
def _frames(chunks: int) -> tuple[bytes, ...]:
    """The frames of an answer; the last one has the end, the counts and `[DONE]` together."""
    words = [_event({"delta": {"role": "assistant", "content": f" {WORD}"}})] + [
        _event({"delta": {"content": f" {WORD}"}}) for _ in range(chunks - 1)
    ]
    usage = {"prompt_tokens": 10, "completion_tokens": chunks, "total_tokens": chunks + 10}
    end = _event({"delta": {}, "finish_reason": "stop"}) + _event(None, usage=usage)
    return (*map(_chunk, words), _chunk(end + b"data: [DONE]\n\n") + b"0\r\n\r\n")


def _event(choice: dict[str, object] | None, **fields: object) -> bytes:
    choices = [] if choice is None else [{"index": 0, "finish_reason": None, **choice}]
    frame = {
        "id": "chatcmpl-fake",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake",
        "choices": choices,
        **fields,
    }
    return b"data: " + json.dumps(frame).encode() + b"\n\n"


def _chunk(body: bytes) -> bytes:
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"


def _whole(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Engine, ADDRESS, port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
