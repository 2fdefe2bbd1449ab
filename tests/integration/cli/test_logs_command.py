"""`millrace logs`: from the files of `millrace up`, from files that are named, from a pipe."""

import json
from pathlib import Path
from typing import Any

from tests.integration.cli.command_line import Terminal, millrace
from tests.unit.millrace.test_log_lines import OTHER, REQUEST, SUBTASK, line


def written(home: Path, name: str, *lines: str) -> Path:
    path = home / "logs" / name
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{each}\n" for each in lines)
    return path


def logs(*arguments: str, **more: Any) -> tuple[int, list[str], str]:
    done = millrace("logs", *arguments, COLUMNS="200", **more)
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_lines_of_several_processes_are_merged(tmp_path: Path) -> None:
    written(tmp_path, "up.jsonl", line("request.accepted", 1, request=REQUEST, process="up"))
    written(tmp_path, "up.jsonl", line("request.ended", 5, request=REQUEST, process="up"))
    own = {"request": REQUEST, "subtask": SUBTASK, "worker": "gpu-1"}
    written(tmp_path, "worker-mill.jsonl.old", line("execute.started", 2, **own, level="debug"))
    written(tmp_path, "worker-mill.jsonl", line("execute.ended", 4, **own))
    written(tmp_path, "worker-mill.jsonl", line("execute.ended", 3, request=OTHER))
    home = {"MILLRACE_HOME": str(tmp_path)}
    code, lines, _ = logs(REQUEST[:8], **home)
    assert code == 0
    assert [each.split()[3] for each in lines] == [
        *("request.accepted", "execute.started", "execute.ended", "request.ended")
    ]
    who = "10:00:02.000 debug   gpu-1".ljust(46)
    assert lines[1] == f"{who}execute.started subtask=7b000000"
    assert len(logs(SUBTASK, "--level", "info", **home)[1]) == 1
    assert json.loads(logs(REQUEST, "--json", **home)[1][0])["event"] == "request.accepted"
    assert logs("3f2a", **home)[2] == f"millrace: '3f2a' may be several: {REQUEST}, {OTHER}.\n"


def test_lines_are_read_from_a_pipe_and_from_files(tmp_path: Path) -> None:
    prefixed = "[pod/millrace-master-5d8/master] " + line("request.ended", request=REQUEST)
    code, lines, _ = logs(REQUEST, "-", stdin=f"hello\n{prefixed}\n")
    assert (code, lines) == (0, ["10:00:00.000 info    millrace-master-5d8      request.ended"])
    path = written(tmp_path, "any.txt", prefixed)
    assert logs(REQUEST, str(path))[1] == lines
    code, lines, error = logs(OTHER, "-", stdin=prefixed)
    assert (code, lines) == (1, [])
    assert f"no line names {OTHER} in the 1 line of standard input" in error


def test_where_there_is_nothing_to_read_it_says_what_to_do(tmp_path: Path) -> None:
    code, _, error = logs(REQUEST, MILLRACE_HOME=str(tmp_path))
    assert code == 1
    assert f"there are no logs in {tmp_path}/logs" in error
    assert "kubectl logs" in error
    assert "docker compose logs" in error
    assert "no such file" in logs(REQUEST, str(tmp_path / "none"))[2]
    assert "is no id" in logs("everything")[2]


def test_new_lines_are_followed(tmp_path: Path) -> None:
    written(tmp_path, "up.jsonl", line("request.accepted", request=REQUEST))
    terminal = Terminal("logs", REQUEST, "--follow", MILLRACE_HOME=str(tmp_path))
    terminal.wait_for("request.accepted")
    written(tmp_path, "up.jsonl", line("request.ended", request=OTHER))
    written(tmp_path, "worker-new.jsonl", line("execute.started", request=REQUEST))
    terminal.wait_for("execute.started")
    terminal.interrupt()
    assert terminal.close() == 130
    assert "request.ended" not in terminal.output
    assert "Traceback" not in terminal.output
