import errno

import pytest

from bus.protocol import BusUnavailable
from master.settings import MasterSettings
from millrace.problems import Problem, explain, one_line, place, reaching
from worker.settings import WorkerSettings


def failure(cause: object) -> BaseException:
    try:
        cause()  # type: ignore[operator]
    except Exception as error:
        return error
    raise AssertionError("it did not fail")


EXPLAINED = {
    "a problem": (Problem("this is wrong."), "this is wrong."),
    "a problem of several lines": (Problem("a\n  b\x1b[31m"), "a b [31m"),
    "inside task groups": (
        ExceptionGroup("x", [ExceptionGroup("y", [Problem("the one.")])]),
        "the one.",
    ),
    "the bus": (BusUnavailable("cannot reach RabbitMQ"), "cannot reach RabbitMQ"),
    "a missing extra": (
        ModuleNotFoundError("no", name="sqlalchemy.ext"),
        "sqlalchemy is not installed here. Install it with: pip install '.[master]'",
    ),
    "a missing file": (
        FileNotFoundError(errno.ENOENT, "No such file or directory", "a.txt"),
        "a.txt: no such file or directory",
    ),
    "a taken port": (
        OSError(errno.EADDRINUSE, "Address already in use"),
        "the address is in use already. Stop what listens there or choose another --port.",
    ),
    "a bug": (
        KeyError("models"),
        "unexpected KeyError: 'models'. Run it again with --debug for the traceback, "
        "and please report it.",
    ),
    "a bug in an import": (
        ModuleNotFoundError("No module named 'bus.x'", name="bus.x"),
        "unexpected ModuleNotFoundError: No module named 'bus.x'. Run it again with --debug for "
        "the traceback, and please report it.",
    ),
}


@pytest.mark.parametrize(("error", "line"), EXPLAINED.values(), ids=EXPLAINED.keys())
def test_every_failure_is_one_line(error: BaseException, line: str) -> None:
    assert explain(error) == line


SETTINGS = {
    "missing": (MasterSettings, {}, "DATABASE_URL is not set."),
    "out of range": (
        MasterSettings,
        {"DATABASE_URL": "x", "MILLRACE_PORT": "70000"},
        "MILLRACE_PORT: Input should be",
    ),
    "of a worker": (
        WorkerSettings,
        {"MILLRACE_WORKER_DRAIN_SECONDS": "soon"},
        "MILLRACE_WORKER_DRAIN_SECONDS: Input should be a valid number",
    ),
    "that do not fit": (
        MasterSettings,
        {"DATABASE_URL": "x", "MILLRACE_LEASE_SECONDS": "1"},
        "MILLRACE_LEASE_SECONDS must be at least three heartbeats",
    ),
}


@pytest.mark.parametrize(("settings", "environment", "line"), SETTINGS.values(), ids=SETTINGS)
def test_a_wrong_setting_is_named_as_its_variable(
    settings: type, environment: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert explain(failure(settings)).startswith(line)


def test_reaching_names_the_place_and_keeps_the_password() -> None:
    with (
        pytest.raises(Problem) as caught,
        reaching("Postgres", "postgresql://me:secret@db:5432/x", "Start it."),
    ):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    assert str(caught.value) == "cannot reach Postgres at db:5432: connection refused. Start it."


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://user:pw@mq/v", "mq"),
        ("http://127.0.0.1:8000/v1", "127.0.0.1:8000"),
        ("http://x:port", "an address that is not a URL"),
    ],
)
def test_only_host_and_port_of_an_address_are_shown(url: str, shown: str) -> None:
    assert place(url) == shown


def test_endless_messages_are_cut() -> None:
    assert len(one_line("x" * 10_000)) == 400
