"""Models, workers, queues, health and metrics."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import APIRouter
from sqlalchemy import text
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from bus.protocol import Bus, BusError, Depth
from db import collections
from db.tenancy import as_tenant
from db.workers import ModelLoad
from master.api import openai_shapes, outages
from master.api.answers import Health, ModelList, QueueList, Readiness, WorkerList
from master.api.openapi import success
from master.api.state import ring, running
from master.metrics.exposition import render
from master.metrics.gauges import Replica
from master.outages import said
from master.planning.strategies import asked_as, model_names
from master.running import Running
from queue_schemas import topology
from queue_schemas.registry import RESERVED_PREFIX

router = APIRouter()
log = structlog.get_logger(__name__)

_READY_SECONDS = 3.0
_FAILURES = (401, 503)


@router.get(
    "/v1/models",
    response_model=None,
    responses=success(ModelList, *_FAILURES),
    tags=["OpenAI"],
)
async def list_models(request: Request) -> dict[str, Any]:
    """The models and strategies that a chat may name, and what your documents can be asked as."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    made = int(request.app.state.started)
    with outages.answered():
        async with as_tenant(master.engine, key.tenant) as connection:
            kept = await collections.names(connection, key.tenant)
    names = [*model_names(master.registry()), *(asked_as(name) for name in kept)]
    return openai_shapes.model_list(
        openai_shapes.model_entry(
            name, made, owner="millrace" if name.startswith(RESERVED_PREFIX) else "engine"
        )
        for name in names
    )


@router.get(
    "/v1/workers",
    response_model=None,
    responses=success(WorkerList, *_FAILURES),
    tags=["Millrace"],
)
async def list_workers(request: Request) -> dict[str, Any]:
    """The workers that were heard of lately."""
    await ring(request).tenant_of(request.headers, time.monotonic())
    workers = [
        {
            "name": worker["name"],
            "model": worker["model"],
            "provider": worker["provider"],
            "slots": worker["slots"],
            "running": worker["running"],
            "state": "draining" if worker["draining"] else "live",
            "up_seconds": worker["up_seconds"],
            "last_seen_seconds": worker["last_seen_seconds"],
            "host": worker["host"],
            "release": worker["release"],
        }
        for worker in running(request).view.workers
    ]
    return {"object": "list", "data": workers}


@router.get(
    "/v1/queues",
    response_model=None,
    responses=success(QueueList, *_FAILURES),
    tags=["Millrace"],
)
async def list_queues(request: Request) -> dict[str, Any]:
    """Each model's queue at the broker, and what the database says about it."""
    await ring(request).tenant_of(request.headers, time.monotonic())
    master = running(request)
    models = master.registry().chat_models()
    depths = await _depths(master.bus, [topology.subtasks(model.slug).name for model in models])
    queues = []
    for model in models:
        name = topology.subtasks(model.slug).name
        depth = depths.get(name) if depths is not None else None
        load = master.view.loads.get(model.name, ModelLoad())
        queues.append(
            {
                "model": model.name,
                "queue": name,
                "ready": depth.ready if depth else None,
                "consumers": depth.consumers if depth else None,
                "db_ready": load.ready,
                "db_delayed": load.delayed,
                "db_queued": load.queued,
                "db_running": load.running,
                "window": master.view.depth(model),
                "min_workers": model.min_workers,
                "max_workers": model.max_workers,
            }
        )
    return {"object": "list", "data": queues, "broker_answers": depths is not None}


async def _depths(bus: Bus, names: Sequence[str]) -> Mapping[str, Depth | None] | None:
    """How full these queues are; None while the broker does not say."""
    try:
        async with asyncio.timeout(_READY_SECONDS):
            return {name: await bus.depth(name) for name in names}
    except (BusError, TimeoutError) as error:
        log.debug("api.depths_unknown", error=said(error))
        return None


@router.get("/health", response_model=None, responses=success(Health), tags=["Operations"])
async def health() -> dict[str, str]:
    """The process runs."""
    return {"status": "ok"}


@router.get(
    "/ready",
    responses={**success(Readiness), 503: {"model": Readiness, "description": "Not now"}},
    tags=["Operations"],
)
async def ready(request: Request) -> Response:
    """Whether this replica should get requests: database and broker answer, and it stays up."""
    master = running(request)
    checks = dict(
        zip(
            ("database", "broker"),
            await asyncio.gather(_database(master), _broker(master)),
            strict=True,
        )
    )
    if master.draining:
        checks["replica"] = "draining"
    good = all(value == "ok" for value in checks.values())
    return JSONResponse(
        {"status": "ready" if good else "not_ready", "checks": checks},
        status_code=200 if good else 503,
    )


async def _database(master: Running) -> str:
    try:
        async with asyncio.timeout(_READY_SECONDS), master.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except Exception as error:  # whatever it is, it is why this replica is not ready
        return f"no answer ({type(error).__name__})"
    return "ok"


async def _broker(master: Running) -> str:
    try:
        async with asyncio.timeout(_READY_SECONDS):
            depth = await master.bus.depth(topology.RESULTS.name)
    except Exception as error:  # as above
        return f"no answer ({type(error).__name__})"
    return "ok" if depth else "the queue `results` is missing"


@router.get("/metrics", tags=["Operations"], response_class=PlainTextResponse)
async def show_metrics(request: Request) -> Response:
    """Prometheus metrics of this replica; as OpenMetrics for who accepts it."""
    master = running(request)
    pools = {"requests": master.engine.pool, "corpus": master.corpus_engine.pool}
    metrics = Replica(master.view, len(master.streams), pools)
    body, media_type = render(metrics, request.headers.get("accept", ""))
    return Response(body, headers={"content-type": media_type})
