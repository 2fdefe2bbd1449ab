"""`millrace routing`: what is known is shown on a page, and forgotten on demand."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

from db.evidence import Evidence, Votes
from master.api.routing_shapes import RoutingTable, table
from master.rules.bandit import Work
from millrace.commands import routing
from queue_schemas.registry import Registry

REGISTRY = Registry.model_validate(
    {
        "models": [
            {"name": "llama3.2:3b", "provider": "ollama"},
            {"name": "codellama:34b-instruct-q4_K_M", "provider": "ollama"},
        ]
    }
)
FOUND = Evidence(
    [
        Votes("answer", "llama3.2:3b", 40.0, 16.0, 20),
        Votes("answer", "codellama:34b-instruct-q4_K_M", 40.0, 36.0, 20),
        Votes("poetry", "llama3.2:3b", 1.0, 1.0, 1),
    ],
    {},
)
STATE = table(FOUND, REGISTRY, learns=True, explore_share=0.1)


class Answers(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        body = json.dumps(STATE).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    Answers.asked = []
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def run(*arguments: str) -> str:
    done = CliRunner(env={"COLUMNS": "80", "MILLRACE_HOME": "/nonexistent"}).invoke(
        routing.app, arguments
    )
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_table_fits_and_says_why(url: str) -> None:
    shown = run("--url", url)
    assert max(map(len, shown.splitlines())) <= 80
    words = " ".join(shown.split())
    assert "✓ codellama" in words
    assert "0.82" in words
    assert "10% of the questions try any model" in words
    assert [word for word in words.split() if word in set(Work)] == [
        "answer",
        "rag",
        "code",
        "part",
    ]


def test_json_is_what_the_master_said(url: str) -> None:
    found = json.loads(run("--url", url, "--json"))
    assert RoutingTable.model_validate(found)
    assert found == STATE
    assert [(work["kind"], work["chosen"]) for work in found["data"]][:2] == [
        ("answer", "codellama:34b-instruct-q4_K_M"),
        ("rag", "llama3.2:3b"),
    ]


def test_a_reset_is_of_all_kinds_or_of_one(url: str) -> None:
    assert run("reset", "--url", url) == "Routing of all kinds of work starts anew.\n"
    assert run("reset", "--kind", "code", "--url", url) == "Routing of code starts anew.\n"
    assert Answers.asked == ["DELETE /v1/routing", "DELETE /v1/routing?kind=code"]
