"""The same request sent twice is one request: by `Idempotency-Key`, or by Open WebUI's message."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from pydantic import JsonValue
from sqlalchemy.exc import IntegrityError
from starlette.datastructures import Headers

from db import names
from master.api import errors, outages
from master.api.accepting import accept
from master.api.idempotency import body_digest, idempotency_key
from master.live import Live
from master.planning.question import Question
from master.running import Running
from master.submit import Accepted, Asker, Terms

MESSAGE_HEADER = "x-millrace-message-id"


@dataclass(frozen=True)
class Identity:
    """What a client calls its request, and the body that the name stands for."""

    key: str
    digest: bytes


def identity_of(
    headers: Headers, metadata: Mapping[str, str], body: Mapping[str, JsonValue]
) -> Identity | None:
    """The identity of a request that has one. Raises 400 for an unusable key.

    Open WebUI sends a message's id again for the rounds of its tools and to go on with an answer,
    each with another body; so there the body belongs to the name.
    """
    key = idempotency_key(headers, metadata)
    if key is not None:
        return Identity(key, body_digest(body))
    message = headers.get(MESSAGE_HEADER, "")
    if not message or not message.isprintable() or len(message) > 128:
        return None
    digest = body_digest(body)
    return Identity(f"open-webui {message} {digest.hex()[:32]}", digest)


async def accept_once(
    master: Running, question: Question, who: Asker, identity: Identity | None
) -> tuple[Accepted, Live]:
    """Accept a question, or join the one that was accepted under the same name.

    Raises `ApiError`, 422 where the name stands for another body.
    """
    if identity is not None and (known := await _known(master, who, identity)):
        return known
    terms = Terms(idempotency_key=identity.key, body_digest=identity.digest) if identity else None
    try:
        accepted = await accept(master, question, who, terms)
    except IntegrityError:
        # Somebody was faster with the same name.
        known = await _known(master, who, identity) if identity else None
        if known is None:
            raise
        return known
    live = master.streams.open(accepted.request, accepted.plan, dict(accepted.subtasks))
    return accepted, live


async def _known(master: Running, who: Asker, identity: Identity) -> tuple[Accepted, Live] | None:
    with outages.answered():
        async with master.engine.begin() as connection:
            found = await names.find(connection, who.tenant, identity.key)
    if found is None:
        return None
    request, digest = found
    if digest != identity.digest:
        raise errors.idempotency_key_reused()
    return await _join(master, request, who.tenant)


async def _join(master: Running, request: UUID, tenant: UUID) -> tuple[Accepted, Live] | None:
    with outages.answered():
        live = await master.streams.join(request)
    if live is None:
        return None
    return Accepted(request, tenant, live.plan, live.subtasks), live
