"""A rule: one small, readable change to how questions are answered, and where it holds.

Its versions never change; only their state does. What a version says is data, so that a person
can read it, a workflow can propose it and a test can try it.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

RULE_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
_Words = Annotated[str, Field(min_length=1, max_length=100)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RuleKind(StrEnum):
    """What a rule changes."""

    PROMPT = "prompt"
    """What the models that answer are told beside the question."""
    ROUTE = "route"
    """Which model or which strategy answers, where the client leaves it to Millrace."""
    SPLIT = "split"
    """Whether and into how many parts a question is split."""
    RETRIEVAL = "retrieval"
    """How much is looked up in documents."""


class PromptChange(_Frozen):
    """Words for the models that answer."""

    kind: Literal[RuleKind.PROMPT]
    text: str = Field(min_length=1, max_length=2_000)


class RouteChange(_Frozen):
    """A model of the registry, or a strategy; one of the two."""

    kind: Literal[RuleKind.ROUTE]
    model: str | None = Field(default=None, min_length=1, max_length=256)
    strategy: str | None = Field(default=None, min_length=1, max_length=64)

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.model is None) == (self.strategy is None):
            raise ValueError("a route names a model or a strategy, one of the two")
        return self


class SplitChange(_Frozen):
    """Whether `auto` splits, and the most parts there may be."""

    kind: Literal[RuleKind.SPLIT]
    split: bool | None = None
    max_parts: int | None = Field(default=None, ge=2, le=16)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.split is None and self.max_parts is None:
            raise ValueError("a split rule says split or max_parts")
        return self


class RetrievalChange(_Frozen):
    """How many sources a step is given, and how many candidates are looked at for them."""

    kind: Literal[RuleKind.RETRIEVAL]
    top: int | None = Field(default=None, ge=1, le=50)
    candidates: int | None = Field(default=None, ge=1, le=200)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.top is None and self.candidates is None:
            raise ValueError("a retrieval rule says top or candidates")
        return self


Change = Annotated[
    PromptChange | RouteChange | SplitChange | RetrievalChange, Field(discriminator="kind")
]


class Scope(_Frozen):
    """Where a rule holds: all that is named must fit; nothing named: everywhere."""

    strategy: str | None = Field(
        default=None, max_length=64, description="As asked for: auto, split, rag, …, or direct."
    )
    model: str | None = Field(
        default=None, max_length=256, description="The model that answers, as the registry has it."
    )
    topic: tuple[_Words, ...] = Field(
        default=(), max_length=20, description="Words; the question has at least one of them."
    )


class Arm(StrEnum):
    """What became of a rule that fits a question."""

    ACTIVE = "active"
    """Applied, as always."""
    CANARY = "canary"
    """Applied, on trial."""
    CONTROL = "control"
    """Left out, to compare with."""
    SHADOW = "shadow"
    """Left out; only counted."""


class UsedRule(_Frozen):
    """A version of a rule that fitted a question, as the answer's plan and record have it."""

    id: UUID = Field(description="Of the version.")
    name: str = Field(pattern=RULE_NAME)
    version: int = Field(ge=1)
    arm: Arm
    model: str | None = Field(default=None, description="Holds only where this model answers.")
    kind: RuleKind
    change: Change | None = Field(
        default=None, description="What it says; nothing where it was left out."
    )

    @property
    def applies(self) -> bool:
        """Whether the answer was changed by it."""
        return self.arm in {Arm.ACTIVE, Arm.CANARY}

    @property
    def kept(self) -> Self:
        """As a plan keeps it: what was left out may be many rules, and changed nothing."""
        return self if self.applies else self.model_copy(update={"change": None})
