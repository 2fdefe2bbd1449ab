"""The facade of tracing: nothing while it is off, W3C's rules while it is on."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from pydantic import ValidationError

from bus import tracing
from bus.protocol import Delivery
from bus.trace_settings import TraceSettings
from bus.tracing import Kind
from tests.doubles.traces import Seen, read

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A file that is written while the test runs; `spans` ends that."""
    path = tmp_path / "spans.jsonl"
    tracing.turn_on(f"file:{path}", "millrace-test", instance="test-1")
    yield path
    tracing.shut_down()


def spans(file: Path) -> dict[str, Seen]:
    """Everything recorded, by name."""
    tracing.shut_down()
    return {span.name: span for span in read(file)}


def delivery(**headers: object) -> Delivery:
    """All of a delivery that tracing looks at."""
    return cast(Delivery, SimpleNamespace(headers=headers))


def test_off_nothing_is_imported_and_nothing_happens() -> None:
    code = """
import sys
from bus import tracing
import worker.consumer, worker.spans
with tracing.span("execute", model="m") as span:
    span.note(a=1); span.event("first_token"); span.fail("x"); span.rename("y")
assert tracing.inject({}) == {} and tracing.traceparent() is None
assert tracing.current_trace_id() is None and tracing.now() == 0
tracing.turn_on(None, "millrace-test", instance="1")
assert not tracing.is_on()
loaded = [name for name in sys.modules if name.startswith(("opentelemetry", "google", "requests"))]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_off_spans_are_one_and_the_same_object() -> None:
    assert tracing.span("a", model="x") is tracing.span("b")


def test_a_span_within_a_span_is_its_child(file: Path) -> None:
    with tracing.span("outer", Kind.SERVER), tracing.span("inner", model="llama", step="part-1"):
        assert len(tracing.current_trace_id() or "") == 32
    found = spans(file)
    assert found["inner"].parent == found["outer"].id
    assert found["inner"].trace == found["outer"].trace
    assert '"kind":2' in file.read_text("utf-8"), "SERVER, as a number"
    named = {"gen_ai.request.model": "llama", "millrace.step": "part-1"}
    assert found["inner"].attributes == named


def test_what_was_sent_with_a_message_is_gone_on_with(file: Path) -> None:
    headers = {"x-millrace-signature": "s"}
    with tracing.span("publish"):
        tracing.inject(headers)
    assert headers["x-millrace-signature"] == "s"
    sent = tracing.sent_with(delivery(**headers))
    with tracing.span("execute", Kind.CONSUMER, parent=sent):
        pass
    assert tracing.trace_id_of(delivery(**headers)) == headers["traceparent"].split("-")[1]
    found = spans(file)
    assert found["execute"].parent == found["publish"].id


def test_a_client_s_trace_is_continued(file: Path) -> None:
    with tracing.span("POST", parent=CLIENT):
        assert tracing.current_trace_id() == "0af7651916cd43dd8448eb211c80319c"
    assert spans(file)["POST"].parent == "b7ad6b7169203331"


@pytest.mark.parametrize(
    "given",
    [
        "",
        "nonsense",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "\u00ff" * 5000,
        CLIENT + "\r\nx-evil: 1",
    ],
    ids=lambda given: ascii(given[:24]),
)
def test_a_malformed_traceparent_begins_a_trace(file: Path, given: str) -> None:
    with tracing.span("outer"), tracing.span("POST", parent=given):
        pass
    found = spans(file)
    assert found["POST"].parent is None
    assert found["POST"].trace != found["outer"].trace


@pytest.mark.parametrize("value", [7, None, b"00-x", ["a"]], ids=repr)
def test_a_header_that_is_no_text_is_no_traceparent(file: Path, value: object) -> None:
    assert tracing.sent_with(delivery(traceparent=value)) == ""
    assert tracing.trace_id_of(delivery(traceparent=value)) is None


def test_an_error_is_an_error_without_its_words_and_a_cancellation_is_none(file: Path) -> None:
    with pytest.raises(ValueError, match="a secret"), tracing.span("failed"):
        raise ValueError("a secret prompt")
    with pytest.raises(asyncio.CancelledError), tracing.span("cancelled"):
        raise asyncio.CancelledError
    found = spans(file)
    assert found["failed"].is_error
    assert found["failed"].attributes == {"error.type": "ValueError"}
    assert not found["cancelled"].is_error
    assert found["cancelled"].attributes == {"millrace.cancelled": True}
    assert "secret" not in file.read_text("utf-8")


def test_a_span_that_is_over_is_recorded_from_its_beginning(file: Path) -> None:
    began = tracing.now()
    tracing.record("collect", Kind.CONSUMER, parent=CLIENT, began=began, counted=True)
    found = spans(file)["collect"]
    assert found.begin == began <= found.end
    assert found.attributes == {"millrace.counted": True}


def test_what_happens_within_a_span_is_an_event_of_it(file: Path) -> None:
    with tracing.span("engine call") as call:
        call.event("first_token")
    assert spans(file)["engine call"].events == ["first_token"]


def test_a_share_of_nothing_records_only_what_a_client_records(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    tracing.turn_on(f"file:{path}", "millrace-test", instance="1", share=0.0)
    headers: dict[str, str] = {}
    with tracing.span("ours"):
        assert tracing.current_trace_id() is None
        tracing.inject(headers)
    assert int(headers["traceparent"][-2:], 16) & 1 == 0, "workers decide as we did"
    with tracing.span("execute", parent=headers["traceparent"]) as span:
        span.event("first_token")
        with tracing.span("engine call"):
            assert tracing.inject({}) == headers, "nor does anybody below us"
    with tracing.span("theirs", parent=CLIENT):
        pass
    with tracing.span("not theirs", parent=CLIENT[:-2] + "00"):
        pass
    assert list(spans(path)) == ["theirs"]


def test_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    code = f"""
from bus import tracing
tracing.turn_on("file:{path}", "millrace-test", instance="1")
for number in range(600):
    with tracing.span("x" * 100, number=number):
        pass
