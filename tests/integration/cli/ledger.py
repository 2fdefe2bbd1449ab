"""A database with requests that ended in all ways, without any process."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from db import new_requests, requests, subtasks, tenants
from db.models import attempts
from master.planning.plan import AggregatorName, Plan, Step
from queue_schemas.states import RequestState, SubtaskState
from tests.servers import async_database_url

QUESTION = {
    "model": "mill",
    "messages": [{"role": "user", "content": "Why does it turn?\nAnd how?\nAnd when?\nAnd who?"}],
    "parameters": {},
    "stream": False,
    "task": None,
}


@dataclass
class Books:
    """What is written into the database."""

    connection: AsyncConnection

    async def request(
        self, tenant: str = "acme", end_user: str | None = None, model: str = "mill"
    ) -> tuple[UUID, UUID]:
        """A request with one subtask, both open; (request, subtask)."""
        owner = await tenants.ensure_tenant(self.connection, tenant)
        plan = Plan(
            strategy="direct",
            aggregator=AggregatorName.SINGLE,
            steps=(Step(key="answer", model=model, messages=()),),
        )
        from pydantic_core import to_json  # noqa: PLC0415

        row = new_requests.NewRequest(
            uuid4(),
            owner,
            end_user,
            model,
            to_json(QUESTION).decode(),
            plan.model_dump_json(),
            1,
            None,
            60.0,
        )
        step = new_requests.NewSubtask(uuid4(), "answer", "answer", model)
        await new_requests.add(self.connection, row, [step])
        return row.id, step.id

    async def dead(self, **whose: Any) -> tuple[UUID, UUID]:
        """A request that failed because its subtask died."""
        request, subtask = await self.request(**whose)
        await self.executed(request, subtask, outcome="engine_busy", error={"message": "no room"})
        error = '{"kind": "transient", "code": "engine_busy", "message": "no room"}'
        await subtasks.end(self.connection, subtask, 1, SubtaskState.DEAD, error=error)
        await requests.finish(self.connection, request, RequestState.FAILED, error=error)
        return request, subtask

    async def executed(self, request: UUID, subtask: UUID, **fields: Any) -> None:
        """An execution of a subtask, in the ledger."""
        known = await self.connection.execute(
            text("SELECT tenant_id, model FROM millrace.subtasks WHERE id = :id"), {"id": subtask}
        )
        tenant, model = known.one()
        age = fields.pop("age", timedelta())
        row = {
            "subtask_id": subtask,
            "attempt": 1,
            "execution": uuid4(),
            "tenant_id": tenant,
            "model": model,
            "worker": "mill-1",
            "outcome": "completed",
            "applied": True,
            "prompt_tokens": 10,
            "completion_tokens": 1,
            "estimated": False,
            "engine_seconds": 0.1,
            "load_seconds": 0.0,
            "finished_at": datetime.now(UTC) - age,
        }
        await self.connection.execute(attempts.insert().values(row | fields))


async def write(url: str, *entries: Any) -> list[Any]:
    """Run each entry, a function of the books, in one transaction."""
    engine = create_async_engine(async_database_url(url))
    try:
        async with engine.begin() as connection:
            books = Books(connection)
            return [await entry(books) for entry in entries]
    finally:
        await engine.dispose()
