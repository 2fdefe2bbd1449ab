"""Log lines: what a line is read from, which of them are one request's, and how they look."""

import errno
import json
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from rich.console import Console

from millrace.log_files import Follower, LogFile, Tail, in_folder, lines, old
from millrace.log_lines import LogLine, Search, found, parse
from millrace.problems import Problem
from millrace.show.log_lines import pretty

REQUEST = "3f2a91c4-0000-4000-8000-000000000001"
OTHER = "3f2abbbb-0000-4000-8000-000000000002"
SUBTASK = "7b000000-0000-4000-8000-000000000003"


def line(event: str, second: int = 0, **fields: Any) -> str:
    stamp = f"2026-01-01T10:00:{second:02}.000000Z"
    return json.dumps({"event": event, "level": "info", "timestamp": stamp, **fields})


def events(texts: Sequence[str], identity: str) -> list[str]:
    return [each.fields["event"] for each in found(lambda: texts, Search.of(identity))]


@pytest.mark.parametrize(
    ("prefix", "source"),
    [
        ("", ""),
        ("[pod/millrace-master-5d8/master] ", "millrace-master-5d8"),
        ("worker-1  | ", "worker-1"),
        ("\x1b[36mmaster-2  |\x1b[0m ", "master-2"),
        ("[pod/millrace-worker-7/worker] 2026-01-01T10:00:00.123456789Z ", "millrace-worker-7"),
        ("2026-01-01T10:00:00.1Z ", ""),
    ],
)
def test_what_collectors_put_before_a_line_is_taken_off(prefix: str, source: str) -> None:
    read = parse(prefix + line("request.ended", request=REQUEST))
    assert read is not None
    assert (read.source, read.fields["event"]) == (source, "request.ended")


@pytest.mark.parametrize(
    "text", ["", "plain words", "{", '{"a": 1}', "[1]", '"event"', "x {] y", '{"event": "cut']
)
def test_what_is_no_event_is_passed_over(text: str) -> None:
    assert parse(text) is None


def test_lines_of_one_request_are_found_and_put_in_order() -> None:
    texts = [
        line("execute.ended", 3, request=REQUEST, subtask=SUBTASK),
        "Traceback (most recent call last):",
        line("request.accepted", 1, request=REQUEST, request_id="http-1"),
        line("request.accepted", 2, request=OTHER, request_id="http-2"),
        line("recall.without_vectors", 0, request_id="http-1"),
        line("request.ended", 4, request=REQUEST.upper()),
    ]
    own = ["recall.without_vectors", "request.accepted", "execute.ended", "request.ended"]
    assert events(texts, REQUEST) == own
    assert events(texts, "3f2a91c40") == own
    assert events(texts, SUBTASK[:8]) == ["execute.ended"]
    assert events(texts, "dead-beef") == []


def test_a_beginning_that_several_ids_have_is_refused() -> None:
    search = Search.of("3f2a")
    found(lambda: [line("a", request=REQUEST), line("b", request=OTHER)], search)
    with pytest.raises(Problem, match=f"{REQUEST}, {OTHER}"):
        search.check()
    for wrong in ("", "3f2", "request", "3f2a91c4" * 5):
        with pytest.raises(Problem, match="is no id"):
            Search.of(wrong)


def test_a_line_is_shown_without_what_would_steer_a_terminal() -> None:
    fields = json.loads(line("bad\x1b[2J", 3, subtask=SUBTASK, reason="a\nb", worker="gpu-1"))
    shown = list(pretty(LogLine(fields | {"exception": "Trace\x07back\n  here", "code": None})))
    console = Console(width=200, record=True, file=None)
    with console.capture() as captured:
        for each in shown:
            console.print(each, highlight=False)
    assert captured.get().splitlines() == [
        "10:00:03.000 info    gpu-1                    bad [2J subtask=7b000000 reason=a b",
        "    Trace back",
        "      here",
    ]


def test_a_file_that_is_full_becomes_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "master.jsonl"
    first, second = LogFile(path, 20), LogFile(path, 20)  # two processes
    for number in range(9):
        (first if number % 2 else second).write(b"line %d...." % number)
    assert old(path).read_text().splitlines() == ["line 6....", "line 7...."]
    assert path.read_text() == "line 8....\n"
    assert path.stat().st_mode & 0o077 == 0
    assert in_folder(path.parent) == [old(path), path]
    assert list(lines(path, path.stat().st_size - 1)) == []
    for each in (first, second):
        each.close()


def test_two_that_begin_anew_at_the_same_moment_lose_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "master.jsonl"
    first, second = LogFile(path, 20), LogFile(path, 20)  # two processes
    first.write(b"line 0, which fills it")
    replace, threads = Path.replace, [Thread(target=second.write, args=(b"line 2",))]

    def late(self: Path, target: Path) -> Path:
        if threads:  # the other one looks while this one has not renamed it yet
            other = threads.pop()
            other.start()
            other.join(0.3)
            started.append(other)
        return replace(self, target)

    started: list[Thread] = []
    monkeypatch.setattr(Path, "replace", late)
    first.write(b"line 1")
    started[0].join()
    assert old(path).read_text() == "line 0, which fills it\n"
    assert sorted(path.read_text().splitlines()) == ["line 1", "line 2"]
    for each in (first, second):
        each.close()


@pytest.mark.parametrize("rotated", [False, True], ids=["by-us", "by-another-process"])
def test_a_file_that_cannot_be_begun_anew_costs_lines_and_never_writes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotated: bool
) -> None:
    path = tmp_path / "master.jsonl"
    file = LogFile(path, 20)
    file.write(b"line 0, which fills it")
    if rotated:
        path.replace(old(path))
        path.touch()
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", raise_no_files_left)
        file.write(b"line 1")
    other = tmp_path / "other"
    with other.open("wb"):  # may get the number that the log file had
        file.write(b"line 2")
    assert other.read_bytes() == b""
    assert path.read_text() == "line 2\n"
    assert old(path).read_text() == "line 0, which fills it\n"
    file.close()


def raise_no_files_left(*_: Any) -> int:
    raise OSError(errno.EMFILE, "too many open files")


def test_a_file_is_followed_across_its_end(tmp_path: Path) -> None:
    path = tmp_path / "up.jsonl"
    follower = Follower(path)
    assert follower.lines() == []
    file = LogFile(path, 30)
    seen: list[str] = []
    for number in range(7):
        file.write(b"line %d" % number)
        if number % 3 == 0:
            seen += follower.lines()
    with path.open("ab") as end:
        end.write(b"half a line")
    assert seen + follower.lines() == [f"line {number}" for number in range(7)]
    assert follower.lines() == []
    file.close()


def test_what_was_read_before_is_not_followed_again_when_its_file_is_full(tmp_path: Path) -> None:
    path, full = tmp_path / "up.jsonl", tmp_path / "worker.jsonl"
    files = [LogFile(each, 60) for each in (path, full)]
    old(full).write_text("older\n")
    for number in range(4):
        files[0].write(b"line %d" % number)
        files[1].write(b"other %d, which fills it" % number)
    tail = Tail({each: each.stat() for each in in_folder(tmp_path)})
    files[1].write(b"of a new file")
    for number in range(4, 12):
        files[0].write(b"line %d" % number)
    LogFile(tmp_path / "new.jsonl", 60).write(b"of another")
    named = [path, old(path), full]
    seen = [list(chain(*tail.lines(paths))) for paths in (in_folder(tmp_path), named)]
    new = [f"line {number}" for number in range(4, 12)]
    assert seen == [["of another", *new, "of a new file"], []]
    for each in files:
        each.close()
