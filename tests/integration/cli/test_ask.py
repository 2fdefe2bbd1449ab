import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli.command_line import Terminal, millrace
from tests.integration.cli.fake_master import (
    ANSWER,
    REQUEST_ID,
    FakeMaster,
    record,
    serving,
    subtask,
)

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def plain(terminal: Terminal) -> str:
    """What was written, in the order of writing; a line that is written anew is a new line."""
    return _ESCAPES.sub("", terminal.output.replace("\r", "\n"))


@pytest.fixture
def master() -> Iterator[FakeMaster]:
    with serving(FakeMaster()) as running:
        yield running


def test_elsewhere_than_in_a_terminal_only_the_answer_is_printed(master: FakeMaster) -> None:
    done = millrace("ask", "What?", MILLRACE_URL=master.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, ANSWER, "")
    assert master.asked[0]["model"] == "millrace/auto"
    assert master.asked[0]["stream"] is True
    assert master.polls == 0


@pytest.mark.parametrize(
    ("options", "model"),
    [
        (["--strategy", "split"], "millrace/split"),
        (["--strategy", "direct"], "llama3.2:3b"),
        (["--model", "codellama:34b-instruct"], "codellama:34b-instruct"),
        (["--model", "m", "--strategy", "direct"], "m"),
    ],
)
def test_strategy_and_model_decide_what_is_asked(
    master: FakeMaster, options: list[str], model: str
) -> None:
    assert millrace("ask", "What?", *options, "--url", master.url).returncode == 0
    assert master.asked[0]["model"] == model


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (["--strategy", "rag"], ("millrace/rag", None)),
        (
            ["--collection", "handbook"],
            ("millrace/rag", {"collection": "handbook", "only": True}),
        ),
        (
            ["--collection", "handbook", "--model", "m"],
            ("m", {"collection": "handbook", "only": False}),
        ),
    ],
)
def test_documents_are_asked_by_strategy_or_by_collection(
    master: FakeMaster, options: list[str], asked: tuple[str, Any]
) -> None:
    assert millrace("ask", "Why?", *options, "--url", master.url).returncode == 0
    assert (master.asked[0]["model"], master.asked[0].get("retrieval")) == asked


def test_a_collection_cannot_be_split(master: FakeMaster) -> None:
    options = ("--collection", "handbook", "--strategy", "split", "--url", master.url)
    done = millrace("ask", "Why?", *options)
    assert done.returncode == 2
    assert "cannot be combined with --strategy split" in done.stderr


def test_the_question_is_read_from_standard_input(master: FakeMaster) -> None:
    done = millrace("ask", "-", "--no-stream", stdin="Why?\n", MILLRACE_URL=master.url)
    assert done.stdout == ANSWER + "\n" or done.stdout == ANSWER
    assert master.asked[0]["messages"][0]["content"] == "Why?\n"
    assert "stream" not in master.asked[0]


