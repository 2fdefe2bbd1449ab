"""What `/v1/feedback` takes. Pure."""

from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from db.judgements import NewJudgement
from db.models import JudgementKind, JudgementSource
from master.api.chat_schema import REFUSED
from master.learning.verdicts import score_of

_Id = Annotated[UUID, Field(strict=False)]


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):  # which equals 1
        raise PydanticCustomError("int_type", "must be an integer")
    return value


_Thumb = Annotated[Literal[-1, 1], BeforeValidator(_no_boolean)]


class FeedbackRequest(BaseModel):
    """What a person says of an answer: at least a rating, stars, a comment or a correction.

    It takes the place of what the same person said of the same answer before.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)

    request: _Id = Field(description="As `X-Millrace-Request-Id` named it.")
    subtask: _Id | None = Field(default=None, description="One part of it; none: all of it.")
    rating: _Thumb | None = None
    stars: Annotated[int, Field(ge=1, le=10)] | None = None
    reason: str | None = Field(default=None, max_length=200)
    comment: str | None = Field(default=None, max_length=4000)
    correction: str | None = Field(
        default=None, max_length=100_000, description="What the answer should have been."
    )
    user: str | None = Field(
        default=None,
        max_length=512,
        description="Whose it is, where no header of the front end says so.",
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        said = (self.comment or "").strip() or (self.correction or "").strip()
        if self.rating is None and self.stars is None and not said:
            words = "is required, or stars, a comment or a correction"
            raise PydanticCustomError(REFUSED, "{words}", {"words": words, "field": "rating"})
        return self


def human_judgement(
    body: FeedbackRequest, rater: str, subject: str, source: JudgementSource
) -> NewJudgement:
    """What is stored of a person's feedback."""
    given = {"thumb": body.rating, "stars": body.stars}
    return NewJudgement(
        JudgementKind.HUMAN,
        rater,
        source,
        subject=subject,
        subtask=body.subtask,
        score=score_of(body.rating, body.stars),
        rating={name: value for name, value in given.items() if value is not None},
        reason=body.reason or None,
        comment=body.comment or None,
        correction=body.correction or None,
    )
