"""One trace from a client's own span to its last token, over a real RabbitMQ."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
import httpx2
from opentelemetry.sdk.trace import SpanProcessor
from pydantic import SecretStr
from sqlalchemy import text

from bus import rabbitmq, tracing
from master import app
from master.metrics import registry
from master.running import Running
from master.settings import MasterSettings
from millrace.chaos.machine import NO_TLS
from millrace.chaos.stack import until
from millrace.one_machine import make_key
from queue_schemas import topology
from queue_schemas.registry import Registry
from tests.doubles.traces import Seen, read
from tests.integration.master.gated import Gates
from tests.integration.master.mill import QUEUE_KEY, QUICK, MakeProvider, a_script
from worker import consumer
from worker.providers.registry import make_provider
from worker.settings import WorkerSettings

THEIRS = "0af7651916cd43dd8448eb211c80319c"
CLIENT = {"traceparent": f"00-{THEIRS}-b7ad6b7169203331-01"}
PARTS = "1. What is a mill, in all detail?\n2. What is a weir, in all detail?\n3. What is a race?"


class OpenSpans(SpanProcessor):
    """How many spans have begun and not ended."""

    def __init__(self) -> None:
        self.number = 0

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.number += 1

    def on_end(self, span: Any) -> None:
        self.number -= 1


@dataclass(frozen=True)
class Site:
    """A master on RabbitMQ, whose workers come and go."""

    running: Running
    http: httpx2.AsyncClient
    rabbitmq_url: str
    registry: Registry
    file: Path
    provider: MakeProvider
    open_spans: OpenSpans

    @contextlib.asynccontextmanager
    async def worker(self, name: str) -> AsyncGenerator[None, None]:
        """A worker, which is lost in the end: what it has not acknowledged, others get."""
        model = self.registry.models[0]
        bus = await rabbitmq.connect(self.rabbitmq_url, name=name)
        settings = WorkerSettings(
            name=name, heartbeat_seconds=0.2, drain_seconds=0, queue_key=SecretStr(QUEUE_KEY)
        )
        stop = asyncio.Event()
        engine = self.provider(model)
        work = asyncio.create_task(consumer.run(bus, model, settings, engine, stop))
        try:
            yield
        finally:
            stop.set()
            await work
            await bus.aclose()
            await engine.aclose()

    async def states(self) -> dict[str, int]:
        """How many subtasks are in which state."""
        async with self.running.engine.connect() as connection:
            rows = await connection.execute(
                text("SELECT state, count(*) FROM millrace.subtasks GROUP BY state")
            )
            return {row[0]: row[1] for row in rows}

    async def reach(self, state: str, number: int = 1) -> None:
        """Wait until so many subtasks are in that state."""

        async def there() -> bool:
            return (await self.states()).get(state, 0) >= number

        await until(there, 30)

    async def spans(self) -> list[Seen]:
        """All that was recorded, once every span has ended; nothing more is.

        Some end after the client has its last frame: that of its stream, and those of workers that
        hear of the confirm of a result after somebody else had the result.
        """

        async def all_ended() -> bool:
            return self.open_spans.number == 0

        await until(all_ended, 30)
        recorder: Any = tracing._recorder
        recorder._provider.force_flush(60_000)
        tracing.shut_down()
        return read(self.file)


@contextlib.asynccontextmanager
async def site(
    database_url: str,
    rabbitmq_url: str,
    folder: Path,
    *models: dict[str, Any],
    provider: MakeProvider = make_provider,
    **settings: Any,
) -> AsyncGenerator[Site, None]:
    file = folder / "spans.jsonl"
    registry = Registry.model_validate({"models": list(models)})
    said = {**QUICK, **settings, "DATABASE_URL": SecretStr(database_url)}
    key = await make_key(database_url, "acme", "tests")
    tracing.turn_on(f"file:{file}", "millrace-test", instance="1")
    open_spans, recorder = OpenSpans(), tracing._recorder
    assert recorder is not None
    recorder._provider.add_span_processor(open_spans)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(tracing.shut_down)
        bus = await rabbitmq.connect(rabbitmq_url, name="master")
        stack.push_async_callback(bus.aclose)
        sock = app.listen("127.0.0.1", 0)
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        running = await stack.enter_async_context(
            app.run(MasterSettings(**said), lambda: registry, bus)
        )
        await stack.enter_async_context(app.serving(running, sock))
        http = await stack.enter_async_context(
            httpx2.AsyncClient(
                base_url=url,
                headers={"Authorization": f"Bearer {key}", **CLIENT},
                timeout=60,
                trust_env=False,
                verify=NO_TLS,
            )
        )
        yield Site(running, http, rabbitmq_url, registry, file, provider, open_spans)


def named(spans: list[Seen], name: str) -> list[Seen]:
    return [span for span in spans if span.name == name]


def edges(spans: list[Seen]) -> set[tuple[str, str]]:
    """Names of parents with those of their children."""
    names = {span.id: span.name for span in spans}
    return {(names[span.parent or ""], span.name) for span in spans if span.parent in names}


def traces_of(metric: str) -> set[str]:
    """Those that are named beside a histogram."""
    return {
        sample.exemplar.labels["trace_id"]
        for family in registry.collect()
        for sample in family.samples
        if family.name == metric and sample.exemplar
    }


async def test_a_split_is_one_trace_that_crosses_the_queue_and_comes_back(
    migrated_url: str, rabbitmq_url: str, tmp_path: Path
) -> None:
    secret = "what only the client knows"
    script = a_script(text=secret)
    async with site(migrated_url, rabbitmq_url, tmp_path, script) as here, here.worker("w-1"):
        messages = [{"role": "user", "content": PARTS}]
        asked = {"model": "millrace/split", "stream": True, "messages": messages}
        async with here.http.stream("POST", "/v1/chat/completions", json=asked) as answer:
            request = answer.headers["x-millrace-request-id"]
            frames = [line async for line in answer.aiter_lines()]
        spans = await here.spans()
        for metric in ("request_seconds", "queue_seconds"):
            assert THEIRS in traces_of(f"millrace_{metric}")
    assert frames[-2:] == ["data: [DONE]", ""]
    spans = [span for span in spans if span.trace == THEIRS]
    assert edges(spans) == {
        ("POST /v1/chat/completions", "submit"),
        ("submit", "plan"),
        ("submit", "store"),
        ("submit", "publish"),
        ("publish", "execute"),
        ("execute", "engine call"),
        ("execute", "publish result"),
        ("publish result", "collect"),
        ("POST /v1/chat/completions", "stream"),
    }
    (root,) = [span for span in spans if span.parent == "b7ad6b7169203331"]
    assert root.name == "POST /v1/chat/completions"
    assert root.attributes["http.response.status_code"] == 200
    assert root.says("request") == request
    calls = named(spans, "engine call")
    assert len(calls) == 3
    assert all("first_token" in call.events for call in calls)
    (stream,) = named(spans, "stream")
    assert list(stream.events) == ["first_text"]
    assert stream.says("state") == "completed"
    by_id = {span.id: span for span in spans}
    for collected in named(spans, "collect"):
        sent = by_id[collected.parent or ""]
        executed = by_id[sent.parent or ""]
        assert collected.says("subtask") == executed.says("subtask")
        assert by_id[executed.parent or ""].says("subtask") == executed.says("subtask")
        assert collected.says("counted") is True
    assert not any(span.is_error for span in spans)
    written = here.file.read_text("utf-8")
    assert secret not in written
    assert "weir" not in written


async def test_what_is_lost_handed_out_again_and_tried_again_stays_in_its_trace(
    migrated_url: str, rabbitmq_url: str, tmp_path: Path
) -> None:
    faults = [{"kind": "fail", "attempts": [1], "after_tokens": 40}]
    script = a_script(tokens=60, faults=faults)
    gates = Gates(20)
    # Nothing is forgotten but what the test says, and no execution ends before it lets it.
    settings: dict[str, Any] = {"forgotten_seconds": 600, "lease_seconds": 600, "provider": gates}
    async with site(migrated_url, rabbitmq_url, tmp_path, script, **settings) as here:
        asked = {"model": "mill", "input": "Why?", "background": True}
        answer = await here.http.post("/v1/responses", json=asked)
        assert answer.status_code == 200, answer.text
        await here.reach("queued")
        await lose_messages(rabbitmq_url)
        async with here.running.engine.begin() as connection:
            forgotten = "UPDATE millrace.subtasks SET queued_at = now() - interval '1 hour'"
            await connection.execute(text(forgotten))
        async with here.worker("lost"):
            await here.reach("running")
        gates.open("mill")
        async with here.worker("patient"):
            await here.reach("succeeded")
        spans = await here.spans()
    spans = [span for span in spans if span.trace == THEIRS]
    published = named(spans, "publish")
    (submit,) = named(spans, "submit")
    assert {span.parent for span in published} == {submit.id}
    # What was purged, what the sweep published again, and the attempt after the failure.
    assert [span.says("attempt") for span in published] == [1, 1, 2]
    executed = named(spans, "execute")
    first, second, last = executed
    assert first.parent == second.parent == published[1].id
    assert last.parent == published[2].id
    assert [span.says("redelivered") for span in executed] == [0, 1, 0]
    assert first.says("cancelled") is True
    assert not first.is_error, "it was let go of"
    assert second.is_error
    assert second.attributes["error.type"] == "engine_busy"
    assert not last.is_error


async def lose_messages(rabbitmq_url: str) -> None:
    """Empty the queue of the model, as somebody at the broker might."""
    connection = await aio_pika.connect(rabbitmq_url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.get_queue(topology.subtasks("mill").name)

        async def purged() -> bool:
            return (await queue.purge()).message_count == 1

        await until(purged, 30)
