"""Requests that were answered under rules, and judged: what learning reads."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import judgements, new_requests
from db.judgements import NewJudgement
from db.models import JudgementKind, JudgementSource
from db.new_requests import NewSubtask
from db.tenancy import as_tenant
from master.rules.rule import Arm

_SUBTASKS = text("""
    UPDATE millrace.subtasks
       SET state = 'succeeded', text = 'x', finished_at = now() + interval '2 seconds',
           started_at = now()
     WHERE request_id = :request
""")
_REQUEST = text("""
    UPDATE millrace.requests SET state = 'completed', answer = 'x', finished_at = now()
     WHERE id = :request
""")
_ATTEMPTS = text("""
    INSERT INTO millrace.attempts
           (subtask_id, attempt, execution, tenant_id, model, worker, outcome, applied,
            prompt_tokens, completion_tokens, estimated, engine_seconds, load_seconds)
    SELECT s.id, n, gen_random_uuid(), s.tenant_id, s.model, 'w', 'completed', true, 10, 5, false,
           1, 0
      FROM millrace.subtasks s, generate_series(1, 2) n WHERE s.request_id = :request
""")


def human(rater: str, score: float | None, **more: Any) -> NewJudgement:
    return NewJudgement(
        JudgementKind.HUMAN, f"user:{rater}", JudgementSource.API, score=score, **more
    )


def used(rule: UUID, arm: Arm, name: str = "brief", version: int = 1) -> dict[str, Any]:
    """A rule as a plan has it, as far as roll-ups read it."""
    return {"id": str(rule), "name": name, "version": version, "arm": arm}


async def answered(
    engine: AsyncEngine,
    tenant: UUID,
    *said: NewJudgement,
    model: str = "millrace/auto",
    by: str | None = None,
    rules: Sequence[Mapping[str, Any]] = (),
    steps: Sequence[NewSubtask] | None = None,
    **plan: Any,
) -> UUID:
    """A request of `by` with one step, or those given, that all succeeded with two executions."""
    planned = {"strategy": "direct", **plan} | ({"rules": list(rules)} if rules else {})
    row = new_requests.NewRequest(
        uuid4(), tenant, by, model, "{}", json.dumps(planned), 1, None, deadline_seconds=600
    )
    given = [NewSubtask(uuid4(), "answer", "answer", "mill")] if steps is None else steps
    async with engine.begin() as connection:
        await new_requests.add(connection, row, given)
        for statement in (_SUBTASKS, _ATTEMPTS, _REQUEST):
            await connection.execute(statement, {"request": row.id})
    async with as_tenant(engine, tenant) as connection:
        await judgements.put(connection, tenant, row.id, said)
    return row.id


_MANY = text("""
    WITH asked AS (
        INSERT INTO millrace.requests
               (id, tenant_id, end_user, model, question, plan, seed, deadline_at, state, answer,
                finished_at)
        SELECT gen_random_uuid(), :tenant, (n % greatest(CAST(:raters AS integer), 1))::text,
               'millrace/auto', '{}', CAST(:plan AS jsonb), n, now(), 'completed', 'x', now()
          FROM generate_series(1, CAST(:good AS integer) + CAST(:bad AS integer)) n
        RETURNING id, tenant_id, end_user, seed
    )
    INSERT INTO millrace.judgements (id, tenant_id, request_id, kind, rater, score, source)
    SELECT gen_random_uuid(), tenant_id, id, 'human', 'user:' || end_user,
           CASE WHEN seed <= CAST(:good AS integer) THEN 1 ELSE 0 END, 'api'
      FROM asked WHERE CAST(:raters AS integer) > 0
""")


async def voted(
    engine: AsyncEngine,
    tenant: UUID,
    rule: Mapping[str, Any],
    *,
    good: int = 0,
    bad: int = 0,
    raters: int = 20,
) -> None:
    """So many requests that a rule fitted, each judged by who asked; raters 0: by nobody."""
    plan = json.dumps({"strategy": "direct", "rules": [rule]})
    values = {"tenant": tenant, "plan": plan, "good": good, "bad": bad, "raters": raters}
    async with engine.begin() as connection:
        await connection.execute(_MANY, values)
