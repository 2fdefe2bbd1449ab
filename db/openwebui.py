"""What is known of Open WebUI: how far its ratings were read, and what became of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Text, any_, delete, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from db.asked import Message
from db.openwebui_tables import Outcome, feedback, messages, sources


@dataclass(frozen=True)
class Source:
    """One Open WebUI, and how far its ratings were read."""

    url: str
    watermark: int
    """Seconds of its clock: everything that changed before was seen."""
    page: int | None
    """Where the next round goes on in the list; None: at its beginning."""
    reached: int | None
    """The latest change when that began: the watermark to come."""
    pulled_at: datetime | None
    error: str | None


@dataclass(frozen=True)
class Known:
    """A rating that was seen."""

    digest: bytes
    changed: int
    """Seconds of Open WebUI's clock."""
    outcome: Outcome
    judgement: UUID | None = None


# A row and not an advisory lock: a round is many transactions, and behind a pooler of transactions
# each may be in another session.
_HOLD = text("""
    UPDATE millrace.openwebui_sources
       SET held_by = :round, held_until = now() + make_interval(secs => :seconds)
     WHERE tenant_id = :tenant AND url = :url
       AND (held_by = :round OR held_until IS NULL OR held_until < now())
""")
_LET_GO = text("""
    UPDATE millrace.openwebui_sources SET held_by = NULL, held_until = NULL
     WHERE tenant_id = :tenant AND url = :url AND held_by = :round
""")


async def hold(
    connection: AsyncConnection, tenant: UUID, url: str, round_: UUID, seconds: float
) -> bool:
    """Be the only round that reads this Open WebUI for so long, or longer; False: another is."""
    added = insert(sources).values(tenant_id=tenant, url=url).on_conflict_do_nothing()
    await connection.execute(added)
    values = {"tenant": tenant, "url": url, "round": round_, "seconds": seconds}
    return (await connection.execute(_HOLD, values)).rowcount == 1


async def let_go(connection: AsyncConnection, tenant: UUID, url: str, round_: UUID) -> None:
    """A round is over."""
    await connection.execute(_LET_GO, {"tenant": tenant, "url": url, "round": round_})


async def source(connection: AsyncConnection, tenant: UUID, url: str) -> Source:
    """How far an Open WebUI was read; a new one is added."""
    added = insert(sources).values(tenant_id=tenant, url=url).on_conflict_do_nothing()
    await connection.execute(added)
    query = select(
        sources.c.url,
        sources.c.watermark,
        sources.c.page,
        sources.c.reached,
        sources.c.pulled_at,
        sources.c.error,
    )
    row = (await connection.execute(query.filter_by(tenant_id=tenant, url=url))).one()
    return Source(*row)


async def pulled(connection: AsyncConnection, tenant: UUID, url: str, watermark: int) -> None:
    """Everything up to there was seen."""
    values = {"watermark": watermark, "page": None, "reached": None}
    said = {"pulled_at": func.now(), "error": None}
    query = update(sources).filter_by(tenant_id=tenant, url=url).values(values | said)
    await connection.execute(query)


async def paused(
    connection: AsyncConnection, tenant: UUID, url: str, page: int, reached: int
) -> None:
    """The next round goes on at this page."""
    values = {"page": page, "reached": reached}
    query = update(sources).filter_by(tenant_id=tenant, url=url).values(values)
    await connection.execute(query)


async def failed(connection: AsyncConnection, tenant: UUID, url: str, error: str) -> None:
    """A round was not completed."""
    row = {"tenant_id": tenant, "url": url, "error": error}
    statement = insert(sources).values(row)
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=("tenant_id", "url"), set_={"error": statement.excluded.error}
        )
    )


async def known(
    connection: AsyncConnection, tenant: UUID, url: str, ids: list[str] | None = None
) -> dict[str, Known]:
    """The ratings that were seen of an Open WebUI, by id; all, or those of these ids."""
    query = select(
        feedback.c.feedback_id,
        feedback.c.digest,
        feedback.c.changed,
        feedback.c.outcome,
        feedback.c.judgement_id,
    ).filter_by(tenant_id=tenant, url=url)
    if ids is not None:
        query = query.where(feedback.c.feedback_id == any_(literal(ids, ARRAY(Text))))
    return {
        id_: Known(digest, changed, Outcome(outcome), judgement)
        for id_, digest, changed, outcome, judgement in await connection.execute(query)
    }


