import json
import subprocess
import sys
from pathlib import Path

import pytest

from millrace.cli import COMMANDS
from tests.integration.cli.command_line import ROOT, environment, millrace

GROUPS = {
    "collections": ("list", "show", "delete"),
    "conversations": ("list", "show", "export", "delete"),
    "dead": ("list", "show", "retry", "drop"),
    "documents": ("list", "show", "delete", "retry"),
    "eval": ("retrieval",),
    "k8s": ("render", "secrets", "check"),
    "keys": ("create", "ensure", "list", "revoke"),
    "n8n": ("provision", "report"),
    "openwebui": ("connect", "pull", "status"),
    "requests": ("list", "show"),
    "rules": ("list", "show", "propose", "approve", "reject", "try", "rollback", "diff"),
    "schemas": ("export",),
}
SUBCOMMANDS = [(group, command) for group, commands in GROUPS.items() for command in commands]
PAGES = [(name,) for name in COMMANDS if name not in GROUPS] + SUBCOMMANDS


@pytest.mark.parametrize("command", [(), *PAGES], ids=" ".join)
def test_help_has_examples_and_fits_80_columns(command: tuple[str, ...]) -> None:
    done = millrace(*command, "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "Examples" in done.stdout
    assert " ".join(("millrace", *command)) in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_no_arguments_show_the_help() -> None:
    assert "doctor" in millrace().stdout


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_lists_its_commands(group: str) -> None:
    done = millrace(group, "--help")
    assert done.returncode == 0
    listed = {line.strip("│ ").split(" ")[0] for line in done.stdout.splitlines() if "│" in line}
    assert listed & {command for _, command in SUBCOMMANDS} == set(GROUPS[group])


def test_help_imports_nothing_of_the_servers() -> None:
    code = (
        "import sys\nfrom millrace.cli import run\nrun(['--help'])\n"
        "heavy = {'fastapi', 'sqlalchemy', 'aio_pika', 'pydantic', 'uvicorn', 'httpx2'}\n"
        "print(*sorted(heavy & set(sys.modules)), sep=', ', file=sys.stderr, end='')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_version_is_printed() -> None:
    assert millrace("--version").stdout.startswith("millrace 0.")


NOBODY = "postgresql://me:secret@127.0.0.1:1/x"
MODEL = ("--model", "extractive", "--models", str(ROOT / "millrace/models/one-machine.yaml"))

FAILURES = {
    "unknown command": (["statsu"], {}, 2, "no such command 'statsu'. Did you mean 'status'? See"),
    "unknown option": (["ask", "--strat", "x"], {}, 2, "--strat"),
    "missing question": (["ask"], {}, 2, "missing argument 'question'. See `millrace ask --help`"),
    "missing model": (["worker"], {}, 2, "--model"),
    "wrong strategy": (["ask", "x", "--strategy", "guess"], {}, 2, "'guess'"),
    "wrong port": (["up", "--port", "70000"], {}, 2, "--port"),
    "model and strategy": (["ask", "x", "--model", "m", "--strategy", "split"], {}, 2, "--model"),
    "empty question": (["ask", "-"], {}, 1, "the question is empty"),
    "missing file": (["ask", "x", "--file", "none.md"], {}, 1, "none.md: no such file"),
    "no master": (
        ["ask", "x"],
        {"MILLRACE_URL": "http://127.0.0.1:1"},
        1,
        "cannot reach the master at 127.0.0.1:1: connection refused. Start it with `millrace up`",
    ),
    "no URL": (["status", "--url", "localhost:8000"], {}, 1, "must begin with http:// or https://"),
    "no database given": (["migrate"], {}, 1, "DATABASE_URL is not set"),
    "no database there": (
        ["migrate"],
        {"DATABASE_URL": NOBODY},
        1,
        "cannot reach Postgres at 127.0.0.1:1: connection refused. Start it or set DATABASE_URL.",
    ),
    "another database": (["keys", "list"], {"DATABASE_URL": "mysql://x/y"}, 1, "postgresql://"),
    "no database URL": (["keys", "list"], {"DATABASE_URL": "://"}, 1, "DATABASE_URL is not a URL"),
    "master without database": (["master"], {}, 1, "DATABASE_URL is not set"),
    "master without broker": (["master"], {"DATABASE_URL": NOBODY}, 1, "RABBITMQ_URL is not set"),
    "master with a wrong setting": (
        ["master"],
        {"DATABASE_URL": NOBODY, "RABBITMQ_URL": "amqp://x", "MILLRACE_LEASE_SECONDS": "soon"},
        1,
        "MILLRACE_LEASE_SECONDS: Input should be a valid number",
    ),
    "worker without broker": (["worker", *MODEL], {}, 1, "RABBITMQ_URL is not set"),
    "worker at no broker": (
        ["worker", *MODEL],
        {"RABBITMQ_URL": "amqp://127.0.0.1:1"},
        1,
        "cannot reach RabbitMQ at 127.0.0.1:1",
    ),
    "worker of no model": (
        ["worker", *MODEL, "--model", "gpt"],
        {"RABBITMQ_URL": "amqp://127.0.0.1:1"},
        1,
        "has no model 'gpt'; it has extractive.",
    ),
    "worker without engine": (
        ["worker", "--model", "llama3.2:3b", "--models", str(ROOT / "models.yaml")],
        {"RABBITMQ_URL": "amqp://127.0.0.1:1", "OLLAMA_HOST": "127.0.0.1:1"},
        1,
        "llama3.2:3b cannot be served: Ollama does not answer at http://127.0.0.1:1",
    ),
    "schemas into a file": (["schemas", "export", __file__], {}, 1, "test_command_line.py"),
}


@pytest.mark.parametrize(("arguments", "settings", "code", "said"), FAILURES.values(), ids=FAILURES)
def test_a_failure_is_one_clear_line(
    arguments: list[str], settings: dict[str, str], code: int, said: str, tmp_path: Path
) -> None:
    done = millrace(*arguments, cwd=tmp_path, **settings)
    assert done.returncode == code
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("millrace: ")
    assert said in line
    assert "secret" not in line


@pytest.mark.parametrize("debug", [["--debug", "migrate"], ["migrate", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(debug: list[str]) -> None:
    done = millrace(*debug, DATABASE_URL=NOBODY)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ConnectionRefusedError" in done.stderr


def test_debug_after_two_dashes_is_part_of_the_question(tmp_path: Path) -> None:
    done = millrace("ask", "--url", "http://127.0.0.1:1", "--", "--debug", cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert "cannot reach the master" in done.stderr


def test_a_models_file_is_checked_and_shown(tmp_path: Path) -> None:
    done = millrace("models", "--file", str(ROOT / "models.yaml"))
    assert done.returncode == 0
    assert "codellama:34b-instruct" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    listed = json.loads(millrace("models", "--file", str(ROOT / "models.yaml"), "--json").stdout)
    assert listed["models"][0]["slug"] == "codellama-34b-instruct"


def test_every_problem_of_a_models_file_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("models:\n  - {name: a, provider: olama}\n  - {nam: b}\n")
    done = millrace("models", "--file", "m.yaml", cwd=tmp_path)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0].startswith("millrace: m.yaml:2: models[0].provider: 'olama' is not one of")
    assert {line.split(": ")[1] for line in lines[1:]} == {"m.yaml:3"}
    assert any("unknown key; did you mean 'name'?" in line for line in lines)


def test_schemas_are_written_where_they_are_wanted(tmp_path: Path) -> None:
    done = millrace("schemas", "export", str(tmp_path / "out"))
    assert done.returncode == 0
    written = [Path(line) for line in done.stdout.splitlines()]
    assert tmp_path / "out" / "asyncapi.json" in written
    assert all(json.loads(path.read_text()) for path in written)
