"""Several deliveries of one attempt: the newest counts, in whatever order its notes arrive."""

from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import leases, new_requests, requests, subtasks
from queue_schemas.messages import Completed, RunningSubtask, Started
from queue_schemas.states import SubtaskState

S = SubtaskState


async def add(connection: AsyncConnection, tenant: UUID) -> tuple[UUID, UUID]:
    """A request with one ready subtask."""
    request = new_requests.NewRequest(uuid4(), tenant, None, "m", "{}", "{}", 1, "tokens.x", 60.0)
    step = new_requests.NewSubtask(uuid4(), "answer", "answer", "m")
    await new_requests.add(connection, request, [step])
    return request.id, step.id


def start(request: UUID, subtask: UUID, delivery: int) -> Started:
    return Started(
        request=request,
        subtask=subtask,
        attempt=1,
        execution=uuid4(),
        delivery=delivery,
        worker=f"w{delivery}",
    )


def result(of: Started) -> Completed:
    return Completed(
        request=of.request,
        subtask=of.subtask,
        attempt=of.attempt,
        execution=of.execution,
        delivery=of.delivery,
        worker=of.worker,
        text="done",
        finish_reason="stop",
    )


async def row(connection: AsyncConnection) -> tuple[SubtaskState, UUID | None, int]:
    query = text("SELECT state, execution, attempt FROM millrace.subtasks")
    found = (await connection.execute(query)).one()
    return SubtaskState(found.state), found.execution, found.attempt


async def test_a_result_that_overtakes_its_own_claim_counts_and_the_claim_then_does_nothing(
    engine: AsyncEngine, tenant: UUID
) -> None:
    """Its Started is in the hands of another replica, and the frozen one still has the lease."""
    async with engine.begin() as connection:
        request, subtask = await add(connection, tenant)
        frozen, newer = start(request, subtask, 0), start(request, subtask, 1)
        assert await leases.claim(connection, [frozen], 30)
        assert await subtasks.succeed(connection, [result(newer)]) == {subtask}
        assert await leases.claim(connection, [newer], 30) == []
        assert await leases.outrun(connection, [newer]) == []
        assert await leases.outrun(connection, [frozen]) == [frozen]
        assert await row(connection) == (S.SUCCEEDED, newer.execution, 1)


async def test_a_result_of_an_earlier_delivery_is_refused_once_a_later_one_has_the_lease(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with engine.begin() as connection:
        request, subtask = await add(connection, tenant)
        frozen, newer = start(request, subtask, 0), start(request, subtask, 1)
        assert await leases.claim(connection, [newer], 30)
        assert await subtasks.succeed(connection, [result(frozen)]) == set()
        assert await row(connection) == (S.RUNNING, newer.execution, 1)


@pytest.mark.parametrize("delivery", [0, 1])
async def test_a_retry_is_guarded_as_a_result_is(
    engine: AsyncEngine, tenant: UUID, delivery: int
) -> None:
    async with engine.begin() as connection:
        request, subtask = await add(connection, tenant)
        assert await leases.claim(connection, [start(request, subtask, 0)], 30)
        moved = await subtasks.again(
            connection, subtask, 1, execution=uuid4(), delivery=delivery, error="{}"
        )
        assert moved is bool(delivery)


@pytest.mark.parametrize("delivery", [0, 1])
async def test_an_end_is_guarded_as_a_result_is(
    engine: AsyncEngine, tenant: UUID, delivery: int
) -> None:
    async with engine.begin() as connection:
        request, subtask = await add(connection, tenant)
        holder, other = start(request, subtask, 0), start(request, subtask, delivery)
        assert await leases.claim(connection, [holder], 30)
        moved = await subtasks.end(
            connection,
            subtask,
            1,
            S.FAILED,
            error="{}",
            execution=other.execution,
            delivery=delivery,
        )
        assert moved is bool(delivery)
        assert await leases.outrun(connection, [holder]) == ([holder] if moved else [])


async def test_a_result_whose_rival_has_lost_its_lease_counts(
    engine: AsyncEngine, tenant: UUID
) -> None:
    """Two messages of one attempt: neither is the later one, but one of them lives."""
    async with engine.begin() as connection:
        request, subtask = await add(connection, tenant)
        dead, other = start(request, subtask, 0), start(request, subtask, 0)
        assert await leases.claim(connection, [dead], -1)
        assert await subtasks.succeed(connection, [result(other)]) == {subtask}


async def test_a_lease_that_was_renewed_at_the_last_moment_is_not_taken_away(
    engine: AsyncEngine, tenant: UUID
) -> None:
    """A heartbeat is written between the sweep's look and its move."""
    async with engine.begin() as connection:
        request, subtask = await add(connection, tenant)
        holder = start(request, subtask, 0)
        assert await leases.claim(connection, [holder], -1)
        [lost] = await leases.expired(connection, 10)
        line = RunningSubtask(
            request=request, subtask=subtask, attempt=1, execution=holder.execution, delivery=0
        )
        assert await leases.renew(connection, [line], 30)
        who = lost.execution
        assert not await subtasks.again(connection, subtask, 1, execution=who, lost=True)
        ended = await subtasks.end(
            connection, subtask, 1, S.DEAD, error="{}", execution=who, lost=True
        )
        assert not ended
        assert await row(connection) == (S.RUNNING, holder.execution, 1)


async def test_an_execution_whose_request_was_cancelled_works_in_vain(
    engine: AsyncEngine, tenant: UUID
) -> None:
    """The order to stop was lost; its heartbeat, which renews nothing, is answered with another."""
    async with engine.begin() as connection:
        request, subtask = await add(connection, tenant)
        holder = start(request, subtask, 0)
        assert await leases.claim(connection, [holder], 30)
        assert list(await requests.drop_subtasks(connection, request)) == [subtask]
        assert await leases.claim(connection, [holder], 30) == []
        assert await leases.outrun(connection, [holder]) == [holder]
