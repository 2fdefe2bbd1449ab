"""The SQL guards do what the move tables say, for every pair of states."""

from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import leases, new_requests, outbox, requests, subtasks, workers
from queue_schemas.messages import Completed, RunningSubtask, Started
from queue_schemas.states import (
    REQUEST_MOVES,
    REQUEST_TERMINAL,
    SUBTASK_MOVES,
    SUBTASK_TERMINAL,
    RequestState,
    SubtaskState,
)

EXECUTION = uuid4()
S = SubtaskState


async def add(
    connection: AsyncConnection,
    tenant: UUID,
    steps: int = 1,
    end_user: str | None = None,
    priority: int = 0,
) -> tuple[UUID, list[UUID]]:
    """A request with ready steps."""
    request = new_requests.NewRequest(
        uuid4(), tenant, end_user, "m", "{}", "{}", 1, "tokens.x", 60.0, priority
    )
    rows = [new_requests.NewSubtask(uuid4(), f"part-{n}", "answer", "m") for n in range(steps)]
    await new_requests.add(connection, request, rows)
    return request.id, [row.id for row in rows]


async def force(connection: AsyncConnection, subtask: UUID, state: SubtaskState) -> None:
    """Put a subtask into a state, past every guard but the table's own constraints."""
    values = {
        "id": subtask,
        "state": state.value,
        "execution": EXECUTION if state in {S.RUNNING, *SUBTASK_TERMINAL} else None,
        "running": state is S.RUNNING,
        "ended": state in SUBTASK_TERMINAL,
        "ready": state is not S.BLOCKED,
    }
    await connection.execute(
        text("""
            UPDATE millrace.subtasks
               SET state = :state, execution = :execution, delivery = 0, worker = 'w', text = 't',
                   queued_at = now(), started_at = now(),
                   lease_until = CASE WHEN :running THEN now() - interval '1 second' END,
                   ready_at = CASE WHEN :ready THEN now() END,
                   finished_at = CASE WHEN :ended THEN now() END
             WHERE id = :id
        """),
        values,
    )


async def state_of(connection: AsyncConnection, subtask: UUID) -> SubtaskState:
    query = text("SELECT state FROM millrace.subtasks WHERE id = :id")
    return SubtaskState((await connection.execute(query, {"id": subtask})).scalar_one())


def started(request: UUID, subtask: UUID, *, attempt: int = 1, delivery: int = 0) -> Started:
    return Started(
        request=request,
        subtask=subtask,
        attempt=attempt,
        execution=uuid4(),
        delivery=delivery,
        worker="w",
    )


def completed(request: UUID, subtask: UUID, execution: UUID, attempt: int = 1) -> Completed:
    return Completed(
        request=request,
        subtask=subtask,
        attempt=attempt,
        execution=execution,
        worker="w",
        text="done",
        finish_reason="stop",
    )


Move = Callable[[AsyncConnection, UUID, UUID], Awaitable[object]]
MOVES: dict[SubtaskState, Move] = {
    S.QUEUED: lambda c, _, s: subtasks.mark_queued(c, [(s, 1)]),
    S.RUNNING: lambda c, r, s: leases.claim(c, [started(r, s, delivery=1)], 30),
    S.SUCCEEDED: lambda c, r, s: subtasks.succeed(c, [completed(r, s, EXECUTION)]),
    S.FAILED: lambda c, _, s: subtasks.end(c, s, 1, S.FAILED, error="{}"),
    S.DEAD: lambda c, _, s: subtasks.end(c, s, 1, S.DEAD, error="{}"),
    S.SKIPPED: lambda c, _, s: subtasks.end(c, s, 1, S.SKIPPED, error="{}"),
    S.CANCELLED: lambda c, r, _: requests.drop_subtasks(c, r),
}


