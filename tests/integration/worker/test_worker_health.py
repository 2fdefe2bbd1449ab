"""Probes of a worker: over HTTP on its own event loop, and of a whole process that is drained."""

import asyncio
import contextlib
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bus import rabbitmq
from millrace.chaos import stack
from millrace.chaos.machine import NO_TLS, free_port
from millrace.chaos.stack import until
from queue_schemas import topology
from queue_schemas.codec import encode
from queue_schemas.messages import RESULT, WORKER, Completed, Started
from queue_schemas.registry import Model
from tests.doubles.fleet import Fleet, Mailbox
from tests.doubles.subtasks import a_model, a_subtask
from tests.forking import launch
from tests.integration.cli.command_line import environment, millrace
from worker import health
from worker.providers.diagnosis import UNREACHABLE, failure
from worker.providers.scripted import Scripted
from worker.standing import Standing


def client(port: int) -> httpx2.AsyncClient:
    url = f"http://127.0.0.1:{port}"
    return httpx2.AsyncClient(base_url=url, trust_env=False, verify=NO_TLS, timeout=10)


@contextlib.asynccontextmanager
async def probed(standing: Standing) -> AsyncIterator[httpx2.AsyncClient]:
    sock = health.listen("127.0.0.1", 0)
    async with health.serving(standing, sock), client(sock.getsockname()[1]) as http:
        yield http


async def reasons(http: httpx2.AsyncClient, reason: str | None) -> dict[str, Any]:
    """Wait until it is not ready for this reason; None: until it is ready."""

    async def said() -> dict[str, Any] | None:
        answer = await http.get("/ready")
        body: dict[str, Any] = answer.json()
        assert (answer.status_code == 200) is (body.get("reason") is None)
        return body if body.get("reason") == reason else None

    return await until(said, 30)


