"""Requests that were answered, as the choice of models and the export read them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import judgements, new_requests
from db.judgements import NewJudgement
from db.models import JudgementKind, JudgementSource

ASKED = [{"role": "user", "content": "Why?"}]
_COMPLETED = {"answer": "the answer", "finish_reason": "stop"}
_SUCCEEDED = text("""
    WITH whole AS (
        UPDATE millrace.requests SET state = 'completed', answer = '', finished_at = now()
         WHERE id = :id
    )
    UPDATE millrace.subtasks
       SET state = 'succeeded', text = 'text of ' || step, finished_at = now(), lease_until = NULL
     WHERE request_id = :id
""")


def step(key: str = "answer", model: str = "mill", **more: Any) -> dict[str, Any]:
    """A step as a plan has it."""
    made = {"key": key, "kind": "answer", "model": model, "messages": ASKED, "work": "answer"}
    return made | more


async def answered(
    connection: AsyncConnection,
    tenant: UUID,
    *steps: Mapping[str, Any],
    question: Mapping[str, Any] | None = None,
    plan: Mapping[str, Any] | None = None,
    **row: Any,
) -> UUID:
    """A completed request whose steps have all succeeded. `row`: other values of its columns."""
    steps = steps or (step(),)
    asked = {"model": "millrace/auto", "messages": ASKED, "parameters": {}} | dict(question or {})
    made = {"strategy": "direct", "aggregator": "single", "steps": steps} | dict(plan or {})
    new = new_requests.NewRequest(
        uuid4(), tenant, None, "millrace/auto", json.dumps(asked), json.dumps(made), 1, None, 600.0
    )
    subtasks = [new_requests.NewSubtask(uuid4(), s["key"], s["kind"], s["model"]) for s in steps]
    await new_requests.add(connection, new, subtasks)
    await connection.execute(_SUCCEEDED, {"id": new.id})
    for name, value in (_COMPLETED | row).items():
        query = text(f"UPDATE millrace.requests SET {name} = :value WHERE id = :id")
        await connection.execute(query, {"value": value, "id": new.id})
    return new.id


async def said(
    connection: AsyncConnection,
    tenant: UUID,
    request: UUID,
    rater: str = "alice",
    score: float | None = 1.0,
    kind: JudgementKind = JudgementKind.HUMAN,
    **more: Any,
) -> None:
    """Something that a person said of a request."""
    new = NewJudgement(kind, f"user:{rater}", JudgementSource.API, score=score, **more)
    await judgements.put(connection, tenant, request, [new])


async def voted(
    engine: AsyncEngine, tenant: UUID, model: str, raters: Sequence[str], score: float, times: int
) -> None:
    """Each of these rates so many answers of a model."""
    async with engine.begin() as connection:
        for rater in raters:
            for _ in range(times):
                request = await answered(connection, tenant, step(model=model), end_user=rater)
                await said(connection, tenant, request, rater, score)