tracing.shut_down()
"""
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert len(read(path)) == 1200
    assert path.stat().st_mode & 0o077 == 0


def test_an_endpoint_that_is_away_is_mentioned_once_and_holds_nobody_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for _ in range(3):  # we may stand still meanwhile
        tracing.turn_on("http://127.0.0.1:9", "millrace-test", instance="1")
        for name in ("first", "second"):
            with tracing.span(name):
                pass
        began = time.monotonic()
        tracing.shut_down()
        took = time.monotonic() - began
        said = capsys.readouterr()
        assert (said.out + said.err).count("tracing.not_sent") == 1
        if took < 10:
            break
    assert took < 10, "it would try for ten seconds and longer"


@pytest.mark.parametrize("setting", ["off", "", " OFF ", "none", "0"], ids=ascii)
def test_words_for_off(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_TRACING", setting)
    assert TraceSettings().tracing is None


@pytest.mark.parametrize(
    "setting", ["otlp", "http://tempo:4318", "https://x/v1/traces", "file:spans.jsonl"]
)
def test_places_for_spans(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_TRACING", setting)
    assert TraceSettings().tracing == setting


@pytest.mark.parametrize(
    "setting", ["on", "file:", "file:/", "ftp://x", "http://", "http://[", "grpc", "jaeger:4317"]
)
def test_other_settings_are_refused_with_what_is_possible(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_TRACING", setting)
    with pytest.raises(ValidationError, match="must be off, otlp, the URL of an OTLP endpoint"):
        TraceSettings()


@pytest.mark.parametrize("share", ["-0.1", "1.1", "nan", "half"])
def test_a_share_is_between_nothing_and_all(share: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_TRACING_SHARE", share)
    with pytest.raises(ValidationError):
        TraceSettings()
