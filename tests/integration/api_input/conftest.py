"""A small app on a real server, with everything below a route and no route of ours."""

import asyncio
import re
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from master.api import errors, sse
from master.api.bodies import STRICT_HEADER, WARNING_HEADER, parse_chat
from master.api.strict_json import JsonLimits, read_json

LIMITS = JsonLimits(max_bytes=1_000_000, seconds=60)
HURRIED = JsonLimits(max_bytes=1_000_000, seconds=0.5)
"""For bodies that never come; what comes in time must not be late because we stood still."""


async def _hurried(request: Request) -> None:
    await read_json(request, HURRIED)


def make_app() -> FastAPI:
    app = FastAPI()
    errors.install(app)

    @app.post("/chat")
    async def chat(request: Request) -> Response:
        strict = request.headers.get(STRICT_HEADER) == "1"
        body = parse_chat(await read_json(request, LIMITS), strict=strict)
        answer = {"model": body.model, "messages": list(body.messages), **body.parameters}
        warnings = {WARNING_HEADER: ", ".join(body.warnings)} if body.warnings else {}
        return JSONResponse(answer, headers=warnings)

    app.post("/hurried")(_hurried)

    @app.post("/locked")
    async def locked() -> None:
        raise errors.invalid_api_key()  # before anything of the body was read

    @app.get("/typed")
    async def typed(limit: int) -> dict[str, int]:
        return {"limit": limit}

    @app.get("/bug")
    async def bug() -> None:
        raise ValueError("secret of the house")

    @app.get("/refused")
    async def refused() -> None:
        raise errors.service_unavailable("the broker is down")

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, "no coffee", headers={"x-pot": "1"})

    @app.get("/stream")
    async def stream(fail: bool = False) -> StreamingResponse:
        async def frames() -> AsyncIterator[bytes]:
            yield sse.frame({"n": 1})
            await asyncio.sleep(0)
            if fail:
                raise ValueError("secret of the house")
            yield sse.DONE

        return StreamingResponse(frames(), media_type=sse.MEDIA_TYPE, headers=sse.HEADERS)

    return app


@dataclass
class Wire:
    """The server, as someone with a socket sees it."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def send(self, raw: bytes, *, half_close: bool = False) -> bytes:
        """Send these bytes and read until the server closes."""
        with self.connect() as connection:
            connection.sendall(raw)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            return read_all(connection)


def read_answer(connection: socket.socket) -> bytes:
    """One answer, which may come in pieces; the connection stays open."""
    answer = b""
    while not _is_whole(answer):
        piece = connection.recv(65536)
        assert piece, answer
        answer += piece
    return answer


def _is_whole(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    return bool(found) and length is not None and len(body) >= int(length[1])


def read_all(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.fixture(scope="session")
def wire() -> Iterator[Wire]:
    # The socket listens before the server runs, so early connections wait instead of failing.
    listener = socket.create_server(("127.0.0.1", 0))
    config: dict[str, Any] = {"log_config": None, "lifespan": "off", "timeout_keep_alive": 60}
    server = uvicorn.Server(uvicorn.Config(make_app(), **config))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield Wire(listener.getsockname()[1])
    server.should_exit = True
    thread.join(60)
    assert not thread.is_alive()
