"""What memory needs apart from answers: summaries, written by a model, vectors, and forgetting.

A summary is a stored request of its own, of the lowest priority, that nobody waits for. Any
replica begins it and any replica takes it; the database lets one of them have its way.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from uuid import UUID

import structlog
from pydantic import JsonValue
from sqlalchemy.exc import IntegrityError

from db import conversations, summaries
from db.summaries import Due
from master.exchanges import exchanges_of, summary_of
from master.metrics.loops import Loop
from master.outages import Failures, is_outage
from master.planning.question import Question
from master.planning.summary import summariser, summary_question, to_summarise
from master.recall import Recall
from master.submit import Asker, BrokerAway, Submission, Terms, TooBusy, submit

log = structlog.get_logger(__name__)

_AT_ONCE = 10
_MOST_EXCHANGES = 200
_AGAIN_SECONDS = 300.0

Work = Callable[[], Awaitable[object]]


class Memories:
    """The loop of one replica."""

    def __init__(
        self, submission: Submission, recall: Recall, window: int, forget_late: Work
    ) -> None:
        self._submission = submission
        self._forget_late = forget_late
        self._engine = submission.engine
        self._recall = recall
        self._window = window

    async def run(self, seconds: float) -> None:
        """Work until cancelled, with so long between two looks."""
        works = [
            (work, Failures(Loop.MEMORIES, log))
            for work in (self._forget_late, self.summarise, self._recall.embed_new)
        ]
        while True:
            for work, failures in works:
                try:
                    await work()
                except Exception as error:
                    failures.met(error)
                else:
                    failures.over()
            await asyncio.sleep(seconds)

    async def summarise(self) -> None:
        """Take the summaries that were written, and have those written that are due."""
        async with self._engine.begin() as connection:
            for conversation, state in await summaries.take(connection, _AGAIN_SECONDS):
                log.info("memories.summarised", conversation=str(conversation), state=state)
            due = await summaries.due(connection, _AT_ONCE)
        for one in due:
            try:
                await self._begin(one)
            except (TooBusy, BrokerAway):
                return  # it stays due
            except Exception as error:
                if is_outage(error):
                    raise
                # The others are not to wait for this one.
                log.error("memories.not_summarised", conversation=str(one.id), exc_info=error)
                async with self._engine.begin() as connection:
                    await summaries.fail(connection, one, _AGAIN_SECONDS)

    async def _begin(self, due: Due) -> None:
        summary = summary_of(due.summary)
        model = summariser(self._submission.view.fleet())
        after = summary.until if summary else None
        async with self._engine.connect() as connection:
            stored = await conversations.since(
                connection, due.tenant, due.id, after, _MOST_EXCHANGES, in_words=True
            )
        chosen = to_summarise(exchanges_of(stored), summary, self._window, model) if model else ()
        if model is None or not chosen:
            async with self._engine.begin() as connection:
                await summaries.put_off(connection, due, None)
            return
        covered = int((due.summary or {}).get("exchanges") or 0) + len(chosen)
        note = summaries.note(chosen[-1].at, covered)
        request = await self._ask(due, summary_question(chosen, summary, model), note)
        if request is not None:
            async with self._engine.begin() as connection:
                await summaries.begin(connection, due, request)

    async def _ask(
        self, due: Due, question: Question, note: Mapping[str, JsonValue]
    ) -> UUID | None:
        """The request that writes the summary; None if the conversation is gone."""
        key = f"summary {due.id} {due.since.isoformat()}"
        terms = Terms(
            background=True,
            followed=False,
            note=note,
            idempotency_key=key,
            conversation=due.id,
        )
        who = Asker(due.tenant, due.end_user)
        try:
            return (await submit(self._submission, question, who, terms)).request
        except IntegrityError:
            # Another replica was faster, or this is its second try; or it was deleted.
            async with self._engine.connect() as connection:
                return await summaries.request_named(connection, due.tenant, key)