async def counted(connection: AsyncConnection, tenant: UUID, url: str) -> Mapping[Outcome, int]:
    """How many ratings of an Open WebUI were seen, by what became of them."""
    query = (
        select(feedback.c.outcome, func.count())
        .filter_by(tenant_id=tenant, url=url)
        .group_by(feedback.c.outcome)
    )
    return {Outcome(outcome): count for outcome, count in await connection.execute(query)}


async def remember(
    connection: AsyncConnection, tenant: UUID, url: str, id_: str, seen: Known
) -> None:
    """Note what became of a rating."""
    row: dict[str, Any] = {
        "tenant_id": tenant,
        "url": url,
        "feedback_id": id_,
        "digest": seen.digest,
        "changed": seen.changed,
        "outcome": seen.outcome,
        "judgement_id": seen.judgement,
    }
    said = {name: row[name] for name in ("digest", "changed", "outcome", "judgement_id")}
    statement = insert(feedback).values(row)
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=("tenant_id", "url", "feedback_id"), set_=said
        )
    )


async def forget(connection: AsyncConnection, tenant: UUID, url: str, id_: str) -> None:
    """A rating is not there any more."""
    query = delete(feedback).filter_by(tenant_id=tenant, url=url, feedback_id=id_)
    await connection.execute(query)


_LATER = text("""
    SELECT j.id FROM millrace.judgements j
      JOIN millrace.openwebui_feedback f ON f.judgement_id = j.id
     WHERE j.tenant_id = :tenant AND j.request_id = :request AND j.kind = 'human'
       AND j.rater = :rater AND j.subject = '' AND f.tenant_id = :tenant
       AND f.changed > :changed AND (f.url, f.feedback_id) <> (:url, :id)
     LIMIT 1
""")


async def made_later(
    connection: AsyncConnection,
    tenant: UUID,
    url: str,
    id_: str,
    request: UUID,
    rater: str,
    changed: int,
) -> UUID | None:
    """The judgement of a request that this person's other rating made, which changed later."""
    values = {"tenant": tenant, "url": url, "id": id_, "request": request, "rater": rater}
    found: UUID | None = await connection.scalar(_LATER, values | {"changed": changed})
    return found


# Only what a rating made: somebody may have said something else through our own API since. And two
# ratings of one message by one user are one judgement, which stays with the other.
_WITHDRAW = text("""
    DELETE FROM millrace.judgements j
     WHERE j.tenant_id = :tenant AND j.id = :judgement AND j.source = 'openwebui'
       AND NOT EXISTS (SELECT FROM millrace.openwebui_feedback f
                        WHERE f.judgement_id = j.id
                          AND (f.tenant_id, f.url, f.feedback_id) <> (:tenant, :url, :id))
""")


async def withdraw(
    connection: AsyncConnection, tenant: UUID, url: str, id_: str, judgement: UUID
) -> bool:
    """Take back the judgement that a rating made; False if it stays."""
    values = {"tenant": tenant, "url": url, "id": id_, "judgement": judgement}
    return (await connection.execute(_WITHDRAW, values)).rowcount == 1


async def requests_of(
    connection: AsyncConnection, tenant: UUID, message: str
) -> list[tuple[UUID, Message]]:
    """The requests that answered a message, the last one first; not erased while this goes on."""
    query = (
        select(
            messages.c.request_id,
            messages.c.user_id,
            messages.c.chat_id,
            messages.c.user_message_id,
        )
        .filter_by(tenant_id=tenant, message_id=message)
        .order_by(messages.c.created_at.desc(), messages.c.request_id)
        .with_for_update(read=True)
    )
    return [
        (request, Message(message, user, chat, question))
        for request, user, chat, question in await connection.execute(query)
    ]
