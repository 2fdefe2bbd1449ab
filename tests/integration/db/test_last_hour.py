"""What the overview counts of the last hour."""

from collections.abc import Mapping
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import overview, tenants
from db.overview import LastHour
from tests.integration.db.answered_chats import answered, step

Times = tuple[str, float, float | None, float]
"""Kind, start and end after the request came, and between them the first token after the start."""
_REQUEST = text("""
    UPDATE millrace.requests
       SET created_at = now() - make_interval(secs => :began),
           finished_at = now() - make_interval(secs => :ended)
     WHERE id = :id
""")
_SUBTASK = text("""
    UPDATE millrace.subtasks s
       SET started_at = r.created_at + make_interval(secs => :start), first_token_seconds = :token,
           finished_at = r.created_at + make_interval(secs => :end)
      FROM millrace.requests r
     WHERE r.id = :id AND s.request_id = r.id AND s.step = :step
""")


async def asked(connection: AsyncConnection, began: float, ended: float, **steps: Times) -> UUID:
    """A tenant with one completed request that began and ended so many seconds ago."""
    tenant = await tenants.ensure_tenant(connection, str(uuid4()))
    planned = [step(key, kind=kind) for key, (kind, *_) in steps.items()] or [step()]
    request = await answered(connection, tenant, *planned)
    await connection.execute(_REQUEST, {"id": request, "began": began, "ended": ended})
    for key, (_, start, token, end) in steps.items():
        times = {"step": key, "start": start, "token": token, "end": end}
        await connection.execute(_SUBTASK, {"id": request, **times})
    return tenant


async def hour(engine: AsyncEngine, tenant: UUID, longest: float = 900.0) -> LastHour:
    async with engine.connect() as connection:
        return await overview.last_hour(connection, tenant, longest)


async def test_the_first_text_is_that_of_the_answer(engine: AsyncEngine) -> None:
    cases: Mapping[float, Mapping[str, Times]] = {
        4.0: {"one": ("answer", 3, 1, 9), "two": ("answer", 1, 1, 5)},
        7.0: {"one": ("answer", 1, 1, 5), "all": ("synthesis", 6, 1, 9)},
        9.0: {
            "one": ("candidate", 1, 1, 5),
            "two": ("candidate", 1, 1, 6),
            "judge": ("judge", 7, 1, 9),
        },
        10.0: {
            "notes": ("prepare", 1, 1, 2),
            "draft": ("candidate", 2, 1, 5),
            "review": ("judge", 5, 1, 8),
            "revision": ("candidate", 8, 2, 12),
        },
        2.0: {"title": ("task", 1, 1, 3)},
    }
    for expected, steps in cases.items():
        async with engine.begin() as connection:
            tenant = await asked(connection, 60, 40, **steps)
        found = await hour(engine, tenant)
        assert (found.first_text_p50, found.total_p50) == (expected, 20.0), steps


async def test_requests_that_took_hours_count_in_the_minute_of_their_end(
    engine: AsyncEngine,
) -> None:
    async with engine.begin() as connection:
        tenant = await asked(connection, began=4 * 3600, ended=90)
        old = await asked(connection, began=4 * 3600, ended=3700)
    found = await hour(engine, tenant, longest=4 * 3600)
    assert (found.completed, found.minutes[-2].completed) == (1, 1)
    assert found.total_p50 == 4 * 3600 - 90
    assert (await hour(engine, old, longest=4 * 3600)).completed == 0