@pytest.mark.parametrize("target", MOVES)
@pytest.mark.parametrize("source", S)
async def test_a_subtask_moves_only_where_the_table_allows(
    engine: AsyncEngine, tenant: UUID, source: SubtaskState, target: SubtaskState
) -> None:
    async with engine.begin() as connection:
        request, [subtask] = await add(connection, tenant)
        await force(connection, subtask, source)
        await MOVES[target](connection, request, subtask)
        after = await state_of(connection, subtask)
    allowed = target in SUBTASK_MOVES[source]
    assert after is (target if allowed else source)


@pytest.mark.parametrize("source", S)
async def test_the_next_attempt_starts_only_where_the_table_allows(
    engine: AsyncEngine, tenant: UUID, source: SubtaskState
) -> None:
    async with engine.begin() as connection:
        _, [subtask] = await add(connection, tenant)
        await force(connection, subtask, source)
        moved = await subtasks.again(connection, subtask, 1)
    assert moved is (S.READY in SUBTASK_MOVES[source])


@pytest.mark.parametrize("target", sorted(REQUEST_TERMINAL))
@pytest.mark.parametrize("first", sorted(REQUEST_TERMINAL))
async def test_a_request_gets_one_terminal_state_for_ever(
    engine: AsyncEngine, tenant: UUID, first: RequestState, target: RequestState
) -> None:
    async with engine.begin() as connection:
        request, _ = await add(connection, tenant)
        assert await requests.finish(connection, request, first, answer="a")
        assert not await requests.finish(connection, request, target, answer="b")
        stored = (await requests.load(connection, [request]))[request]
    assert (stored.state, stored.answer) == (first, "a")
    assert not REQUEST_MOVES[first]


async def test_a_result_of_an_older_attempt_is_refused(engine: AsyncEngine, tenant: UUID) -> None:
    async with engine.begin() as connection:
        request, [subtask] = await add(connection, tenant)
        assert await subtasks.again(connection, subtask, 1)
        late = completed(request, subtask, EXECUTION, attempt=1)
        assert await subtasks.succeed(connection, [late]) == set()
        assert await state_of(connection, subtask) is S.READY


async def test_a_result_of_a_superseded_execution_is_refused(
    engine: AsyncEngine, tenant: UUID
) -> None:
    """A frozen worker wakes up after its message was given to another one."""
    async with engine.begin() as connection:
        request, [subtask] = await add(connection, tenant)
        frozen, other = started(request, subtask), started(request, subtask, delivery=1)
        assert await leases.claim(connection, [frozen], 30)
        assert await leases.claim(connection, [other], 30)
        late = completed(request, subtask, frozen.execution)
        assert await subtasks.succeed(connection, [late]) == set()
        good = completed(request, subtask, other.execution)
        assert await subtasks.succeed(connection, [good]) == {subtask}
        assert await subtasks.succeed(connection, [good]) == set()


