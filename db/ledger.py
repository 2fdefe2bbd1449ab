"""The ledger: one row for every execution that ended, whether its result counted or not.

A row is written in the transaction that takes the result, and never changed.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import attempts, subtasks
from db.statement import Statement
from queue_schemas.messages import Completed, Failed

_RECORD = Statement("""
    INSERT INTO millrace.attempts
           (subtask_id, attempt, execution, tenant_id, model, worker, outcome, applied, error,
            prompt_tokens, completion_tokens, estimated, engine_seconds, load_seconds,
            first_token_seconds, seams)
    SELECT * FROM unnest(
           CAST(:subtasks AS uuid[]), CAST(:attempts AS integer[]), CAST(:executions AS uuid[]),
           CAST(:tenants AS uuid[]), CAST(:models AS text[]), CAST(:workers AS text[]),
           CAST(:outcomes AS text[]), CAST(:applied AS boolean[]), CAST(:errors AS jsonb[]),
           CAST(:prompt_tokens AS integer[]), CAST(:completion_tokens AS integer[]),
           CAST(:estimated AS boolean[]), CAST(:engine_seconds AS double precision[]),
           CAST(:load_seconds AS double precision[]),
           CAST(:first_token_seconds AS double precision[]), CAST(:seams AS jsonb[]))
    ON CONFLICT DO NOTHING
    RETURNING execution
""")


async def record(
    connection: AsyncConnection,
    results: Sequence[tuple[Completed | Failed, UUID, str]],
    applied: set[UUID],
) -> set[UUID]:
    """Enter (result, tenant, model) into the ledger, whether it counted or not.

    Returns the executions that it did not have yet: a result may be delivered again.
    """
    if not results:
        return set()
    ended = [result for result, _, _ in results]
    values: dict[str, list[Any]] = {
        "subtasks": [r.subtask for r in ended],
        "attempts": [r.attempt for r in ended],
        "executions": [r.execution for r in ended],
        "tenants": [tenant for _, tenant, _ in results],
        "models": [model for _, _, model in results],
        "workers": [r.worker for r in ended],
        "outcomes": [r.status if isinstance(r, Completed) else r.code for r in ended],
        "applied": [r.execution in applied for r in ended],
        "errors": [None if isinstance(r, Completed) else _error(r) for r in ended],
        "prompt_tokens": [r.usage.prompt_tokens for r in ended],
        "completion_tokens": [r.usage.completion_tokens for r in ended],
        "estimated": [r.usage.estimated for r in ended],
        "engine_seconds": [r.usage.engine_seconds for r in ended],
        "load_seconds": [r.usage.load_seconds for r in ended],
        "first_token_seconds": [r.usage.first_token_seconds for r in ended],
        "seams": [_seams(r) if r.seams else None for r in ended],
    }
    return {row["execution"] for row in await _RECORD.run(connection, values)}


def _error(failed: Failed) -> str:
    error = {"kind": failed.kind, "code": failed.code, "message": failed.message}
    return to_json(error).decode()


def _seams(result: Completed | Failed) -> str:
    return to_json([seam.model_dump(exclude={"version"}) for seam in result.seams]).decode()


async def tokens_of_answers(connection: AsyncConnection, request: UUID) -> tuple[int, int]:
    """Prompt and completion tokens of the executions that counted, of all steps of the request.

    That is what a client is told; attempts that came to nothing are in its record.
    """
    query = (
        select(
            func.coalesce(func.sum(attempts.c.prompt_tokens), 0),
            func.coalesce(func.sum(attempts.c.completion_tokens), 0),
        )
        .join(subtasks, subtasks.c.id == attempts.c.subtask_id)
        .where(
            subtasks.c.request_id == request,
            attempts.c.applied,
            attempts.c.outcome == "completed",
        )
    )
    row = (await connection.execute(query)).one()
    return int(row[0]), int(row[1])


async def executions(connection: AsyncConnection, request: UUID) -> list[dict[str, Any]]:
    """Every execution of a request that ended, counted or not."""
    query = (
        select(attempts)
        .join(subtasks, subtasks.c.id == attempts.c.subtask_id)
        .where(subtasks.c.request_id == request)
        .order_by(attempts.c.finished_at)
    )
    return [dict(row) for row in (await connection.execute(query)).mappings()]
