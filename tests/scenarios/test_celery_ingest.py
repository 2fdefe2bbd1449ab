"""A Celery worker is killed in the middle of a large ingest; another one goes on."""

import contextlib
import json
import os
import re
import secrets
import signal
from collections.abc import Iterator
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bus import rabbitmq
from bus.protocol import Delivery
from millrace.chaos.machine import NO_TLS, free_port
from millrace.chaos.stack import Process, Stack, until
from queue_schemas import topology
from scripts import metrics_page
from tests import servers
from tests.integration.cli.command_line import millrace
from tests.integration.db.rated import answered, human
from tests.scenarios.conftest import MakeStack

DOCUMENTS = 200
IN_ONE_REQUEST = 100
SIZE = 5
MODEL = {"name": "mill", "provider": "scripted", "options": {"text": "The mill turns."}}
FORM = {
    "collection": "letters",
    "strategy": "sparse",
    "chunking": f'{{"method": "words", "size": {SIZE}, "overlap": 0}}',
}


def words(number: int) -> list[str]:
    """Some texts are longer than others; all are different, and have words in common."""
    return [f"letter{number}", *(f"word{n}" for n in range(number % 17)), "end"]


EXPECTED = {
    (f"{number}.txt", position, " ".join(words(number)[position * SIZE : (position + 1) * SIZE]))
    for number in range(DOCUMENTS)
    for position in range(-(-len(words(number)) // SIZE))
}


@pytest.fixture
def celery_url(rabbitmq: servers.Rabbit) -> Iterator[str]:
    """A virtual host for Celery alone."""
    vhost = f"celery-{secrets.token_hex(6)}"
    rabbitmq.add_vhost(vhost)
    yield rabbitmq.url(vhost)
    rabbitmq.delete_vhost(vhost)


QUICK = {
    "MILLRACE_INGEST_LEASE_SECONDS": "10",
    "MILLRACE_INGEST_SWEEP_SECONDS": "2",
    "MILLRACE_LEARNING_SECONDS": "2",
}


async def counts(engine: AsyncEngine) -> dict[str, int]:
    query = "SELECT state, count(*) FROM millrace.documents GROUP BY state"
    async with engine.connect() as connection:
        return {row.state: row.count for row in await connection.execute(text(query))}


async def send(stack: Stack, count: int) -> None:
    async with stack.http() as http:
        for first in range(0, count, IN_ONE_REQUEST):
            files = [
                ("files", (f"{number}.txt", " ".join(words(number)).encode()))
                for number in range(first, min(first + IN_ONE_REQUEST, count))
            ]
            answer = await http.post("/v1/documents", data=FORM, files=files)
            assert answer.status_code == 202, answer.text


async def scraped(port: str) -> str:
    """What a Celery worker counts, once it has counted the three documents and a sweep."""
    url = f"http://127.0.0.1:{port}/metrics"
    async with httpx2.AsyncClient(trust_env=False, verify=NO_TLS, timeout=60) as http:
        strange = await http.get(url, headers={"Accept": "application/openmetrics-text;version=x"})
        assert strange.status_code == 200
        assert (await http.get(f"{url}/../secret")).status_code == 404
        text: str = (await http.get(url)).text
    whole = 'millrace_ingests_total{outcome="ready"} 3.0', 'task="sweep"'
    # A sweep publishes again what was published and is not begun: more than one task for it.
    tasks = r'(?m)^millrace_celery_tasks_total\{outcome="succeeded",task="ingest"\} (\S+)'
    done = sum(map(float, re.findall(tasks, text)))
    return text if done >= 3 and all(part in text for part in whole) else ""


def kill(worker: Process) -> None:
    """SIGKILL to all of its processes."""
    os.killpg(worker.popen.pid, signal.SIGKILL)
    worker.popen.wait(60)
    worker.forget()


@pytest.mark.timeout(240)
async def test_an_ingest_survives_the_death_of_its_celery_worker(
    make_stack: MakeStack, engine: AsyncEngine, celery_url: str
) -> None:
    stack = make_stack(MODEL, MILLRACE_CELERY_BROKER_URL=celery_url, **QUICK)
    await stack.start()
    worker = stack.start_celery("--concurrency", "2", "--beat")
    await send(stack, DOCUMENTS)

    async def in_the_middle() -> bool:
        found = await counts(engine)
        return found.get("ready", 0) >= DOCUMENTS // 10 and found.get("running", 0) > 0

    await until(in_the_middle, 90)
    kill(worker)
    left = await counts(engine)
    assert left["ready"] < DOCUMENTS, "it was not in the middle"

    stack.start_celery("--concurrency", "2", "--beat")

    async def all_ready() -> bool:
        found = await counts(engine)
        assert "failed" not in found
        return found == {"ready": DOCUMENTS}

    await until(all_ready, 150)
    async with engine.connect() as connection:
        stored = await connection.execute(
            text(
                "SELECT d.name, c.position, c.text FROM millrace.chunks c "
                "JOIN millrace.documents d ON d.id = c.document_id"
            )
        )
        chunks = [tuple(row) for row in stored]
        leftover = await connection.scalar(text("SELECT count(*) FROM millrace.drafts"))
        counted = await connection.scalar(text("SELECT chunk_count FROM millrace.collections"))
    assert len(chunks) == len(set(chunks)), "a chunk is there twice"
    assert set(chunks) == EXPECTED
    assert leftover == 0
    assert counted == len(EXPECTED)


async def test_the_clock_finds_what_could_not_be_published_and_what_people_said(
    make_stack: MakeStack, engine: AsyncEngine, tenant: UUID, celery_url: str
) -> None:
    nobody = f"amqp://guest:guest@127.0.0.1:{free_port()}/celery"
    port = str(free_port())
    settings = {"MILLRACE_CELERY_BROKER_URL": nobody, "MILLRACE_METRICS_PORT": port}
    # Nobody dies here, and each document is counted once only if no lease of it ends.
    stack = make_stack(MODEL, **QUICK | settings | {"MILLRACE_INGEST_LEASE_SECONDS": "60"})
    await stack.start()
    await send(stack, 3)  # answered with 202, whatever the broker does
    assert await counts(engine) == {"waiting": 3}
    for number in range(5):
        await answered(engine, tenant, human(f"user-{number}", 0.0, reason="too_verbose"))
    told: list[bytes] = []

    async def note(delivery: Delivery) -> None:
        told.append(delivery.body)
        await delivery.ack()

    async def all_ready() -> bool:
        return await counts(engine) == {"ready": 3} and bool(told)

    async with contextlib.aclosing(await rabbitmq.connect(stack.rabbitmq_url, name="test")) as bus:
        await bus.watch(topology.watcher("test"), "rule.*", note)
        alive = stack.folder / "celery.alive"
        alive.write_text("of an earlier life")
        told_alive = ("--alive-file", str(alive))
        worker = stack.start_celery("--beat", "--broker-url", celery_url, *told_alive)
        await until(all_ready, 60)

    async def made_again() -> bool:
        return alive.exists() and alive.read_text() == ""

    await until(made_again, 60)
    [proposed] = map(json.loads, told)
    assert (proposed["type"], proposed["tenant"]) == ("rule.proposed", str(tenant))
    assert proposed["detail"]["name"] == "learned-too-long-auto"

    async def logged() -> bool:
        return "ingest.unpublished" in stack.masters[0].text()

    await until(logged, 60)
    found = await until(lambda: scraped(port), 60)
    assert 'millrace_ingest_stage_seconds_count{stage="parse"} 3.0' in found
    named = set(re.findall(r"(?m)^# TYPE (\S+)", found))
    assert named == {row.name for row in metrics_page.rows()["celery"]}, "as docs/metrics.md says"
    taken = millrace(
        "celery",
        "--broker-url",
        celery_url,
        DATABASE_URL=stack.database_url,
        MILLRACE_MODELS=str(stack.folder / "models.yaml"),
        MILLRACE_METRICS_PORT=port,
    )
    assert taken.returncode == 1
    assert f"MILLRACE_METRICS_PORT: cannot listen on 127.0.0.1:{port}" in taken.stderr
    worker.terminate()
    assert worker.popen.wait(60) == 0
