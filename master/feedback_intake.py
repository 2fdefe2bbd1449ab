"""Intake: feedback that was stored in the inbox becomes judgements, or is refused with a reason.

The inbox is the truth. A message on `feedback` only says where to look, so it may be lost, doubled
or made up: the inbox is looked through from time to time, and what is found is verified as if it
had come to `/v1/feedback`.
"""

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from pydantic_core import from_json
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bus.protocol import Bus, BusError, Delivery, quarantine
from db import inbox, judgements, openwebui, requests, tenants
from db.inbox import Note
from db.judgements import NewJudgement
from db.models import JudgementSource
from db.n8n_tables import NoteSource, NoteState
from db.tenancy import enter
from master.api.bodies import parsed, unknown_fields, warn_of
from master.api.errors import ApiError
from master.api.feedback import check_may_judge, subject_of
from master.api.feedback_shapes import FeedbackRequest, human_judgement
from master.learning.ratings import judged, own
from master.learning.verdicts import person
from master.metrics.learned import count_judgements
from master.metrics.loops import Loop
from master.openwebui import rating_of
from master.outages import Failures, is_outage, said
from queue_schemas import topology
from queue_schemas.codec import UnreadableMessage, decode
from queue_schemas.messages import FEEDBACK

log = structlog.get_logger(__name__)

_PREFETCH = 50
_AT_ONCE = 100
_OLDER_SECONDS = 5.0
"""So long a note is left to the message that says it is there."""


class Refused(Exception):
    """The note is no judgement; the text is a code that says why."""

    def __init__(self, code: str, *, later: bool = False) -> None:
        super().__init__(code)
        self.later = later
        """It may be one when the answer has ended."""


@dataclass(frozen=True)
class Intake:
    """The consumer of `feedback` on one replica, and its look through the inbox."""

    engine: AsyncEngine
    bus: Bus
    seconds: float
    """Between two looks."""

    async def run(self) -> None:
        """Take in until cancelled."""
        failures = Failures(Loop.INTAKE, log)
        consumer = await self.bus.consume(topology.FEEDBACK, self._receive, prefetch=_PREFETCH)
        try:
            while True:
                await asyncio.sleep(self.seconds)
                try:
                    await self.look_through()
                except Exception as error:
                    failures.met(error)
                else:
                    failures.over()
        finally:
            await consumer.cancel()

    async def _receive(self, delivery: Delivery) -> None:
        try:
            # No key: whoever makes a message up only has the inbox looked into.
            message = decode(FEEDBACK, delivery.body, delivery.headers)
            if not await self.take(message.note):
                raise UnreadableMessage("there is no such note")
        except UnreadableMessage as error:
            log.warning("intake.unreadable", reason=str(error))
            await self._put_aside(delivery, str(error))
            return
        except Exception as error:
            if not is_outage(error):
                raise
            log.warning("intake.put_off", error=said(error))  # the note waits in the inbox
        await delivery.ack()

    async def _put_aside(self, delivery: Delivery, reason: str) -> None:
        try:
            await quarantine(self.bus, delivery, reason)
        except BusError:
            await delivery.retry()

    async def look_through(self) -> int:
        """Take in what waits and nobody spoke of; returns how many notes."""
        after: UUID | None = None
        seen = 0
        while True:
            async with self.engine.connect() as connection:
                waiting = await inbox.waiting(
                    connection, older_seconds=_OLDER_SECONDS, after=after, limit=_AT_ONCE
                )
            for note in waiting:
                await self._take_alone(note)
            seen += len(waiting)
            if len(waiting) < _AT_ONCE:
                return seen
            after = waiting[-1]

    async def _take_alone(self, note: UUID) -> None:
        """One that nobody can take in waits on, and keeps no other waiting."""
        try:
            await self.take(note)
        except Exception as error:
            if is_outage(error):
                raise
            log.error("intake.failed", note=str(note), exc_info=error)

    async def take(self, note: UUID) -> bool:
        """Verify and store one note; False if there is none of this id."""
        stored: list[NewJudgement] = []
        async with self.engine.begin() as connection:
            held = await inbox.hold(connection, note)
            if held is None:
                return await inbox.is_known(connection, note)
            try:
                async with connection.begin_nested():
                    stored.append(await _STORE[held.source](connection, held))
            except Refused as refusal:
                state = NoteState.WAITING if refusal.later else NoteState.REFUSED
                await inbox.settle(connection, note, state, problem=str(refusal))
                if not refusal.later:
                    log.warning("intake.refused", note=str(note), problem=str(refusal))
            except DBAPIError as error:
                if is_outage(error):
                    raise
                log.error("intake.not_stored", note=str(note), exc_info=error)
                refused = NoteState.REFUSED
                await inbox.settle(connection, note, refused, problem="database_refuses_it")
        count_judgements(stored)
        return True


def _opened(held: Note) -> dict[str, Any]:
    """What a note says. Raises Refused."""
    try:
        note: dict[str, Any] = from_json(held.note)
    except ValueError as error:  # a number of some thousand digits, or too much in each other
        raise Refused("unreadable") from error
    return note


async def _store_feedback(connection: AsyncConnection, held: Note) -> NewJudgement:
    """A body of `/v1/feedback`, whose tenant is the one that asked. Raises Refused."""
    note = _opened(held)
    try:
        warn_of(unknown_fields(note, FeedbackRequest), strict=True)
        body = parsed(FeedbackRequest, note)
        end_user = body.user[:256] if body.user else None
        tenant = await inbox.tenant_of(connection, body.request)
        stored = await requests.find(connection, body.request, tenant) if tenant else None
        check_may_judge(stored, end_user)
        subject = await subject_of(connection, body)
    except ApiError as error:
        raise Refused(error.code, later=error.code == "not_ended") from error
    if tenant is None:
        raise Refused("not_found")
    said = human_judgement(body, person(end_user), subject, JudgementSource.API)
    stored_as = NoteState.STORED
    await inbox.settle(connection, held.id, stored_as, tenant=tenant, request=body.request)
    await enter(connection, tenant)
    await judgements.put(connection, tenant, body.request, [said])
    return said


async def _store_rating(connection: AsyncConnection, held: Note) -> NewJudgement:
    """A rating as Open WebUI has it, of a message of ours to the same user. Raises Refused."""
    rating = rating_of(_opened(held))
    if rating is None or rating.kind != "rating" or rating.message is None:
        raise Refused("no_rating")
    said = judged(rating)
    if said is None:
        raise Refused("says_nothing")
    foreign = False
    for tenant in (await tenants.by_name(connection)).values():
        answers = await openwebui.requests_of(connection, tenant, rating.message)
        if mine := own(rating, answers):
            stored_as = NoteState.STORED
            await inbox.settle(connection, held.id, stored_as, tenant=tenant, request=mine[0])
            await enter(connection, tenant)
            await judgements.put(connection, tenant, mine[0], [said])
            return said
        foreign = foreign or bool(answers)
    raise Refused("other_user" if foreign else "unknown_message")


_STORE = {NoteSource.WEBHOOK: _store_feedback, NoteSource.OPENWEBUI: _store_rating}
