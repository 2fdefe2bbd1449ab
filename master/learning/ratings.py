"""From a rating in Open WebUI to what is stored of it. Pure."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from db.asked import Message
from db.judgements import NewJudgement
from db.models import JudgementKind, JudgementSource
from master.learning.verdicts import person, score_of
from master.openwebui import Rating


def judged(rating: Rating) -> NewJudgement | None:
    """What a rating says of an answer; None if it says nothing."""
    if rating.thumb is None and rating.stars is None and rating.comment is None:
        return None
    given: dict[str, Any] = {"thumb": rating.thumb, "stars": rating.stars}
    said = {name: value for name, value in given.items() if value is not None}
    if rating.tags:
        said["tags"] = list(rating.tags)
    return NewJudgement(
        JudgementKind.HUMAN,
        person(rating.user),
        JudgementSource.OPENWEBUI,
        score=score_of(rating.thumb, rating.stars),
        rating=said,
        reason=rating.reason,
        comment=rating.comment,
    )


def own(rating: Rating, answers: Sequence[tuple[UUID, Message]]) -> list[UUID]:
    """The requests of a message that this rating may judge: its user's own, in its own chat.

    Open WebUI checks neither, so anybody with an account there can name anybody's message. Where
    the chat's header was not sent, its user and the message's id have to do.
    """
    return [
        request
        for request, message in answers
        if message.user == rating.user and message.chat in {None, rating.chat}
    ]
