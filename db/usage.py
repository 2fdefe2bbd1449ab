"""What was spent, from the ledger of executions."""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


class By(StrEnum):
    """What the lines of a bill stand for."""

    TENANT = "tenant"
    MODEL = "model"
    USER = "user"
    DAY = "day"


class Fate(StrEnum):
    """What became of an execution."""

    ANSWERED = "answered"
    """Its text is the text of record."""
    FAILED = "failed"
    """It failed; another attempt or an error followed."""
    CANCELLED = "cancelled"
    """It was told to stop."""
    LATE = "late"
    """It ended well, after somebody else's result or after the end of its request."""


@dataclass(frozen=True)
class Spent:
    """The sum of the executions of one line, model and fate."""

    key: str
    model: str
    fate: Fate
    executions: int
    prompt_tokens: int
    completion_tokens: int
    engine_seconds: Decimal


_DAY = "(a.finished_at AT TIME ZONE 'UTC')::date"
_KEYS = {
    # What a line is called, and what it is grouped by.
    By.TENANT: ("t.name", "t.name"),
    By.MODEL: ("a.model", "a.model"),
    By.USER: ("coalesce(q.end_user, '')", "coalesce(q.end_user, '')"),
    By.DAY: (f"{_DAY}::text", _DAY),
}
_OF_USERS = """
          JOIN millrace.subtasks s ON s.id = a.subtask_id
          JOIN millrace.requests q ON q.id = s.request_id
"""
# Sums of numeric are exact, whatever the order.
_SPENT = {
    by: text(f"""
        SELECT {key} AS key, a.model,
               CASE WHEN a.outcome = 'completed' AND a.applied THEN 'answered'
                    WHEN a.outcome = 'completed' THEN 'late'
                    WHEN a.outcome = 'cancelled' THEN 'cancelled' ELSE 'failed' END AS fate,
               count(*) AS executions, sum(a.prompt_tokens) AS prompt_tokens,
               sum(a.completion_tokens) AS completion_tokens,
               sum(a.engine_seconds::numeric) AS engine_seconds
          FROM millrace.attempts a {_OF_USERS if by is By.USER else ""}
          JOIN millrace.tenants t ON t.id = a.tenant_id
         WHERE a.finished_at > now() - make_interval(secs => :since)
           AND (CAST(:tenant AS text) IS NULL OR t.name = :tenant)
         GROUP BY {group}, a.model, 3 ORDER BY 1, 2, 3
    """)
    for by, (key, group) in _KEYS.items()
}


async def spent(
    connection: AsyncConnection, by: By, since_seconds: float, tenant: str | None = None
) -> list[Spent]:
    """What was spent in the last so many seconds, by line, model and fate."""
    values = {"since": since_seconds, "tenant": tenant}
    return [_spent(row) for row in (await connection.execute(_SPENT[by], values)).mappings()]


def _spent(row: Any) -> Spent:
    return Spent(**{**row, "fate": Fate(row["fate"])})
