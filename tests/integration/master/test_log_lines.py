"""Log lines: each names its request, and none has a word of what was asked or answered."""

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from millrace.chaos.stack import until
from millrace.logs import said_of_all
from queue_schemas.messages import ErrorKind, SubtaskRequest
from queue_schemas.registry import Model
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import Mill, a_script
from worker.providers.protocol import Delta, Finish, Provider, ProviderError
from worker.providers.registry import make_provider

SECRET = "a wheel that nobody may know of"
SPLIT = f"1. What is {SECRET}?\n2. How does {SECRET} turn in the water of a mill?"


class Talkative:
    """An engine that repeats the prompt in its errors, and has a bug that does so too."""

    async def complete(self, subtask: SubtaskRequest) -> AsyncGenerator[Delta | Finish]:
        said = str(subtask.messages[-1]["content"])
        yield Delta(said[:5])
        if "bug" in said:
            raise ValueError(said)
        raise ProviderError(ErrorKind.PERMANENT, "bad_request", f"I do not like {said!r}")

    async def check(self) -> None:
        """Nothing can be missing."""

    async def aclose(self) -> None:
        """Nothing to close."""


def provider(model: Model) -> Provider:
    return Talkative() if model.name == "talkative" else make_provider(model)


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with capture_logs(processors=said_of_all("test")) as captured:
        yield captured


@pytest.fixture
def library_lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("WARNING")
    return caplog


async def made(make_mill: MakeMill) -> Mill:
    entries = [a_script(name, text="{prompt} " + SECRET) for name in ("mill", "other")]
    return await make_mill(*entries, a_script("talkative"), provider=provider)


async def upload(mill: Mill, name: str, content: bytes) -> dict[str, Any]:
    """A document that has ended."""
    sent = await mill.http.post(
        "/v1/documents", files=[("files", (name, content))], data={"strategy": "sparse"}
    )
    identity = sent.json()["data"][0]["id"]

    async def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = (await mill.http.get(f"/v1/documents/{identity}")).json()
        return found if found["state"] in {"ready", "failed"} else None

    return await until(ended, 30)


async def do_all_there_is(mill: Mill) -> None:
    answered = await mill.streamed(SPLIT, model="millrace/split")
    assert SECRET in answered.text
    about = {"request": answered.request, "rating": {"thumb": "down"}, "comment": SECRET}
    await mill.http.post("/v1/feedback", json=about)
    for question in (SECRET, f"{SECRET} and a bug"):
        assert (await mill.ask(question, model="talkative")).is_error
    for body in (f'{{"model": "mill", "messages": "{SECRET}"', f'{{"messages": "{SECRET}"}}'):
        headers = {"content-type": "application/json"}
        refused = await mill.http.post("/v1/chat/completions", content=body, headers=headers)
        assert refused.status_code == 400
    assert (await mill.ask(SECRET, model=SECRET)).status_code == 404
    assert (await upload(mill, "a.md", SECRET.encode()))["state"] == "ready"
    assert (await upload(mill, "b.pdf", b"%PDF-1.7 " + SECRET.encode()))["state"] == "failed"
    found = await mill.http.post("/v1/search", json={"query": SECRET})
    assert found.status_code == 200, found.text


async def test_no_line_has_a_word_of_what_was_asked_or_answered(
    make_mill: MakeMill, lines: list[Any], library_lines: pytest.LogCaptureFixture
) -> None:
    await do_all_there_is(await made(make_mill))
    events = {line["event"] for line in lines}
    assert {"request.accepted", "request.ended", "subtask.published"} <= events
    assert {"execute.started", "execute.ended", "execute.failed", "execute.bug"} <= events
    assert {"collect.applied", "subtask.failed"} <= events
    assert [line for line in lines if SECRET in repr(line)] == []
    assert SECRET not in library_lines.text


async def test_prompts_and_answers_are_logged_where_that_is_wanted(
    make_mill: MakeMill, lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_LOG_PROMPTS", "true")
    mill = await made(make_mill)
    await mill.ask(f"What is {SECRET}?" + 4000 * "x")
    [prompt] = [line for line in lines if line["event"] == "execute.prompt"]
    [answer] = [line for line in lines if line["event"] == "execute.answer"]
    assert SECRET in prompt["prompt"]
    assert len(prompt["prompt"]) == len(answer["answer"]) == 4000
    assert prompt["characters"] > 4000
    assert answer["level"] == "info"


async def test_lines_of_one_request_name_it_and_its_subtask(
    make_mill: MakeMill, lines: list[Any]
) -> None:
    broken = a_script("broken", faults=[{"kind": "fail", "attempts": [1]}])
    mill = await make_mill(broken)
    answer = await mill.ask(model="broken")
    request = answer.headers["x-millrace-request-id"]
    [subtask] = (await mill.record(request))["subtasks"]
    own = {line["event"]: line for line in lines if line.get("request") == request}
    assert own["request.accepted"]["request_id"] == answer.headers["x-request-id"]
    assert own["request.accepted"]["subtasks"] == 1
    for event in ("subtask.published", "execute.started", "execute.ended", "collect.applied"):
        assert own[event]["subtask"] == subtask["id"], event
    assert (own["execute.failed"]["attempt"], own["execute.ended"]["attempt"]) == (1, 2)
    assert "request_id" not in own["execute.started"], "it would be a worker of another process"
    assert own["execute.started"]["worker"] == own["execute.ended"]["worker"] == "broken-1"
    assert own["execute.ended"]["execution"] == own["execute.started"]["execution"]
    assert own["subtask.retried"]["code"] == "engine_busy"
    assert (own["request.ended"]["state"], own["request.ended"]["level"]) == ("completed", "info")
    level = {event: line["level"] for event, line in own.items()}
    assert [event for event in level if level[event] == "info"] == [
        "request.accepted",
        "execute.failed",
        "subtask.retried",
        "request.ended",
    ]
