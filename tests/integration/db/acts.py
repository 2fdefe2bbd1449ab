"""What brokers, workers and clients do, and what they send."""

import asyncio
import json
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import new_requests, outbox
from master.planning.plan import AggregatorName, Plan, Step, StepKind
from master.redrive import NotRedrivable, redrive
from master.submit import new_subtasks
from queue_schemas.messages import (
    Completed,
    ErrorKind,
    Failed,
    Heartbeat,
    RunningSubtask,
    Started,
    SubtaskRequest,
    Usage,
)
from tests.integration.db.replica import REGISTRY, Replica

T = TypeVar("T")
MODEL = "millrace/split"


@dataclass(eq=False)
class Message:
    """A message of a subtask on its queue."""

    call: SubtaskRequest
    handed_out: int = 0


@dataclass(eq=False)
class Execution:
    """A worker at work on a message, of which the broker may think differently."""

    message: Message
    started: Started
    holds: bool = True
    """Its connection still has the message."""


@dataclass
class Site:
    """What all runs share: one database, two replicas."""

    engine: AsyncEngine
    tenant: UUID
    replicas: Sequence[Replica]
    loop: asyncio.AbstractEventLoop


def choose(things: Sequence[T], pick: int) -> T:
    return things[pick % len(things)]


def a_plan(parts: int, *, synthesis: bool) -> Plan:
    """Parts side by side; with a synthesis the last one is made of the others."""
    keys = tuple(f"part-{number}" for number in range(parts))
    steps = [Step(key=key, model="mill", messages=()) for key in keys]
    if synthesis:
        merged = {"kind": StepKind.SYNTHESIS, "depends_on": keys[:-1]}
        steps[-1] = steps[-1].model_copy(update=merged)
    kind = AggregatorName.SYNTHESIS if synthesis else AggregatorName.SECTIONS
    return Plan(strategy="split", aggregator=kind, steps=tuple(steps))


async def store(site: Site, plan: Plan) -> UUID:
    """Accept a request as submit does."""
    question = {"model": MODEL, "messages": [], "parameters": {}, "stream": False, "task": None}
    row = new_requests.NewRequest(
        uuid4(),
        site.tenant,
        None,
        MODEL,
        json.dumps(question),
        plan.model_dump_json(),
        seed=1,
        reply_to=None,
        deadline_seconds=600.0,
    )
    async with site.engine.begin() as connection:
        await new_requests.add(connection, row, new_subtasks({uuid4(): s for s in plan.steps}))
    return row.id


def begin(message: Message) -> Execution:
    call = message.call
    started = Started(
        request=call.request,
        subtask=call.subtask,
        attempt=call.attempt,
        execution=uuid4(),
        delivery=message.handed_out,
        worker=f"w-{call.model}",
    )
    return Execution(message, started)


def result(of: Started, outcome: ErrorKind | str | None, tokens: int) -> Completed | Failed:
    who = of.model_dump(exclude={"type", "version"})
    spent = Usage(prompt_tokens=7, completion_tokens=tokens, engine_seconds=0.25 * tokens)
    said = f"said by {of.execution}"
    if outcome is None:
        return Completed(**who, usage=spent, text=said, finish_reason="stop")
    kind = outcome if isinstance(outcome, ErrorKind) else ErrorKind.PERMANENT
    code = outcome if outcome == "cancelled" else "engine_failed"
    return Failed(**who, usage=spent, kind=kind, code=code, message="no", text=said[: 2 * tokens])


def heartbeat(worker: str, model: str, *running: Started) -> Heartbeat:
    lines = [RunningSubtask(**s.model_dump(exclude={"type", "version", "worker"})) for s in running]
    return Heartbeat(
        worker=worker,
        model=model,
        slots=8,
        provider="scripted",
        host="here",
        pid=1,
        release="1",
        running=tuple(lines),
    )


async def together(*work: Awaitable[None]) -> None:
    await asyncio.gather(*work)


async def execute(engine: AsyncEngine, statement: str, **values: object) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement), values)


async def forgotten(engine: AsyncEngine) -> None:
    """What the sweep does when the broker's queue is empty and should not be."""
    async with engine.begin() as connection:
        for model in REGISTRY.chat_models():
            await outbox.republish_forgotten(connection, model.name, 0)


async def redrive_twice(engine: AsyncEngine, request: UUID) -> list[UUID | None]:
    """Two people do the same request again at the same moment."""

    async def once() -> UUID | None:
        try:
            return (await redrive(engine, request)).id
        except NotRedrivable:
            return None

    return list(await asyncio.gather(once(), once()))
