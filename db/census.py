"""How many there are of what grows slowly: dead subtasks, documents, rules. Of all tenants."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

_DEAD = text("""
    SELECT s.model, count(*) FROM millrace.subtasks s
     WHERE s.state = 'dead' AND s.seen_at IS NULL
       AND NOT EXISTS (SELECT FROM millrace.requests r WHERE r.redriven_from = s.request_id)
     GROUP BY s.model
""")
_DOCUMENTS = text("SELECT state, count(*) FROM millrace.documents GROUP BY state")
_RULES = text("SELECT state, count(*) FROM millrace.rules GROUP BY state")


@dataclass(frozen=True)
class Census:
    """What was counted."""

    dead: Mapping[str, int] = field(default_factory=dict)
    """By model: those that wait for a person's decision."""
    documents: Mapping[str, int] = field(default_factory=dict)
    """By state."""
    rules: Mapping[str, int] = field(default_factory=dict)
    """Versions by state."""


async def take(connection: AsyncConnection) -> Census:
    """Count. Reads all documents, so not too often; wants the owner's connection."""
    return Census(
        dead=await _counted(connection, _DEAD),
        documents=await _counted(connection, _DOCUMENTS),
        rules=await _counted(connection, _RULES),
    )


async def _counted(connection: AsyncConnection, query: TextClause) -> dict[str, int]:
    return {row[0]: row[1] for row in await connection.execute(query)}
