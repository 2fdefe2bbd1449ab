"""Messages that wait in a work queue, read without losing one, and what each of them is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from bus.peek import give_back, hold
from bus.protocol import Bus, Delivery
from db import reconcile
from db.reconcile import Standing
from queue_schemas import topology
from queue_schemas.codec import KeyRing, UnreadableMessage, decode
from queue_schemas.messages import SUBTASK, SubtaskRequest
from queue_schemas.states import SUBTASK_TERMINAL, SubtaskState

FOREIGN = "its subtask is not in this database"


@dataclass
class Peeked:
    """The messages of a queue, judged."""

    complete: bool
    """Whether all that waited were seen."""
    current: set[tuple[UUID, int]] = field(default_factory=set)
    """(Subtask, attempt) of the messages that are as they should be."""
    orphans: dict[Delivery, SubtaskRequest] = field(default_factory=dict)
    """Their subtask ended or has a newer attempt."""
    foreign: dict[Delivery, SubtaskRequest] = field(default_factory=dict)
    """Their subtask is not in this database."""
    duplicates: dict[Delivery, SubtaskRequest] = field(default_factory=dict)
    unreadable: dict[Delivery, str] = field(default_factory=dict)


async def peek(
    engine: AsyncEngine, bus: Bus, queue: topology.Queue, limit: int, key: KeyRing | None
) -> Peeked:
    """Look at what waits; everything is given back."""
    held = await hold(bus, queue, limit)
    try:
        return await judge(engine, held, key, complete=len(held) < limit)
    finally:
        await give_back(bus, held)


async def judge(
    engine: AsyncEngine, held: Sequence[Delivery], key: KeyRing | None, *, complete: bool
) -> Peeked:
    """What each message is. They are in our hands, so none of them can be started meanwhile."""
    seen = Peeked(complete)
    messages: dict[Delivery, SubtaskRequest] = {}
    for delivery in held:
        try:
            messages[delivery] = decode(SUBTASK, delivery.body, delivery.headers, key)
        except UnreadableMessage as error:
            seen.unreadable[delivery] = str(error)
    async with engine.connect() as connection:
        known = await reconcile.standing(connection, [m.subtask for m in messages.values()])
    for delivery, message in messages.items():
        place = known.get(message.subtask)
        if place is None:
            seen.foreign[delivery] = message
        elif is_over(message, place):
            seen.orphans[delivery] = message
        elif (message.subtask, message.attempt) in seen.current:
            seen.duplicates[delivery] = message
        else:
            seen.current.add((message.subtask, message.attempt))
    return seen


def is_over(message: SubtaskRequest, place: Standing) -> bool:
    """Whether nothing can come of the message any more."""
    return place.state in SUBTASK_TERMINAL or place.attempt > message.attempt


def explain(message: SubtaskRequest, place: Standing | None) -> str:
    """Why a message that was dead-lettered is where it is, for a person."""
    if place is None:
        return FOREIGN
    if place.attempt > message.attempt:
        return f"left over: its subtask is {place.state}, at attempt {place.attempt}"
    if place.state in SUBTASK_TERMINAL:
        return f"its subtask is {place.state}"
    if place.state is SubtaskState.QUEUED:
        return "its subtask is still queued: `millrace reconcile --fix` publishes it again"
    return f"its subtask is {place.state}: the masters go on with it"
