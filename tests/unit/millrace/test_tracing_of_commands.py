"""Tracing of a process: on for as long as its command runs, or one clear line."""

from pathlib import Path

import pytest

import millrace.tracing
from bus import tracing
from bus.trace_settings import TraceSettings
from master.settings import MasterSettings
from millrace import problems
from millrace.problems import Problem
from millrace.tracing import check, traced
from worker.settings import WorkerSettings


def settings(place: str | None) -> TraceSettings:
    return TraceSettings.model_validate({"MILLRACE_TRACING": place})


def test_it_is_on_while_the_command_runs(tmp_path: Path) -> None:
    with traced(settings(f"file:{tmp_path / 'spans.jsonl'}"), "millrace-test", "1"):
        assert tracing.is_on()
    assert not tracing.is_on()


def test_it_is_off_unless_it_was_asked_for() -> None:
    with traced(settings(None), "millrace-test", "1"):
        assert not tracing.is_on()


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    place = f"file:{tmp_path / 'missing' / 'spans.jsonl'}"
    with (
        pytest.raises(Problem, match=r"MILLRACE_TRACING: cannot write .*no such file"),
        traced(settings(place), "millrace-test", "1"),
    ):
        pass


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(millrace.tracing, "find_spec", missing)
    check(settings(None))
    with pytest.raises(Problem, match="OpenTelemetry is not installed here"):
        check(settings("otlp"))


def test_masters_and_workers_have_the_same_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_TRACING", "otlp")
    monkeypatch.setenv("MILLRACE_TRACING_SHARE", "0.1")
    monkeypatch.setenv("DATABASE_URL", "postgresql://nowhere/x")
    for made in (MasterSettings(), WorkerSettings()):  # type: ignore[call-arg]  # the environment
        assert (made.tracing, made.tracing_share) == ("otlp", 0.1)


def test_a_word_that_means_nothing_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_TRACING", "yes please")
    with pytest.raises(ValueError, match="MILLRACE_TRACING") as refused:
        WorkerSettings()
    said = problems.explain(refused.value)
    assert said.startswith("MILLRACE_TRACING: must be off, otlp, the URL")
