"""`millrace chat` and `millrace conversations`."""

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli.command_line import Terminal, millrace
from tests.integration.cli.fake_master import ANSWER, REQUEST_ID, serving
from tests.integration.cli.remembering_master import MADE, MILLS, RIVERS, RememberingMaster


@pytest.fixture
def master() -> Iterator[RememberingMaster]:
    with serving(RememberingMaster()) as running:
        assert isinstance(running, RememberingMaster)
        yield running


def test_each_line_of_a_script_is_a_question_of_one_conversation(
    master: RememberingMaster,
) -> None:
    done = millrace("chat", stdin="I am Ada.\n\nWho am I?\n", MILLRACE_URL=master.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, ANSWER + ANSWER, "")
    assert [asked["conversation"] for asked in master.asked] == ["new", MADE]
    assert [asked["messages"][0]["content"] for asked in master.asked] == ["I am Ada.", "Who am I?"]
    assert {asked["model"] for asked in master.asked} == {"millrace/auto"}


def test_commands_of_a_script_change_what_is_asked(master: RememberingMaster) -> None:
    lines = ["/strategy split", "One?", "/model llama3.2:3b", "Two?", "/rate - too long", "/new"]
    lines += ["Three?", "/open diary", "Four?", "/rate +", "/quit", "Never?"]
    done = millrace(
        "chat", "--user", "ada", "--recall", stdin="\n".join(lines), MILLRACE_URL=master.url
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, ANSWER * 4, "")
    models = ["millrace/split", "llama3.2:3b", "llama3.2:3b", "llama3.2:3b"]
    assert [asked["model"] for asked in master.asked] == models
    assert [asked["conversation"] for asked in master.asked] == ["new", MADE, "new", RIVERS]
    assert all(a["user"] == "ada" and a["memory"] == {"recall": True} for a in master.asked)
    rated = {"request": REQUEST_ID, "user": "ada"}
    assert master.feedback == [
        {**rated, "rating": -1, "comment": "too long"},
        {**rated, "rating": 1},
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/sing", "there is no command /sing"),
        ("/strategy poetry", "there is no strategy 'poetry'"),
        ("/model nobody", "there is no model 'nobody'"),
        ("/rate", "/rate + or /rate -"),
        ("/rate +", "there is no answer to rate"),
        ("/open conv_9", "there is no conversation 'conv_9'"),
        ("/open", "/open needs an id"),
    ],
)
def test_the_first_failure_ends_a_script(master: RememberingMaster, line: str, words: str) -> None:
    done = millrace("chat", stdin=f"{line}\nWhat?\n", MILLRACE_URL=master.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert not master.asked


def test_a_conversation_of_before_is_gone_on_with(master: RememberingMaster) -> None:
    options = ("--conversation", MILLS[:13], "--collection", "handbook")
    done = millrace("chat", *options, stdin="And?\n", MILLRACE_URL=master.url)
    assert done.returncode == 0
    asked = master.asked[0]
    assert (asked["conversation"], asked["model"]) == (MILLS, "millrace/rag")
    assert asked["retrieval"] == {"collection": "handbook", "only": True}


def test_ctrl_c_stops_an_answer_and_not_the_chat(master: RememberingMaster, tmp_path: Path) -> None:
    master.hangs = True
    terminal = Terminal("chat", MILLRACE_URL=master.url, MILLRACE_HOME=str(tmp_path / "home"))

    def after_typing(keys: str, said: str) -> None:
        before = len(terminal.output)
        os.write(terminal._terminal, keys.encode())
        terminal.wait_for(said, after=before)

    terminal.wait_for("/help lists commands")
    terminal.wait_for("> ")
    after_typing("What turns it?\n", "HNSW is a graph")
    terminal.interrupt()
    terminal.wait_for("Stopped.")
    assert master.left.wait(60)
    master.hangs = False
    after_typing("/list\n", "What turns a mill?")
    after_typing("/open 1\n", "Going on with")
    after_typing("/history\n", "And who am I?")
    after_typing("/nothing\n", "there is no command /nothing")
    after_typing("Again?\n", "tokens")
    terminal.wait_for("> ", after=terminal.output.rindex("tokens"))  # else the key is lost
    terminal.press("\x04")
    assert terminal.close() == 0
    assert "Traceback" not in terminal.output
    assert [asked["conversation"] for asked in master.asked] == ["new", MILLS]
    history = tmp_path / "home" / "chat_history"
    assert "What turns it?" in history.read_text("utf-8")
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_conversations_are_listed_in_80_columns(master: RememberingMaster) -> None:
    done = millrace("conversations", "list", "--user", "ada", MILLRACE_URL=master.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"What turns a mill\? +2 +2026-01-01 00:00 +conv_11111111", done.stdout)
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert master.queries[0] == {"user": "ada", "limit": "20"}
    as_json = millrace("conversations", "list", "--json", MILLRACE_URL=master.url)
    assert [each["id"] for each in json.loads(as_json.stdout)] == [MILLS, RIVERS]


def test_a_conversation_is_shown_with_its_summary(master: RememberingMaster) -> None:
    done = millrace("conversations", "show", "conv_1111", MILLRACE_URL=master.url)
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if line]
    assert lines[:4] == [
        "Summary of the first 3 exchanges",
        "They spoke of mills.",
        "You",
        "What turns a mill?",
    ]
    assert 'calls look({"at": "it"})' in done.stdout
    assert lines[-1] == "And who am I?"


def test_conversations_are_exported_as_json_lines_and_markdown(
    master: RememberingMaster, tmp_path: Path
) -> None:
    out = tmp_path / "all.jsonl"
    done = millrace("conversations", "export", "--out", str(out), MILLRACE_URL=master.url)
    assert (done.returncode, done.stdout) == (0, "")
    exported = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [each["id"] for each in exported] == [MILLS, RIVERS]
    assert exported[0]["messages"][1] == {
        "role": "assistant",
        "content": "**Water** does.\n\nOr wind.",
    }
    page = millrace(
        "conversations", "export", MILLS, "--format", "markdown", MILLRACE_URL=master.url
    ).stdout
    assert page.startswith("# What turns a mill?\n\nconv_111")
    assert "## Millrace\n\n**Water** does.\n\nOr wind.\n\n" in page


def test_a_conversation_is_deleted_by_its_name(master: RememberingMaster) -> None:
    done = millrace("conversations", "delete", "diary", MILLRACE_URL=master.url)
    assert (done.returncode, master.deleted) == (0, [RIVERS])
    assert "is deleted" in done.stdout
    unknown = millrace("conversations", "delete", "conv_9999", MILLRACE_URL=master.url)
    assert (unknown.returncode, len(master.deleted)) == (1, 1)
    assert "there is no conversation 'conv_9999'" in unknown.stderr
