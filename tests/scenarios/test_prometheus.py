"""A real Prometheus watches a stack: dashboards show it, and alerts fire while it is broken."""

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from millrace import cli
from millrace.chaos.local_rabbitmq import LocalRabbit
from millrace.chaos.machine import free_port
from millrace.chaos.stack import Stack, until
from scripts.dashboards import files
from tests.forking import launch
from tests.prometheus import program
from tests.scenarios.load import MODEL, QUICK, Chat, send
from tests.scenarios.watching import Prometheus, expressions, watched
from tests.unit.monitoring.promql import named

POISONED: dict[str, Any] = MODEL | {
    "options": {
        "text": "{prompt} said",
        "faults": [{"kind": "fail", "contains": "poison", "error_kind": "poison"}],
    }
}
HASTY = QUICK | {"MILLRACE_MAX_ATTEMPTS": "1"}
SLOW_TO_FORGET = "MillraceLoopFailing"
"""It looks at the last five minutes."""
OF_NOTHING = {
    "learning: Good, of the last day",
    "learning: From the cache, of the last day",
    "reliability: Time to stop",
    "reliability: Alerts",
}
"""Nobody judges here or stops an answer, no question may be answered from the cache, and in the end
all may be well again."""


@pytest.fixture
def stack(tmp_path: Path, migrated_url: str, local_rabbitmq: LocalRabbit) -> Iterator[Stack]:
    program("prometheus")
    vhost = f"test-{secrets.token_hex(6)}"
    local_rabbitmq.add_vhost(vhost)
    port = str(free_port())
    settings = HASTY | {"MILLRACE_HEALTH_PORT": port, "MILLRACE_HEALTH_HOST": "127.0.0.1"}
    settings["MILLRACE_TRACING"] = f"file:{tmp_path / 'traces.jsonl'}"
    url = local_rabbitmq.url(vhost)
    models = {"models": [POISONED]}
    stack = Stack(tmp_path, migrated_url, url, models, settings, launch=launch)
    yield stack
    stack.close()
    print(stack.logs())
    local_rabbitmq.delete_vhost(vhost)


def targets(stack: Stack) -> dict[str, list[str]]:
    worker = f"127.0.0.1:{stack.settings['MILLRACE_HEALTH_PORT']}"
    return {
        "millrace-master": [httpx2.URL(master.url).netloc.decode() for master in stack.masters],
        "millrace-worker": [worker],
    }


@pytest.mark.timeout(240)  # a broker that is killed and boots, beside other tests
async def test_dashboards_show_a_stack_and_alerts_fire_while_it_is_broken(
    stack: Stack, tmp_path: Path, local_rabbitmq: LocalRabbit
) -> None:
    await stack.start(mill=1)
    with watched(tmp_path / "prometheus", targets(stack)) as prometheus:
        await _all_is_quiet(prometheus, stack)
        await _a_lost_worker_is_told(prometheus, stack)
        await _a_dead_subtask_is_told(prometheus, stack)
        await _a_lost_broker_is_told(prometheus, local_rabbitmq)
        await _dashboards_show_it(prometheus, stack)
        await prometheus.until_no_other_fires(SLOW_TO_FORGET)


async def _all_is_quiet(prometheus: Prometheus, stack: Stack) -> None:
    async def scraped() -> bool:
        return len(await prometheus.query("up == 1")) == 2

    await prometheus.ready()
    await until(scraped, 60)
    await asyncio.gather(*(send(stack, Chat(f"flour {n}", streams=n % 2 == 0)) for n in range(6)))

    async def counted() -> bool:
        ended = await prometheus.query("sum(millrace_request_endings_total)")
        return [each["value"][1] for each in ended] == ["6"]

    await until(counted, 60)

    async def told() -> set[str]:
        return await prometheus.traces("millrace_first_text_seconds_bucket")

    traces = await until(told, 60)
    file = stack.folder / "traces.jsonl"

    async def written() -> bool:
        text = file.read_text("utf-8") if file.exists() else ""
        return all(trace in text for trace in traces)

    await until(written, 60)  # spans are written together, seconds later
    await prometheus.until_no_other_fires()


async def _a_lost_worker_is_told(prometheus: Prometheus, stack: Stack) -> None:
    [worker] = [process for process in stack.processes if not process.url]
    worker.kill()
    stack.processes.remove(worker)
    chat = Chat("flour without a mill", streams=True)
    asked = asyncio.create_task(send(stack, chat))
    told = await prometheus.until_fires("MillraceNoWorker")
    assert told["labels"]["model"] == "mill"
    assert told["annotations"]["summary"] == "mill has work and no worker."
    await prometheus.until_fires("MillraceTargetDown")
    stack.start_worker("mill")
    await asked
    assert chat.text == "flour without a mill said"
    await prometheus.until_quiet("MillraceNoWorker", "MillraceTargetDown")


async def _a_dead_subtask_is_told(prometheus: Prometheus, stack: Stack) -> None:
    poison = Chat("poison", streams=False)
    await send(stack, poison)
    assert poison.status >= 500
    told = await prometheus.until_fires("MillraceDeadLetters")
    assert told["annotations"]["summary"] == "1 subtasks of mill were given up."
    [dead] = (await stack.get("/v1/requests"))["data"][:1]
    command = ["dead", "drop", dead["id"], "--database-url", stack.database_url]
    assert await asyncio.to_thread(cli.run, command) == 0
    await prometheus.until_quiet("MillraceDeadLetters")


async def _a_lost_broker_is_told(prometheus: Prometheus, broker: LocalRabbit) -> None:
    await asyncio.to_thread(broker.kill)
    try:
        told = await prometheus.until_fires("MillraceBrokerUnreachable")
        assert told["labels"]["severity"] == "critical"
        [alerts] = [expr for title, expr in expressions("reliability") if title == "Alerts"]

        async def drawn() -> bool:
            return bool(await prometheus.query(alerts))

        await until(drawn, 60)
    finally:
        await asyncio.to_thread(broker.start)
    await prometheus.until_quiet("MillraceBrokerUnreachable")


async def _dashboards_show_it(prometheus: Prometheus, stack: Stack) -> None:
    """Every query whose metrics this stack has gives something, of this minute or of before."""

    async def some_more() -> None:  # rates forget what was half a minute ago
        for number in range(4):
            await send(stack, Chat(f"more flour {number}", streams=number % 2 == 0))

    await some_more()
    there = await prometheus.names()
    asked = [
        (f"{name}: {title}", expr)
        for name in files.ALL
        for title, expr in expressions(name)
        if named(expr).metrics <= there
    ]
    assert len(asked) > 80

    async def empty() -> list[str]:
        found = [title for title, expr in asked if not await prometheus.query(expr)]
        return [title for title in found if title not in OF_NOTHING]

    async def none_is_empty() -> bool:
        await some_more()
        return not await empty()

    try:
        await until(none_is_empty, 60)
    except AssertionError:
        raise AssertionError(f"these show nothing: {await empty()}") from None