class Away(Scripted):
    """An engine that is away until `well` is set."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.well = asyncio.Event()

    async def check(self) -> None:
        if not self.well.is_set():
            raise failure(UNREACHABLE, "start the engine")


async def test_a_worker_is_ready_when_engine_and_broker_are_and_until_it_drains() -> None:
    model = a_model(options={"tokens": 1_000_000, "tokens_per_second": 100})
    provider, standing = Away(model), Standing("worker-1", model)
    async with (
        Fleet(model, check_seconds=0.05, drain_seconds=30) as fleet,
        probed(standing) as http,
    ):
        worker = fleet.start(provider, standing=standing)
        waits = await reasons(http, "engine")
        assert "start the engine" in waits["message"]
        assert (await http.get("/live")).status_code == 200

        provider.well.set()
        assert (await reasons(http, None))["model"] == "mill"
        subtask = a_subtask()
        await fleet.submit(subtask)
        await fleet.started(subtask)
        assert "millrace_worker_running_subtasks{model=\"mill\"} 1.0" in (
            await http.get("/metrics")
        ).text  # fmt: skip

        fleet.stop.set()
        await reasons(http, "draining")
        assert (await http.get("/live")).status_code == 200
        worker.cancel()


async def test_a_worker_whose_broker_is_lost_is_not_ready_and_lives() -> None:
    model = a_model()
    standing = Standing("worker-1", model)
    async with Fleet(model) as fleet, probed(standing) as http:
        fleet.start(standing=standing)
        await reasons(http, None)
        await fleet.buses[0].aclose()
        await reasons(http, "broker")
        assert (await http.get("/live")).status_code == 200


async def test_strange_requests_are_refused_and_the_next_is_answered() -> None:
    async with probed(Standing("worker-1", a_model())) as http:
        assert (await http.post("/live", content=b"x" * 100_000)).status_code == 405
        assert (await http.get("/metrics/../etc")).status_code == 404
        head = await http.head("/metrics")
        assert (head.status_code, head.content) == (200, b"")
        port = http.base_url.port
        assert port is not None
        for raw in (b"\x16\x03\x01\x02", b"GET / HTTP/9.9\r\n\r\n", b"GET /live HTTP/1.1\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(raw)
            await writer.drain()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await reader.read()
        assert (await http.get("/live")).status_code == 200


async def test_a_port_that_is_taken_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port}: .*MILLRACE_HEALTH_PORT"):
            health.listen("127.0.0.1", port)


def started(arguments: list[str], folder: Path, **settings: str) -> stack.Started:
    return launch(["worker", *arguments], environment(**settings), folder / "worker.log", folder)


@pytest.mark.timeout(120)
async def test_a_pod_drains_what_runs_and_leaves_the_rest(
    rabbitmq_url: str, tmp_path: Path
) -> None:
    """As Kubernetes does it: the worker is there before its broker, is probed, gets one SIGTERM."""
    # Long enough for somebody who stands still for a while to see it drain.
    script = {"tokens": 60, "tokens_per_second": 5}
    (tmp_path / "models.yaml").write_text(
        f"models: [{{name: mill, provider: scripted, options: {script}}}]".replace("'", "")
    )
    port = free_port()
    settings = {
        "RABBITMQ_URL": rabbitmq_url,
        "MILLRACE_MODELS": str(tmp_path / "models.yaml"),
        "MILLRACE_HEALTH_PORT": str(port),
    }
    process = started(["--wait", "--model", "mill"], tmp_path, **settings)
    try:
        async with client(port) as http:
            await until(lambda: _answers(http), 60)
            await reasons(http, None)
            await _drained(http, process, rabbitmq_url)
    finally:
        process.kill()
        print((tmp_path / "worker.log").read_text())


async def _answers(http: httpx2.AsyncClient) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return (await http.get("/live")).status_code == 200
    return False


async def _drained(http: httpx2.AsyncClient, process: stack.Started, url: str) -> None:
    results, workers = Mailbox(RESULT, None), Mailbox(WORKER, None)
    queue = topology.subtasks("mill").name
    running, late = a_subtask(), a_subtask()
    async with contextlib.aclosing(await rabbitmq.connect(url, name="test")) as bus:
        await bus.consume(topology.RESULTS, results.take, prefetch=10)
        await bus.consume(topology.WORKERS, workers.take, prefetch=10)
        await bus.publish(queue, *encode(running))
        await workers.wait_for(lambda all_: [m for m in all_ if isinstance(m, Started)], 30)

        process.send_signal(signal.SIGTERM)
        await reasons(http, "draining")
        await bus.publish(queue, *encode(late))
        assert (await http.get("/live")).status_code == 200
        await results.wait_for(lambda all_: all_, 60)
        code = await asyncio.to_thread(process.wait, 30)

        depth = await bus.depth(queue)
    [result] = results.messages
    assert isinstance(result, Completed)
    assert (result.subtask, len(result.text.split())) == (running.subtask, 60)
    assert code == 0
    assert depth is not None
    assert depth.ready == 1, "the late one; what was answered is acknowledged"


def test_a_worker_waits_for_its_broker_when_told_to_and_can_be_stopped_then(
    tmp_path: Path,
) -> None:
    settings = {"RABBITMQ_URL": f"amqp://127.0.0.1:{free_port()}/", "MILLRACE_OFFLINE": "1"}
    process = started(["--wait", "--model", "extractive"], tmp_path, **settings, **_MODELS)
    log = tmp_path / "worker.log"
    log.touch()
    try:
        asyncio.run(until(lambda: _says(log, "worker.no_broker"), 60))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
    assert "Traceback" not in log.read_text()


async def _says(log: Path, word: str) -> bool:
    return word in await asyncio.to_thread(log.read_text)


_MODELS = {"MILLRACE_MODELS": str(Path(__file__).parents[3] / "millrace/models/one-machine.yaml")}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"RABBITMQ_URL": "http://mq"}, "is not a RabbitMQ URL"),
        ({"MILLRACE_HEALTH_PORT": "eighty"}, "MILLRACE_HEALTH_PORT: "),
        ({"MILLRACE_HEALTH_PORT": "65536"}, "MILLRACE_HEALTH_PORT: "),
        ({"MILLRACE_HEALTH_PORT": "TAKEN"}, "MILLRACE_HEALTH_PORT"),
        ({"MILLRACE_HEALTH_PORT": "80", "MILLRACE_HEALTH_HOST": "nowhere.invalid"}, "nowhere"),
        ({"MILLRACE_POD_DELETION_COST": "true", "POD_NAME": "w-1"}, "POD_NAMESPACE"),
        (
            {"MILLRACE_POD_DELETION_COST": "true", "POD_NAME": "../x", "POD_NAMESPACE": "y"},
            "POD_NAME: ",
        ),
    ],
    ids=["no broker", "no number", "too large", "taken", "no host", "no namespace", "no pod"],
)
def test_wrong_settings_are_one_line_and_no_waiting(wrong: dict[str, str], said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        given = {name: port if value == "TAKEN" else value for name, value in wrong.items()}
        settings = {"RABBITMQ_URL": f"amqp://127.0.0.1:{free_port()}/"} | _MODELS | given
        done: subprocess.CompletedProcess[str] = millrace(
            "worker", "--wait", "--model", "extractive", **settings
        )
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_worker_whose_parent_is_gone_ends_although_nobody_tells_it_to(tmp_path: Path) -> None:
    models = tmp_path / "models.yaml"
    models.write_text("models: [{name: mill, provider: scripted}]\n", "utf-8")
    gone = subprocess.Popen(["true"])
    gone.wait()
    ended = millrace(
        *("worker", "--wait", "--model", "mill", "--models", str(models)),
        RABBITMQ_URL=f"amqp://127.0.0.1:{free_port()}/",
        MILLRACE_WORKER_PARENT=str(gone.pid),
    )
    assert ended.returncode == 0, ended.stderr
    assert "worker.orphaned" in ended.stdout + ended.stderr
