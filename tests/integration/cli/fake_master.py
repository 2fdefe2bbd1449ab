"""A master over real HTTP whose answers a test writes; it knows the API and nothing behind it."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

REQUEST_ID = "0199c0de-0000-7000-8000-000000000001"
ANSWER = "## Queues\n\nA **quorum** queue is replicated [1].\n\n## Indexes\n\nHNSW is a graph.\n"


def subtask(step: str, title: str, state: str = "succeeded", **changes: Any) -> dict[str, Any]:
    return {
        "id": f"id-{step}",
        "step": step,
        "kind": "answer",
        "title": title,
        "state": state,
        "model": "codellama:34b-instruct",
        "worker": "gpu-1-4711",
        "attempt": 1,
        "queue_seconds": 0.012,
        "first_token_seconds": 0.31,
        "total_seconds": 4.21,
        "prompt_tokens": 1234,
        "completion_tokens": 321,
        "engine_seconds": 3.9,
        "cost": 0.0012,
        "error": None,
        **changes,
    }


def record(state: str, subtasks: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    steps = [
        {"key": s["step"], "kind": s["kind"], "title": s["title"], "model": s["model"]}
        | {"depends_on": ["part-1", "part-2"] if s["kind"] == "synthesis" else []}
        for s in subtasks
    ]
    return {
        "id": REQUEST_ID,
        "object": "request",
        "state": state,
        "model": "millrace/split",
        "strategy": "split",
        "reason": "",
        "created_at": "2026-01-01T00:00:00+00:00",
        "deadline_at": "2026-01-01T00:15:00+00:00",
        "finished_at": None if state == "running" else "2026-01-01T00:00:07+00:00",
        "plan": {
            "strategy": "split",
            "aggregator": "sections",
            "reason": "two questions that do not need each other",
            "gate": {"split": True, "reason": "two free workers"},
            "steps": steps,
        },
        "subtasks": subtasks,
        "usage": {
            "prompt_tokens": 2468,
            "completion_tokens": 642,
            "total_tokens": 3110,
            "engine_seconds": 7.8,
            "cost": 0.0024,
            "currency": "USD",
        },
        "measured": {"speedup": 1.9, "extra_tokens": 1200, "wall_seconds": 4.4},
        "error": None,
        "answer": ANSWER if state == "completed" else None,
        **changes,
    }


RUNNING = record(
    "running",
    [
        subtask("part-1", "What is a quorum queue, and when is it the wrong choice?"),
        subtask("part-2", "Compare HNSW and IVFFlat", "running", attempt=2, total_seconds=None),
        subtask("part-3", "What does KEDA watch?", "queued", total_seconds=None),
        subtask("merge", "Synthesis", "blocked", kind="synthesis", total_seconds=None),
    ],
)
COMPLETED = record(
    "completed",
    [
        subtask("part-1", "What is a quorum queue, and when is it the wrong choice?"),
        subtask("part-2", "Compare HNSW and IVFFlat", attempt=2),
    ],
)


@dataclass
class FakeMaster:
    """What it answers, and what it was asked."""

    texts: list[str] = field(default_factory=lambda: [ANSWER[i : i + 7] for i in range(0, 80, 7)])
    least_polls: int = 0
    """A stream does not end before."""
    hangs: bool = False
    breaks: bool = False
    fails: dict[str, Any] | None = None
    refuses: tuple[int, dict[str, Any]] | None = None
    key: str | None = None
    ready: tuple[int, dict[str, Any]] = (200, {"status": "ready", "checks": {"database": "ok"}})
    workers: list[dict[str, Any]] = field(default_factory=list)
    queues: list[dict[str, Any]] = field(default_factory=list)
    broker_answers: bool = True
    away: str | None = None
    """What does not answer, so that lists are refused."""
    running: dict[str, Any] = field(default_factory=lambda: RUNNING)
    ended: dict[str, Any] = field(default_factory=lambda: COMPLETED)
    listed: list[dict[str, Any]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    polls: int = 0
    left: threading.Event = field(default_factory=threading.Event)
    done: bool = False
    url: str = ""

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/requests", self._requests),
                Route("/v1/requests/{id}", self._request),
                Route("/v1/models", self._models),
                Route("/v1/workers", lambda _: self._listed({"data": self.workers})),
                Route("/v1/queues", self._queues),
                Route("/ready", lambda _: JSONResponse(self.ready[1], self.ready[0])),
                Route("/health", lambda _: JSONResponse({"status": "ok"})),
            ]
        )

    async def _models(self, request: Request) -> Response:
        names = ("millrace/auto", "millrace/split", "llama3.2:3b", "codellama:34b-instruct")
        return JSONResponse({"object": "list", "data": [{"id": name} for name in names]})

    async def _queues(self, request: Request) -> Response:
        return self._listed({"data": self.queues, "broker_answers": self.broker_answers})

    def _listed(self, body: dict[str, Any]) -> Response:
        if self.away:
            return self._error(503, f"the {self.away} does not answer", "service_unavailable")
        return JSONResponse(body)

    async def _requests(self, request: Request) -> Response:
        query = request.query_params
        found = [
            each
            for each in self.listed
            if each["id"].replace("-", "").startswith(query.get("id", ""))
            and query.get("state", each["state"]) == each["state"]
        ]
        return self._listed({"data": found[: int(query["limit"])], "has_more": False})

    async def _request(self, request: Request) -> Response:
        self.polls += 1
        return JSONResponse(self.ended if self.done else self.running)

    async def _chat(self, request: Request) -> Response:
        self.authorizations.append(request.headers.get("authorization"))
        if self.key and self.authorizations[-1] != f"Bearer {self.key}":
            return self._error(401, "the API key is missing or not valid", "invalid_api_key")
        if self.refuses:
            return JSONResponse(self.refuses[1], self.refuses[0])
        body, self.done = await request.json(), False
        self.asked.append(body)
        headers = {"x-millrace-request-id": REQUEST_ID}
        if body.get("stream"):
            return _Stream(self._stream(), media_type="text/event-stream", headers=headers)
        self.done = True
        message = {"role": "assistant", "content": "".join(self.texts)}
        return JSONResponse({"choices": [{"message": message}]}, headers=headers)

    async def _stream(self) -> AsyncGenerator[str]:
        try:
            yield ": keep-alive\n\n"
            yield _frame({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
            for text in self.texts:
                yield _frame({"choices": [{"delta": {"content": text}}]})
                await asyncio.sleep(0)
            while self.polls < self.least_polls:  # noqa: ASYNC110 - a test sets one of them
                await asyncio.sleep(0.02)
            if self.hangs:
                await asyncio.sleep(60)
            self.done = True
            if self.breaks:
                return
            if self.fails:
                yield _frame({"error": self.fails})
            else:
                yield _frame({"choices": [{"delta": {}, "finish_reason": "stop"}]})
                yield _frame({"choices": [], "usage": {"total_tokens": 3110}})
            yield "data: [DONE]\n\n"
        finally:
            if not self.done:
                self.left.set()

    def _error(self, status: int, message: str, code: str) -> Response:
        return JSONResponse({"error": {"message": message, "code": code}}, status)


class _Stream(StreamingResponse):
    """Ends its generator as soon as the client has left.

    One that is cancelled while it sends leaves that to the collector, some time.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with contextlib.aclosing(cast(AsyncGenerator[str], self.body_iterator)):
            await super().__call__(scope, receive, send)


def _frame(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


@contextlib.contextmanager
def serving(master: FakeMaster, port: int = 0) -> Iterator[FakeMaster]:
    """Serve it on loopback until the block ends."""
    config = uvicorn.Config(
        master.app(),
        port=port,
        log_level="error",
        lifespan="off",
        # It must never be the one that closes: a client may be about to ask again.
        timeout_keep_alive=600,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started:
            assert time.monotonic() < deadline, "the fake master does not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        master.url = f"http://127.0.0.1:{port}"
        yield master
    finally:
        server.force_exit = server.should_exit = True
        thread.join()
