"""The plan of a request: its steps and how their texts become one answer.

A plan is data, stored with the request and shown by `/v1/requests/{id}`.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from master.rules.bandit import Work
from master.rules.rule import UsedRule
from queue_schemas.messages import Passage

PLAN_BROKEN = "plan_broken"
"""The code of work whose stored plan says nothing, or nothing that can be read."""


class PlanUnreadable(Exception):
    """A stored plan says nothing, or nothing that can be read; the message says why."""


class StepKind(StrEnum):
    """What a step is for."""

    ANSWER = "answer"
    """Answers the question or a part of it."""
    PLAN = "plan"
    """Asks a model for the parts; its result is expanded into steps."""
    SYNTHESIS = "synthesis"
    """Merges the answers of other steps."""
    PREPARE = "prepare"
    """Works for the steps after it: a better question, a class, notes."""
    CANDIDATE = "candidate"
    """Answers the question, and is shown if it is chosen."""
    JUDGE = "judge"
    """Says how good other answers are."""
    TASK = "task"
    """A front end's background prompt: title, tags, follow-ups, query."""


class AggregatorName(StrEnum):
    """How the texts of the steps become the answer; see `master/aggregation/`."""

    SINGLE = "single"
    SECTIONS = "sections"
    SYNTHESIS = "synthesis"
    CHOSEN = "chosen"


class Source(BaseModel):
    """A piece of a document that steps were given, under the number that answers cite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    number: int = Field(ge=1)
    chunk: int
    document: UUID
    name: str = Field(description="Of the document, as shown to a person.")
    url: str | None = None
    page: int | None = None
    heading: tuple[str, ...] = ()
    position: int = Field(description="Of the chunk within its document, counted from 0.")
    text: str
    score: float = Field(description="0 to 1, of both legs together.")
    rerank_score: float
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    steps: tuple[str, ...] = Field(description="Keys of the steps that were given it.")

    @property
    def label(self) -> str:
        """What stands above its text: `handbook.pdf, page 3: Leave`."""
        page = f", page {self.page}" if self.page else ""
        heading = f": {' / '.join(self.heading)}" if self.heading else ""
        return f"{self.name}{page}{heading}"


class Retrieved(BaseModel):
    """How the steps' lookups went."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    collection: str
    latency_ms: dict[str, float] = Field(description="By stage, of all lookups together.")
    exact: bool = Field(description="Every vector was compared; no approximate index was used.")
    degraded: tuple[str, ...] = Field(description="Stages that had to do without their model.")


class Step(BaseModel):
    """One subtask to be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = Field(pattern=r"^[a-z0-9-]{1,64}$", description="Unique within the plan.")
    kind: StepKind = StepKind.ANSWER
    title: str = ""
    model: str = Field(description="A name of the registry.")
    messages: tuple[dict[str, JsonValue], ...]
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    passages: tuple[Passage, ...] = ()
    lookup: str = Field(default="", description="What it looks up in documents; empty: nothing.")
    depends_on: tuple[str, ...] = Field(
        default=(), description="Keys of steps whose texts this one is given."
    )
    labels: tuple[str, ...] = Field(
        default=(), description="What those are called, in their order; empty: by their part."
    )
    seconds: float | None = Field(
        default=None,
        gt=0,
        description="Given up if it takes longer, waiting included, once another of its kind has"
        " answered.",
    )
    work: Work | None = Field(
        default=None, description="What a judgement of its answer counts for; none: for nothing."
    )


class JudgementKind(StrEnum):
    """What somebody said of answers."""

    CHOICE = "choice"
    """Which of several is best."""
    REVIEW = "review"
    """Whether a draft is good enough."""
    CHECK = "check"
    """How well an answer answers, by the model itself."""


class Judgement(BaseModel):
    """What a step found of the answers of others."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    step: str = Field(description="Key of the step that judged.")
    kind: JudgementKind
    scores: dict[str, float] = Field(default_factory=dict, description="0 to 100, by step.")
    passed: bool | None = None
    reason: str = Field(default="", description="In the judge's words.")
    problem: str = Field(default="", description="Why it could not be used; empty: it was.")


class Gate(BaseModel):
    """Why a request was split or not, with the estimate that decided."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    split: bool
    reason: str
    expected_speedup: float | None = None
    expected_extra_tokens: int | None = None


class Plan(BaseModel):
    """A DAG of steps. Validated: unique keys, known dependencies, no cycle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: str = Field(description="direct | split | …, the one that was carried out.")
    aggregator: AggregatorName
    steps: tuple[Step, ...] = Field(min_length=1)
    gate: Gate | None = None
    lookup: str = Field(default="", description="What is looked up for steps that are to come.")
    sources: tuple[Source, ...] = Field(default=(), description="In the order of their numbers.")
    retrieved: Retrieved | None = None
    chosen: str = Field(default="", description="Key of the step whose text is the answer.")
    judgements: tuple[Judgement, ...] = ()
    reason: str = Field(default="", description="Why this plan, in one sentence for a person.")
    rules: tuple[UsedRule, ...] = Field(
        default=(), description="Rules that fitted the question, with what became of each."
    )

    @property
    def given(self) -> tuple[Source, ...]:
        """The sources that steps were given; others are kept for steps that may come."""
        return tuple(source for source in self.sources if source.steps)

    @model_validator(mode="after")
    def _is_a_dag(self) -> Self:
        keys = [step.key for step in self.steps]
        if len(set(keys)) != len(keys):
            raise ValueError("two steps have the same key")
        placed: set[str] = set()
        waiting = {step.key: set(step.depends_on) for step in self.steps}
        for key, needs in waiting.items():
            if unknown := needs - set(keys):
                raise ValueError(f"step {key!r} depends on unknown {sorted(unknown)}")
        while waiting:
            free = [key for key, needs in waiting.items() if needs <= placed]
            if not free:
                raise ValueError(f"the steps {sorted(waiting)} depend on each other in a circle")
            placed.update(free)
            for key in free:
                del waiting[key]
        return self


def read_plan(stored: Mapping[str, Any]) -> Plan:
    """A plan as it is stored. Raises PlanUnreadable."""
    try:
        return Plan.model_validate(stored)
    except ValidationError as error:
        raise PlanUnreadable(f"the plan cannot be read: {error.errors()[0]['msg']}") from error
