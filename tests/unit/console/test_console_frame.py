"""Where signing in leads to, and what else the frame decides by itself."""

import httpx2
import pytest
from fastapi import FastAPI

from master.api import errors
from master.console import frame
from master.console.frame import is_console, local_path
from master.console.pages import _here


@pytest.mark.parametrize(
    "path", ["/console", "/console/", "/console/requests?state=failed&q=a%20b", "/console/dead/x"]
)
def test_pages_of_the_console_are_gone_back_to(path: str) -> None:
    assert local_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "https://elsewhere.example/console",
        "//elsewhere.example/console",
        "/console//elsewhere.example",
        "/console/../v1/models",
        "/console\\elsewhere.example",
        "/consolex",
        "/v1/models",
        "console",
        "javascript:alert(1)",
        "/console/\nSet-Cookie: a=b",
        "/console/ä",
        "/console/login",
        "/console/login?next=/console/login",
        "/console/" + "x" * 3000,
    ],
)
def test_anything_else_leads_to_the_first_page(path: str) -> None:
    assert local_path(path) == "/console"


def test_only_whole_names_are_the_console() -> None:
    assert is_console("/console")
    assert is_console("/console/a")
    assert not is_console("/consoles")
    assert not is_console("/v1/console")


@pytest.mark.parametrize(
    ("path", "entry"),
    [
        ("/console", "/console"),
        ("/console/requests/abc", "/console/requests"),
        ("/console/requestsx", "/console"),
        ("/console/login", "/console"),
    ],
)
def test_the_navigation_marks_the_page_that_one_is_on(path: str, entry: str) -> None:
    assert _here(path) == entry


async def test_pages_of_errors_keep_what_programs_go_by() -> None:
    app = FastAPI(docs_url=None, redoc_url=None)

    @app.get("/console/away")
    async def away() -> None:
        raise errors.service_unavailable("the database is away", 7)

    @app.get("/console/broken")
    async def broken() -> None:
        raise RuntimeError("a bug")

    errors.install(app)
    frame.install(app)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://mill") as http:
        answer = await http.get("/console/away")
        assert (answer.status_code, answer.headers["x-should-retry"]) == (503, "true")
        assert int(answer.headers["retry-after"]) >= 7
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "the database is away" in answer.text
        answer = await http.get("/console/broken")
        assert (answer.status_code, answer.headers["x-should-retry"]) == (500, "false")
        answer = await http.post("/console/away")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