def test_files_are_attached_before_the_question(master: FakeMaster, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("The mill stands still.")
    done = millrace("ask", "Why?", "--file", "notes.md", cwd=tmp_path, MILLRACE_URL=master.url)
    assert done.returncode == 0
    assert master.asked[0]["messages"][0]["content"] == (
        '<context>\n<source id="1" name="notes.md">The mill stands still.</source>\n</context>'
        "\n\nWhy?"
    )


def test_json_has_the_answer_and_the_record(master: FakeMaster) -> None:
    done = millrace("ask", "What?", "--json", MILLRACE_URL=master.url)
    printed = json.loads(done.stdout)
    assert printed["answer"] == ANSWER
    assert printed["request"]["id"] == REQUEST_ID
    assert printed["request"]["state"] == "completed"


def test_a_text_with_unusual_line_separators_arrives_whole(master: FakeMaster) -> None:
    master.texts = ["a\u2028b\u0085c\x0bd", "\n"]
    assert millrace("ask", "What?", MILLRACE_URL=master.url).stdout == "a\u2028b\u0085c\x0bd\n"


def test_a_terminal_without_unicode_gets_a_replacement(master: FakeMaster) -> None:
    master.texts = ["müll\n"]
    done = millrace("ask", "What?", MILLRACE_URL=master.url, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (0, "m?ll\n", "")


def test_the_key_is_sent_and_asked_for(master: FakeMaster) -> None:
    master.key = "mr-right"
    done = millrace("ask", "What?", MILLRACE_URL=master.url, MILLRACE_API_KEY="mr-wrong")
    assert done.returncode == 1
    assert done.stderr == (
        "millrace: the master refused: the API key is missing or not valid (invalid_api_key). Set "
        "MILLRACE_API_KEY or give --api-key; `millrace keys create` makes a key.\n"
    )
    assert millrace("ask", "What?", "--url", master.url, "--api-key", "mr-right").returncode == 0


def test_on_this_machine_the_kept_key_is_used(master: FakeMaster, tmp_path: Path) -> None:
    master.key = "mr-kept"
    (tmp_path / "key").write_text("mr-kept\n")
    done = millrace("ask", "What?", MILLRACE_URL=master.url, MILLRACE_HOME=str(tmp_path))
    assert done.returncode == 0


REFUSALS = {
    "envelope": (
        {"error": {"message": "the model 'x' does not exist", "code": "model_not_found"}},
        "the master refused: the model 'x' does not exist (model_not_found).",
    ),
    "no envelope": ({"detail": "no"}, "the master refused: HTTP 404 (404)."),
}


@pytest.mark.parametrize(("body", "line"), REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("mode", [[], ["--json"]], ids=["stream", "whole"])
def test_a_refusal_is_passed_on_in_one_line(
    master: FakeMaster, mode: list[str], body: dict[str, object], line: str
) -> None:
    master.refuses = (404, body)
    done = millrace("ask", "What?", *mode, MILLRACE_URL=master.url)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"millrace: {line}\n")


def test_a_stream_that_ends_in_an_error_fails_after_its_text(master: FakeMaster) -> None:
    master.fails = {"message": "every attempt failed", "code": "engine_down"}
    done = millrace("ask", "What?", MILLRACE_URL=master.url)
    assert done.returncode == 1
    assert done.stdout.startswith(ANSWER[:70])
    assert done.stderr == "millrace: the master refused: every attempt failed (engine_down).\n"


def test_a_stream_without_an_end_is_not_taken_for_an_answer(master: FakeMaster) -> None:
    master.breaks = True
    done = millrace("ask", "What?", MILLRACE_URL=master.url)
    assert done.returncode == 1
    assert f"broke off before its end (request {REQUEST_ID})" in done.stderr


def test_a_web_server_that_is_no_master_is_recognised(master: FakeMaster) -> None:
    done = millrace("ask", "What?", "--url", f"{master.url}/elsewhere")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "not a Millrace master" in done.stderr


def test_a_terminal_shows_plan_answer_and_bill(master: FakeMaster) -> None:
    master.least_polls = sys.maxsize
    terminal = Terminal("ask", "What?", "--strategy", "split", MILLRACE_URL=master.url)
    terminal.wait_for("after part-1, part-2")
    master.least_polls = 3
    terminal.wait_for("USD 0.0024")
    assert terminal.close() == 0
    text = plain(terminal)
    assert max(map(len, text.splitlines())) <= 80
    after_the_tree = text[text.rindex("└─") :]
    assert "completed in 4.4 s · 2 subtasks · 3,110 tokens" in after_the_tree


def test_a_terminal_shows_what_a_failure_took(master: FakeMaster) -> None:
    master.fails = {"message": "every attempt failed", "code": "engine_down"}
    error = {"kind": "transient", "code": "engine_down", "message": "it went away"}
    master.ended = record("failed", [subtask("a", "A", "dead", error=error)])
    terminal = Terminal("ask", "What?", MILLRACE_URL=master.url)
    assert terminal.close() == 1
    text = " ".join(plain(terminal).split())
    assert "A: it went away" in text
    assert text.endswith("millrace: the master refused: every attempt failed (engine_down).")


def test_ctrl_c_leaves_quietly_and_closes_the_stream(master: FakeMaster) -> None:
    master.hangs = True
    terminal = Terminal("ask", "What?", MILLRACE_URL=master.url)
    terminal.wait_for("after part-1, part-2")
    terminal.interrupt()
    assert terminal.close() == 130
    assert "Traceback" not in terminal.output
    assert "millrace:" not in terminal.output
    assert master.left.wait(30), "the master still streams"
