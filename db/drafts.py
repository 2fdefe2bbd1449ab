"""Drafts: chunks of a running document that cannot be found yet.

They outlive an attempt, so the next one goes on where it stopped. Every write is fenced by the
attempt and raises `claims.Fenced`.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

from sqlalchemy import func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from db import claims
from db.collections import DimensionMismatch
from db.corpus import collections, drafts


class Draft(Protocol):
    """What cutting a document gives."""

    @property
    def position(self) -> int:
        """Its place in the document, from 0."""

    @property
    def text(self) -> str:
        """What is embedded and found."""

    @property
    def heading_path(self) -> Sequence[str]:
        """Headings above it, outermost first."""

    @property
    def page(self) -> int | None:
        """Page where it begins, from 1."""


async def replace(
    connection: AsyncConnection, document: UUID, attempt: int, cut: Sequence[Draft]
) -> None:
    """Put these in the place of all drafts of the document. Raises Fenced."""
    held = await claims.hold(connection, document, attempt)
    await connection.execute(drafts.delete().filter_by(document_id=document))
    rows = [
        {
            "document_id": document,
            "tenant_id": held.tenant,
            "position": draft.position,
            "text": draft.text,
            "heading_path": list(draft.heading_path),
            "page": draft.page,
        }
        for draft in cut
    ]
    if rows:
        await connection.execute(insert(drafts), rows)


async def without_vector(
    connection: AsyncConnection, document: UUID, limit: int
) -> list[tuple[int, str]]:
    """(position, text) of drafts that have no vector yet, in order."""
    query = (
        select(drafts.c.position, drafts.c.text)
        .where(drafts.c.document_id == document, drafts.c.embedding.is_(None))
        .order_by(drafts.c.position)
        .limit(limit)
    )
    return [(position, words) for position, words in await connection.execute(query)]


async def counts(connection: AsyncConnection, document: UUID) -> tuple[int, int]:
    """How many drafts there are, and how many of them have a vector."""
    query = select(func.count(), func.count(drafts.c.embedding)).filter_by(document_id=document)
    row = (await connection.execute(query)).one()
    return row[0], row[1]


_PUT = text("""
    UPDATE millrace.drafts d SET embedding = CAST(v.vector AS vector)
      FROM unnest(CAST(:positions AS integer[]), CAST(:vectors AS text[])) AS v(position, vector)
     WHERE d.document_id = :document AND d.position = v.position
""")


async def put_vectors(
    connection: AsyncConnection,
    document: UUID,
    attempt: int,
    vectors: Mapping[int, Sequence[float]],
) -> None:
    """Store vectors by position. Raises Fenced, DimensionMismatch."""
    held = await claims.hold(connection, document, attempt)
    fixed = select(collections.c.dimension).filter_by(id=held.collection_id)
    dimension = (await connection.execute(fixed)).scalar_one()
    if wrong := {len(vector) for vector in vectors.values()} - {dimension}:
        raise DimensionMismatch(
            f"the collection {held.collection} has vectors of {dimension} dimensions, "
            f"these have {', '.join(map(str, sorted(wrong)))}"
        )
    values = {
        "document": document,
        "positions": list(vectors),
        "vectors": [as_text(vector) for vector in vectors.values()],
    }
    await connection.execute(_PUT, values)


def as_text(vector: Sequence[float]) -> str:
    """A vector as pgvector reads it; the cast on the server refuses NaN and infinity."""
    return f"[{','.join(str(float(part)) for part in vector)}]"
