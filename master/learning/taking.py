"""Taking ratings of Open WebUI over, inside a transaction: what is new, changed or gone.

Every rating that was seen is remembered with a digest of what it said, whatever became of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from db import judgements, openwebui
from db.judgements import NewJudgement
from db.openwebui import Known
from db.openwebui_tables import Outcome
from master.learning.ratings import judged, own
from master.metrics.learned import count_judgements, openwebui_ratings_total
from master.openwebui import Rating

log = structlog.get_logger(__name__)


@dataclass
class Round:
    """What one round found."""

    seen: int = 0
    """Ratings that were looked at."""
    outcomes: dict[Outcome, int] = field(default_factory=dict)
    """Of those that were new or had changed."""
    withdrawn: int = 0
    """Judgements that are gone, because their ratings are."""
    more: bool = False
    """Some were left to the next round."""


def _changed(rating: Rating) -> int:
    return rating.changed


@dataclass(frozen=True)
class Taking:
    """One transaction of a round."""

    connection: AsyncConnection
    tenant: UUID
    url: str
    round: Round
    outcomes: list[Outcome] = field(default_factory=list)
    judged: list[NewJudgement] = field(default_factory=list)

    def committed(self) -> None:
        """Count what this transaction stored."""
        for outcome in self.outcomes:
            openwebui_ratings_total.labels(outcome.value).inc()
        count_judgements(self.judged)

    async def count(self) -> int:
        """How many ratings are remembered."""
        counts = await openwebui.counted(self.connection, self.tenant, self.url)
        return sum(counts.values())

    async def take(self, ratings: Sequence[Rating]) -> None:
        """Store what is new or changed. Of two about the same, the later change counts."""
        by_id = {rating.id: rating for rating in sorted(ratings, key=_changed)}
        known = await openwebui.known(self.connection, self.tenant, self.url, list(by_id))
        for rating in sorted(by_id.values(), key=_changed):
            self.round.seen += 1
            before = known.get(rating.id)
            if before is None or before.digest != rating.digest:
                await self._judge_anew(rating, before)
            elif before.changed != rating.changed:
                await self._remember(
                    rating, Known(before.digest, rating.changed, before.outcome, before.judgement)
                )

    async def forget(self, id_: str, seen: Known) -> None:
        """A rating is gone."""
        await self._withdraw(id_, seen)
        await openwebui.forget(self.connection, self.tenant, self.url, id_)

    async def _judge_anew(self, rating: Rating, before: Known | None) -> None:
        outcome, judgement = await self._judge(rating)
        outcomes = self.round.outcomes
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        self.outcomes.append(outcome)
        await self._remember(rating, Known(rating.digest, rating.changed, outcome, judgement))
        if before is not None and before.judgement not in {None, judgement}:
            await self._withdraw(rating.id, before)

    async def _judge(self, rating: Rating) -> tuple[Outcome, UUID | None]:
        """Store what it says, where it is of an answer of ours to this user."""
        if rating.kind != "rating":
            return Outcome.OTHER, None
        if rating.message is None:
            return Outcome.UNKNOWN, None
        answers = await openwebui.requests_of(self.connection, self.tenant, rating.message)
        requests = own(rating, answers)
        if not requests:
            outcome = Outcome.FOREIGN if answers else Outcome.UNKNOWN
            warn = log.warning if answers else log.info
            warn(
                f"openwebui.{outcome}",
                feedback=rating.id,
                user=rating.user,
                message=rating.message,
            )
            return outcome, None
        # The rounds of a message's tools end in the answer that was read.
        return await self._store(rating, requests[0])

    async def _store(self, rating: Rating, request: UUID) -> tuple[Outcome, UUID | None]:
        said = judged(rating)
        if said is None:
            return Outcome.UNREADABLE, None
        # The list begins with the latest change, so the earlier one may come later.
        later = await openwebui.made_later(
            self.connection,
            self.tenant,
            self.url,
            rating.id,
            request,
            said.rater,
            rating.changed,
        )
        if later is not None:
            return Outcome.STORED, later
        [(stored, _)] = await judgements.put(self.connection, self.tenant, request, [said])
        self.judged.append(said)
        return Outcome.STORED, stored.id

    async def _remember(self, rating: Rating, seen: Known) -> None:
        await openwebui.remember(self.connection, self.tenant, self.url, rating.id, seen)

    async def _withdraw(self, id_: str, seen: Known) -> None:
        if seen.judgement is not None and await openwebui.withdraw(
            self.connection, self.tenant, self.url, id_, seen.judgement
        ):
            self.round.withdrawn += 1
