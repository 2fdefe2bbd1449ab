"""The same request sent twice is one request: by `Idempotency-Key`, or by Open WebUI's message.

And the same question may have an answer already, where the client takes one that is not too old.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from pydantic import JsonValue
from sqlalchemy.exc import IntegrityError
from starlette.datastructures import Headers

from db import asked, names
from db.asked import Message
from master.api import errors, outages
from master.api.accepting import accept
from master.api.conversing import placed, undone, within
from master.api.idempotency import body_digest, idempotency_key
from master.api.messages import message_id
from master.live import Live
from master.metrics import learned
from master.planning.question import Question
from master.planning.remembered import Wish
from master.planning.strategies import FROM_DOCUMENTS, named
from master.planning.under_rules import asked_of
from master.rules.matching import RuleInForce, steady
from master.rules.rule import RouteChange
from master.running import Running
from master.submit import Accepted, Asker, Terms
from queue_schemas.registry import RESERVED_PREFIX


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
    message = message_id(headers)
    if message is None:
        return None
    digest = body_digest(body)
    return Identity(f"open-webui {message} {digest.hex()[:32]}", digest)


@dataclass(frozen=True)
class Memory:
    """What was asked, and how old an answer to it may be."""

    digest: bytes
    seconds: float
    rules: tuple[RuleInForce, ...] = ()
    """Those in force, among them those that the digest knows."""


async def memory_in(
    master: Running, question: Question, who: Asker, seconds: float
) -> Memory | None:
    """What to remember a question by, under the rules in force. Raises 503 where they are away."""
    if seconds <= 0:
        return None
    with outages.answered():
        rules = await master.rulebook.in_force(who.tenant)
    return memory_of(question, seconds, rules)


def memory_of(
    question: Question, seconds: float, rules: tuple[RuleInForce, ...] = ()
) -> Memory | None:
    """What to remember a question by; None where its answer must be a new one.

    Model, messages and parameters, as they came, and the rules that apply. What looks something up
    in documents is answered anew: they may have changed. So is what a rule on trial fits, where
    one answer says nothing of the next.
    """
    if seconds <= 0 or named(question).retrieval is not None:
        return None
    under = asked_of(question)
    applying = steady(rules, under) if under else ()
    if applying is None or any(_looks_up(rule) for rule in applying):
        return None
    asked: dict[str, JsonValue] = {
        "model": question.model,
        "messages": list(question.messages),
        "parameters": dict(question.parameters),
        "task": question.task,
    }
    if applying:
        asked["rules"] = [*sorted(str(rule.id) for rule in applying)]
    return Memory(body_digest(asked), seconds, rules)


def _looks_up(rule: RuleInForce) -> bool:
    return isinstance(rule.change, RouteChange) and rule.change.strategy in FROM_DOCUMENTS


async def accept_once(
    master: Running,
    question: Question,
    who: Asker,
    identity: Identity | None,
    memory: Memory | None = None,
    message: Message | None = None,
    wish: Wish | None = None,
) -> tuple[Accepted, Live]:
    """Accept a question, or join the one that was accepted under the same name or has the answer.

    Raises `ApiError`, 422 where the name stands for another body.
    """
    if identity is not None and (known := await _known(master, who, identity)):
        return (await placed(master, known[0]), known[1]) if wish else known
    question = await within(master, question, who, wish)
    served = master.registry().get(question.model) or question.model.startswith(RESERVED_PREFIX)
    if memory is not None and served and (known := await _remembered(master, who, memory, message)):
        return known
    terms = Terms(
        idempotency_key=identity.key if identity else None,
        body_digest=identity.digest if identity else None,
        cache_digest=memory.digest if memory else None,
        rules=memory.rules if memory else None,
        message=message,
    )
    try:
        async with undone(master, question, who.tenant, wish):
            accepted = await accept(master, question, who, terms)
    except IntegrityError:
        # Somebody was faster with the same name.
        known = await _known(master, who, identity) if identity else None
        if known is None:
            raise
        return (await placed(master, known[0]), known[1]) if wish else known
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


async def _remembered(
    master: Running, who: Asker, memory: Memory, message: Message | None
) -> tuple[Accepted, Live] | None:
    with outages.answered():
        async with master.engine.connect() as connection:
            asked_before = message.question if message else None
            found = await names.remembered(
                connection, who.tenant, memory.digest, memory.seconds, asked_before
            )
    if found and message is not None:
        await _note(master, who.tenant, found, message)
    joined = await _join(master, found, who.tenant) if found else None
    learned.cache_total.labels("yes" if joined else "no").inc()
    if joined is None:
        return None
    accepted, live = joined
    return replace(accepted, cached=True), live


async def _note(master: Running, tenant: UUID, request: UUID, message: Message) -> None:
    """Let a remembered answer be rated by who is given it now."""
    with outages.answered():
        async with master.engine.begin() as connection:
            await asked.note(connection, tenant, request, message)


async def _join(master: Running, request: UUID, tenant: UUID) -> tuple[Accepted, Live] | None:
    with outages.answered():
        live = await master.streams.join(request)
    if live is None:
        return None
    return Accepted(request, tenant, live.plan, live.subtasks), live
