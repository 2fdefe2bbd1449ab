"""What is done again is accepted again: in metrics, in logs, and as a trace of its own."""

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bus import open_telemetry, tracing
from master.metrics import registry
from millrace.chaos.stack import until
from millrace.logs import said_of_all
from tests.doubles.traces import read
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import Mill, a_script

FAULT = {"kind": "fail", "message": "no room"}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """All spans are written, however long this machine stands still."""
    monkeypatch.setattr(open_telemetry, "_SHUT_DOWN_SECONDS", 60)


def accepted(strategy: str) -> float:
    return registry.get_sample_value("millrace_requests_total", {"strategy": strategy}) or 0.0


async def done_again(mill: Mill, request: str) -> str:
    """The request that does a failed one again, once that has ended too."""
    answer = await mill.http.post(f"/v1/requests/{request}/retry")
    assert answer.status_code == 200, answer.text
    again = str(answer.json()["id"])
    await mill.until_state(again, "failed", seconds=30)
    return again


async def test_it_is_counted_logged_and_traced_as_what_was_accepted(
    make_mill: MakeMill, tmp_path: Path
) -> None:
    mill = await make_mill(a_script(faults=[FAULT]), max_attempts=2)
    request = (await mill.ask()).headers["x-millrace-request-id"]
    strategy = (await mill.record(request))["strategy"]
    before = accepted(strategy)
    tracing.turn_on(f"file:{tmp_path / 'spans'}", "millrace-test", instance="1")
    try:
        with capture_logs(processors=said_of_all("test")) as lines:
            again = await done_again(mill, request)
            assert await done_again(mill, request) == again
        assert accepted(strategy) == before + 1, "the second time makes nothing new"
    finally:
        tracing.shut_down()
    [line] = of(lines, "request.accepted", again)
    assert (line["redriven_from"], line["strategy"], line["waits"]) == (request, strategy, True)
    spans = [span for span in read(tmp_path / "spans") if span.says("request") == again]
    [submit] = [span for span in spans if span.name == "submit"]
    assert submit.says("redriven_from") == request
    published = [span for span in spans if span.name == "publish"]
    assert [span.says("attempt") for span in published] == [1, 2]
    assert {span.parent for span in published} == {submit.id}
    assert line["trace"] == submit.trace


async def test_a_cancelled_request_ends_in_its_own_trace(
    make_mill: MakeMill, tmp_path: Path
) -> None:
    mill = await make_mill(a_script(tokens=2000, tokens_per_second=20))
    tracing.turn_on(f"file:{tmp_path / 'spans'}", "millrace-test", instance="1")
    try:
        with capture_logs(processors=said_of_all("test")) as lines:
            async with mill.stream() as response:
                request = response.headers["x-millrace-request-id"]
                assert (await mill.http.delete(f"/v1/requests/{request}")).status_code == 200

                async def ended() -> bool:
                    return bool(of(lines, "request.ended", request))

                await until(ended, 30)
    finally:
        tracing.shut_down()
    [own] = [s.trace for s in read(tmp_path / "spans") if s.name == "submit"]
    for event in ("request.ended", "request.cancelled"):
        [line] = of(lines, event, request)
        assert line["trace"] == own
    named = {
        sample.exemplar.labels["trace_id"]
        for family in registry.collect()
        for sample in family.samples
        if family.name == "millrace_request_seconds" and sample.exemplar
    }
    assert own in named


def of(lines: list[Any], event: str, request: str | None = None) -> list[Any]:
    return [
        line for line in lines if line["event"] == event and request in (None, line.get("request"))
    ]
