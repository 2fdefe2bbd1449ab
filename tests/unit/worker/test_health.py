"""What a worker answers to probes and to Prometheus, by how it stands."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest

from queue_schemas.messages import Completed, ErrorKind, Failed, Usage
from tests.doubles.subtasks import a_model
from worker import health, metrics
from worker.standing import Obstacle, Standing


class Consuming:
    """A consumer whose connection is there or not."""

    def __init__(self, *, active: bool = True) -> None:
        self.active = active

    async def cancel(self) -> None:
        self.active = False


def standing(**fields: Any) -> Standing:
    return Standing("worker-1", a_model("scripted", slots=2), **fields)


def asked(path: str, of: Standing) -> tuple[int, Any]:
    status, _, body = health.answer(path, of, metrics.make_registry(of))
    return status, json.loads(body)


def outcome(of: type[Completed | Failed], **fields: Any) -> Completed | Failed:
    ids = {"request": uuid4(), "subtask": uuid4(), "execution": uuid4()}
    common = {"attempt": 1, "delivery": 0, "worker": "worker-1"}
    return of(**{**ids, **common, **fields})


def test_before_its_engine_was_looked_at_a_worker_lives_and_is_not_ready() -> None:
    new = standing()
    assert asked("/live", new)[0] == 200
    status, said = asked("/ready", new)
    assert (status, said["status"], said["reason"]) == (503, "not_ready", "starting")


def test_with_engine_and_consumer_it_is_ready() -> None:
    ready = standing()
    ready.consumes(Consuming())
    assert asked("/ready", ready) == (
        200,
        {"status": "ready", "worker": "worker-1", "model": "mill"},
    )


def test_an_engine_that_is_not_ready_is_named_with_the_remedy() -> None:
    waiting = standing()
    waiting.waits_for(Obstacle.ENGINE, "engine_unreachable: start it with `ollama serve`")
    status, said = asked("/ready", waiting)
    assert (status, said["reason"]) == (503, "engine")
    assert "ollama serve" in said["message"]


def test_a_lost_connection_is_not_ready_and_no_reason_to_restart() -> None:
    lost = standing()
    consumer = Consuming()
    lost.consumes(consumer)
    consumer.active = False
    assert asked("/ready", lost)[1]["reason"] == "broker"
    assert asked("/live", lost)[0] == 200


def test_draining_is_for_ever() -> None:
    draining = standing()
    draining.waits_for(Obstacle.DRAINING, "it finishes what it has")
    draining.waits_for(Obstacle.ENGINE, "late news")
    draining.consumes(Consuming())
    assert asked("/ready", draining)[1]["reason"] == "draining"
    assert asked("/live", draining)[0] == 200


async def test_a_worker_without_heartbeats_is_to_be_restarted() -> None:
    async def bug() -> None:
        raise RuntimeError

    heart = asyncio.create_task(bug())
    dead = standing(heart=heart)
    assert asked("/live", dead)[0] == 200
    await asyncio.wait({heart})
    assert heart.exception() is not None
    assert asked("/live", dead)[0] == 503
    dead.waits_for(Obstacle.DRAINING, "it finishes what it has")
    assert asked("/live", dead)[0] == 200, "what runs is not to be cut off"


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../live", "/LIVE", "/ready\x00", "/%72eady"])
def test_other_paths_are_not_found(path: str) -> None:
    assert asked(path, standing())[0] == 404


def test_metrics_count_what_was_done() -> None:
    worker = standing()
    worker.consumes(Consuming())
    usage = Usage(prompt_tokens=7, completion_tokens=3, engine_seconds=1.5)
    first, second = uuid4(), uuid4()
    for execution in (first, second):
        worker.began(execution)
    worker.count(outcome(Completed, usage=usage, text="x", finish_reason="stop"))
    worker.ended(first)
    for code in ("engine_busy", "cancelled"):
        failed = {"kind": ErrorKind.TRANSIENT, "code": code, "message": code, "usage": usage}
        worker.count(outcome(Failed, **failed))
    registry = metrics.make_registry(worker)
    labels = {"model": "mill"}
    for name, expected in (
        ("millrace_worker_ready", 1),
        ("millrace_worker_running_subtasks", 1),
        ("millrace_worker_subtask_slots", 2),
        ("millrace_worker_engine_seconds_total", 4.5),
    ):
        assert registry.get_sample_value(name, labels) == expected
    executions = "millrace_worker_executions_total"
    for name in ("completed", "failed", "cancelled"):
        assert registry.get_sample_value(executions, {**labels, "outcome": name}) == 1
    tokens = "millrace_worker_tokens_total"
    assert registry.get_sample_value(tokens, {**labels, "kind": "prompt"}) == 21
    status, media_type, body = health.answer("/metrics", worker, registry)
    assert (status, media_type) == (200, metrics.MEDIA_TYPE)
    assert b'millrace_worker_build_info{model="mill",provider="scripted",version="' in body


def test_what_was_never_counted_is_0_and_not_missing() -> None:
    body = metrics.render(metrics.make_registry(standing()))[0].decode()
    assert 'millrace_worker_executions_total{model="mill",outcome="failed"} 0.0' in body
    assert 'millrace_worker_ready{model="mill"} 0.0' in body


def test_how_fast_its_engine_writes_is_told() -> None:
    worker = standing()
    for gap in (0.0, 0.001, 0.02, 1e9):
        worker.pace.inter_token.note(gap)
    usage = Usage(completion_tokens=11, engine_seconds=1.5, first_token_seconds=1.0)
    worker.count(outcome(Completed, usage=usage, text="x", finish_reason="stop"))
    poison = {"kind": ErrorKind.POISON, "code": "worker_lost", "message": "x"}
    worker.count(outcome(Failed, **poison))
    registry = metrics.make_registry(worker)
    for name, labels, expected in (
        ("inter_token_seconds_bucket", {"le": "0.001"}, 2),
        ("inter_token_seconds_bucket", {"le": "0.025"}, 3),
        ("inter_token_seconds_count", {}, 4),
        ("first_token_seconds_count", {}, 1),
        ("tokens_per_second_sum", {}, 20),
        ("engine_failures_total", {"kind": "poison"}, 1),
        ("engine_failures_total", {"kind": "transient"}, 0),
        ("redeliveries_total", {}, 0),
    ):
        found = registry.get_sample_value(f"millrace_worker_{name}", {"model": "mill"} | labels)
        assert found == expected, name


@pytest.mark.parametrize(
    "accept",
    ["", "application/openmetrics-text;version=x", "\xff" * 999],
    ids=["nothing", "no number", "long"],
)
def test_every_scraper_of_a_worker_gets_something(accept: str) -> None:
    worker = standing()
    registry = metrics.make_registry(worker)
    status, media_type, body = health.answer("/metrics", worker, registry, accept)
    assert (status, media_type) == (200, metrics.MEDIA_TYPE)
    assert b"millrace_worker_ready" in body
    open_metrics = "application/openmetrics-text;version=1.0.0"
    said = health.answer("/metrics", worker, registry, open_metrics)[2]
    assert said.endswith(b"# EOF\n")
    assert b"_created" not in said