async def test_between_equal_claims_the_first_stands_until_its_lease_is_over(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with engine.begin() as connection:
        request, [subtask] = await add(connection, tenant)
        first, second = started(request, subtask), started(request, subtask)
        assert await leases.claim(connection, [first], 30)
        assert not await leases.claim(connection, [second], 30)
        assert await leases.outrun(connection, [first, second]) == [second]
        await connection.execute(
            text("UPDATE millrace.subtasks SET lease_until = now() - '1s'::interval")
        )
        assert await leases.claim(connection, [second], 30)


async def test_a_heartbeat_renews_only_the_lease_of_the_execution_it_names(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with engine.begin() as connection:
        request, [subtask] = await add(connection, tenant)
        start = started(request, subtask)
        await leases.claim(connection, [start], -1)
        assert [row.id for row in await leases.expired(connection, 10)] == [subtask]
        stranger = RunningSubtask(
            request=request, subtask=subtask, attempt=1, execution=uuid4(), delivery=0
        )
        assert await leases.renew(connection, [stranger], 30) == set()
        assert await leases.expired(connection, 10)
        own = stranger.model_copy(update={"execution": start.execution})
        assert await leases.renew(connection, [own], 30) == {start.execution}
        assert not await leases.expired(connection, 10)


@pytest.mark.parametrize(
    "statement",
    [
        "state = 'succeeded', text = 't'",  # without finished_at
        "state = 'succeeded', finished_at = now()",  # without a text
        "state = 'running'",  # without a lease
        "lease_until = now()",  # a lease without running
        "state = 'queued'",  # without queued_at
        "state = 'somewhere'",
        "finished_at = now()",
        "attempt = 0",
    ],
)
async def test_a_half_written_move_cannot_be_stored(
    engine: AsyncEngine, tenant: UUID, statement: str
) -> None:
    async with engine.begin() as connection:
        await add(connection, tenant)
    with pytest.raises(IntegrityError):
        async with engine.begin() as connection:
            await connection.execute(text(f"UPDATE millrace.subtasks SET {statement}"))


async def test_a_taken_outbox_row_comes_due_again_when_its_taker_dies(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with engine.begin() as connection:
        _, [subtask] = await add(connection, tenant)
        assert [due.subtask for due in await outbox.take(connection, "m", 10, 30)] == [subtask]
        assert await outbox.take(connection, "m", 10, 30) == []
        await connection.execute(text("UPDATE millrace.outbox SET available_at = now()"))
        assert [due.tries for due in await outbox.take(connection, "m", 10, 30)] == [2]
        await outbox.forget_sent(connection, [(subtask, 1)])
        assert (await workers.outbox_load(connection)).rows == 0


async def test_two_replicas_never_take_the_same_row(engine: AsyncEngine, tenant: UUID) -> None:
    async with engine.begin() as connection:
        await add(connection, tenant, steps=6)
    async with engine.begin() as one, engine.begin() as other:
        mine = {due.subtask for due in await outbox.take(one, "m", 4, 30)}
        meanwhile = {due.subtask for due in await outbox.take(other, "m", 4, 30)}
    async with engine.begin() as other:
        theirs = {due.subtask for due in await outbox.take(other, "m", 4, 30)}
    assert len(mine) == 4
    assert not mine & meanwhile
    assert len(meanwhile | theirs) == 2
    assert not mine & theirs


async def test_somebodys_hundred_parts_stand_behind_everybody_elses_first(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with engine.begin() as connection:
        _, parts = await add(connection, tenant, steps=20, end_user="hog")
        _, questions = await add(connection, tenant, steps=2, end_user="newcomer")
        first = [due.subtask for due in await outbox.take(connection, "m", 2, 30)]
        assert first == [parts[0], questions[0]]
        await subtasks.mark_queued(connection, [(parts[0], 1), (questions[0], 1)])
        second = [due.subtask for due in await outbox.take(connection, "m", 3, 30)]
        assert second == [parts[1], questions[1], parts[2]]


async def test_a_batch_waits_for_the_interactive_but_not_for_ever(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with engine.begin() as connection:
        _, [batch] = await add(connection, tenant, end_user="a", priority=2)
        _, [chat] = await add(connection, tenant, end_user="b")
        assert [due.subtask for due in await outbox.take(connection, "m", 1, -1)] == [chat]
        old = f"now() - interval '{3 * outbox.AGEING_SECONDS} seconds'"
        await connection.execute(
            text(f"UPDATE millrace.outbox SET created_at = {old} WHERE subtask_id = :id"),
            {"id": batch},
        )
        assert [due.subtask for due in await outbox.take(connection, "m", 1, 30)] == [batch]


async def test_a_message_that_the_broker_lost_is_queued_again_once(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with engine.begin() as connection:
        _, [subtask] = await add(connection, tenant)
        await subtasks.mark_queued(connection, [(subtask, 1)])
        await outbox.forget_sent(connection, [(subtask, 1)])
        assert await outbox.republish_forgotten(connection, "m", 60) == []
    async with engine.begin() as connection:
        assert await outbox.republish_forgotten(connection, "m", 0) == [subtask]
    async with engine.begin() as connection:
        assert [due.attempt for due in await outbox.take(connection, "m", 10, 30)] == [1]
