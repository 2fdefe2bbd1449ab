"""How lines are written: what is left out of them, and which level goes where."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from bus import tracing
from millrace.log_text import as_json, for_people
from millrace.logs import Level, LogSettings, said_of_all, without_values
from millrace.problems import explain
from tests.integration.cli.command_line import python

PROGRAM = """
import logging, structlog
from millrace import logs
logs.configure("test", debug={debug})
log = structlog.get_logger()
log.debug("a.debug", request="1")
log.info("an.info", number=float("nan"), odd=object)
try:
    raise ValueError("DETAIL:  Failing row contains (secret)." + chr(10) + "HINT: none")
except ValueError:
    log.exception("a.bug")
logging.getLogger("library").warning("it says %s", "so")
"""


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError


FORGED = """
import logging, structlog
from millrace import logs
logs.configure("test")
log = structlog.get_logger()
bad = "no" + chr(10) + "2026-01-01T00:00:00Z [info ] forged " + chr(27) + "[2J" + chr(27) + "[31m"
log.warning("an.event", reason=bad, several=[bad], odd=type("X", (), {"__repr__": lambda _: bad})())
log.warning(bad)
try:
    raise ValueError(bad)
except ValueError:
    log.exception("a.bug")
logging.getLogger("library").warning("it says no" + chr(13) + chr(10) + "forged=1" + chr(27) + "[K")
"""


class Body(BaseModel):
    number: int


def test_what_a_database_says_of_a_row_is_left_out() -> None:
    said = "(sqlalchemy.exc.IntegrityError) no\nDETAIL:  Failing row (secret\nsecret).\n[SQL: X]"
    assert without_values(said) == "(sqlalchemy.exc.IntegrityError) no\nDETAIL: …\n[SQL: X]"
    assert without_values("DETAIL:  Key (a)=(secret).") == "DETAIL: …"


def test_what_a_validation_says_of_a_value_is_left_out() -> None:
    with pytest.raises(ValidationError) as raised:
        Body.model_validate({"number": "secret, input_type=x"})
    said = without_values(str(raised.value))
    assert "secret" not in said
    assert "valid integer" in said


def test_stderr_and_the_file_have_the_levels_that_are_wanted(tmp_path: Path) -> None:
    done = python(PROGRAM.format(debug=False), MILLRACE_LOG_FOLDER=str(tmp_path))
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["an.info", "a.bug", "it says so"]
    assert {line["process"] for line in lines} == {"test"}
    assert lines[0]["number"] == "NaN"
    assert "secret" not in done.stderr
    assert "DETAIL: …" in lines[1]["exception"]
    written = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    assert [line["event"] for line in written] == ["a.debug", "an.info", "a.bug", "it says so"]
    assert written[1:3] == lines[:2]


def test_lines_for_people_have_no_variables_of_frames(tmp_path: Path) -> None:
    settings = {"MILLRACE_LOG_FORMAT": "console", "MILLRACE_LOG_LEVEL": "warning"}
    said = python(PROGRAM.format(debug=False), **settings).stderr
    assert "a.bug" in said
    assert "an.info" not in said
    assert "secret" not in said
    assert "a.debug" in python(PROGRAM.format(debug=True), **settings).stderr


def test_what_cannot_be_written_is_written_otherwise_and_fails_nobody() -> None:
    itself: list[Any] = []
    itself.append(itself)
    odd = {"half": "a \ud800", "bytes": b"\xff", "itself": itself, "broken": Broken()}
    wanted = {
        "half": "a \\ud800",
        "bytes": "b'\\xff'",
        "itself": "[[...]]",
        "broken": "<Broken that cannot be shown>",
    }
    assert json.loads(as_json({**odd, "request": "1"})) == wanted | {"request": "1"}
    said = for_people(lambda _, __, event: dict(event))(None, "info", {**odd, "number": 1.5})
    assert said == wanted | {"half": "a", "number": 1.5}


def test_lines_for_people_cannot_be_forged(tmp_path: Path) -> None:
    settings = {"MILLRACE_LOG_FORMAT": "console", "MILLRACE_LOG_FOLDER": str(tmp_path)}
    said = python(FORGED, **settings).stderr
    assert "\x1b" not in said
    heads = [line for line in said.splitlines() if not line.startswith(" ")]
    assert len(heads) == 4, said
    assert not any("info" in line.split("]")[0] for line in heads), "they are warnings and an error"
    assert "it says no forged=1" in said
    assert "ValueError: no" in said
    assert "\n" in json.loads((tmp_path / "test.jsonl").read_text().splitlines()[0])["reason"]


def test_a_line_names_the_trace_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    def written() -> Any:
        event: Any = {"event": "it happened"}
        for process in said_of_all("master"):
            event = process(None, "info", event)
        return event

    assert "trace" not in written()
    monkeypatch.setattr(tracing, "current_trace_id", lambda: "0af7651916cd43dd8448eb211c80319c")
    assert written()["trace"] == "0af7651916cd43dd8448eb211c80319c"


def test_settings_that_cannot_be_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_LOG_LEVEL", "loud")
    with pytest.raises(ValidationError) as raised:
        LogSettings()
    assert explain(raised.value).startswith("MILLRACE_LOG_LEVEL: Input should be 'debug', 'info'")
    monkeypatch.setenv("MILLRACE_LOG_LEVEL", "error")
    monkeypatch.setenv("MILLRACE_LOG_FOLDER", "")
    assert LogSettings().level is Level.ERROR
    assert LogSettings().folder is None
