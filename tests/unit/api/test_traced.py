"""Spans around HTTP requests: named by their route, below the client's, failed by a 5xx."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from bus import tracing
from master.api.traced import TracedRequests
from tests.doubles.traces import Seen, read

CLIENT = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


async def _thing(request: Request) -> Response:
    return PlainTextResponse("", headers={"x-millrace-request-id": "r-1"})


def _app() -> FastAPI:
    app = FastAPI()

    @app.get("/v1/things/{name}")
    async def thing(name: str) -> str:
        return name

    @app.get("/v1/broken")
    async def broken() -> None:
        raise RuntimeError("a secret")

    @app.get("/ready")
    async def ready() -> str:
        return "yes"

    app.router.routes.insert(0, Route("/v1/plain", _thing))
    app.add_middleware(TracedRequests)
    return app


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "spans.jsonl"
    tracing.turn_on(f"file:{path}", "millrace-test", instance="test-1")
    yield path
    tracing.shut_down()


async def _asked(file: Path, path: str, *headers: tuple[str, str]) -> list[Seen]:
    transport = httpx2.ASGITransport(app=_app(), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://here") as http:
        await http.get(path, headers=list(headers))
    tracing.shut_down()
    return read(file)


async def test_a_span_has_the_name_of_its_route_and_nobody_s_ids(file: Path) -> None:
    (span,) = await _asked(file, "/v1/things/somebody", CLIENT)
    assert span.name == "GET /v1/things/{name}"
    assert span.parent == "b7ad6b7169203331"
    assert span.attributes == {
        "http.request.method": "GET",
        "http.route": "/v1/things/{name}",
        "http.response.status_code": 200,
    }


async def test_a_plain_route_has_its_path_and_the_answer_its_request(file: Path) -> None:
    (span,) = await _asked(file, "/v1/plain")
    assert (span.name, span.says("request")) == ("GET /v1/plain", "r-1")


async def test_what_no_route_knows_is_not_named_after_its_path(file: Path) -> None:
    (span,) = await _asked(file, "/v1/somebody-s-secret")
    assert span.name == "GET"
    assert span.attributes["http.response.status_code"] == 404
    assert not span.is_error


async def test_a_bug_is_an_error_without_its_words(file: Path) -> None:
    (span,) = await _asked(file, "/v1/broken")
    assert span.is_error
    assert "secret" not in repr(span)


async def test_two_traceparents_are_none(file: Path) -> None:
    (span,) = await _asked(file, "/v1/plain", CLIENT, CLIENT)
    assert span.parent is None


async def test_probes_leave_no_trace(file: Path) -> None:
    assert await _asked(file, "/ready") == []
