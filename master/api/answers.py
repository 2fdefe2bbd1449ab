"""What the routes answer with, for the OpenAPI document; nothing is serialised by these."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from db.models import JudgementKind, JudgementSource
from master.planning.plan import AggregatorName, Gate, Judgement, Retrieved
from master.rules.rule import UsedRule
from queue_schemas.states import RequestState, SubtaskState


class ModelEntry(BaseModel):
    """A model or a strategy that a chat may name."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    """`/v1/models`."""

    object: Literal["list"]
    data: list[ModelEntry]


class WorkerEntry(BaseModel):
    """A worker that was heard of lately."""

    name: str
    model: str
    provider: str
    slots: int
    running: int
    state: Literal["live", "draining"]
    up_seconds: float
    last_seen_seconds: float
    host: str
    release: str


class WorkerList(BaseModel):
    """`/v1/workers`."""

    object: Literal["list"]
    data: list[WorkerEntry]


class QueueEntry(BaseModel):
    """One model's queue at the broker and in the database."""

    model: str
    queue: str
    ready: int | None = Field(description="Null: there is no such queue, or nobody can say.")
    consumers: int | None
    db_ready: int
    db_delayed: int = Field(description="Pausing before their next try; in no other number.")
    db_queued: int
    db_running: int
    window: int = Field(description="The most that may be on the queue at once.")
    min_workers: int = Field(description="That are kept, by whoever scales.")
    max_workers: int


class QueueList(BaseModel):
    """`/v1/queues`."""

    object: Literal["list"]
    data: list[QueueEntry]
    broker_answers: bool = Field(
        description="False: `ready` and `consumers` are not known; all else is the database's."
    )


class Health(BaseModel):
    """`/health`."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """`/ready`: `ok`, or what is wrong, by what was looked at."""

    status: Literal["ready", "not_ready"]
    checks: dict[str, str]


class CancelledRequest(BaseModel):
    """The state of a request after it was asked to stop."""

    id: str
    object: Literal["request"]
    state: RequestState


class RetriedRequest(BaseModel):
    """The request that does a failed one again."""

    id: str
    object: Literal["request"]
    retry_of: str
    fresh: bool = Field(description="False: it had been made before.")


class ListedRecord(BaseModel):
    """A request, as a list shows it."""

    id: str
    object: Literal["request"]
    state: RequestState
    model: str
    strategy: str
    user: str | None
    question: str | None = Field(
        description="Its first line, without documents that came with it, or what a front end's "
        "background prompt is for; null: it was deleted."
    )
    error: str | None = Field(description="Code of what went wrong.")
    created_at: str
    started_at: str | None
    finished_at: str | None
    seconds: float = Field(description="From its beginning to its end, or until now.")
    subtasks: int
    ended: int = Field(description="Subtasks that have ended, however.")
    tokens: int = Field(description="Of all executions that have ended.")
    task: str | None = Field(description="A front end's background prompt, by its name.")
    score: float | None = Field(description="0 to 1: what a person gave the answer last.")


class RequestList(BaseModel):
    """`GET /v1/requests`: the newest first."""

    object: Literal["list"]
    data: list[ListedRecord]
    first_id: str | None
    last_id: str | None
    has_more: bool


class SeamRecord(BaseModel):
    """Where another engine of the same model went on with a text that one had begun."""

    offset: int = Field(description="Code points of the subtask's text before it.")
    provider: str
    code: str = Field(description="Why the one before broke off.")


class AttemptRecord(BaseModel):
    """One execution that ended, whether it counted or not."""

    attempt: int
    worker: str
    outcome: str
    applied: bool
    error: dict[str, Any] | None
    prompt_tokens: int
    completion_tokens: int
    estimated: bool
    engine_seconds: float
    load_seconds: float
    first_token_seconds: float | None
    seams: list[SeamRecord]
    finished_at: str | None


class SubtaskRecord(BaseModel):
    """One model call of a request."""

    id: str
    step: str
    kind: str
    title: str
    state: SubtaskState
    model: str
    worker: str | None
    attempt: int
    ready_at: str | None = Field(
        description="Since when it could have begun; ahead during a pause before its next try."
    )
    queued_at: str | None = Field(description="When the broker had it.")
    started_at: str | None
    finished_at: str | None
    queue_seconds: float | None
    first_token_seconds: float | None
    total_seconds: float | None
    prompt_tokens: int
    completion_tokens: int
    engine_seconds: float
    cost: float
    text: str | None = Field(description="Of steps whose text need not be in the answer.")
    error: dict[str, Any] | None
    attempts: list[AttemptRecord]


class QueuePlace(BaseModel):
    """Where a request waits for its model; position 1 is the next to start."""

    position: int
    expected_start_seconds: float | None
    workers: int = Field(description="That take subtasks of the model; 0: one has to start first.")


class CitedSentence(BaseModel):
    """A sentence of an answer, who said it, and the pieces of documents that it cites."""

    sentence: str
    subtask: str
    step: str
    model: str
    sources: list[dict[str, Any]]
    unknown: list[int] = Field(description="Numbers that no source has.")


class JudgementRecord(BaseModel):
    """What a person, a judge or a client made of an answer."""

    id: str
    object: Literal["judgement"]
    request: str
    subtask: str | None
    kind: JudgementKind
    rater: str = Field(description="`user:<id>` of a person, `step:<key>` of a judge, `system`.")
    subject: str = Field(description="Key of the step that was judged; empty: the whole answer.")
    score: float | None = Field(description="0 to 1; null: nothing that is a number was said.")
    rating: dict[str, Any] = Field(description="As it was given: thumb, stars, scores, passed.")
    reason: str | None
    comment: str | None
    correction: str | None
    source: JudgementSource
    created_at: str
    updated_at: str


class JudgementList(BaseModel):
    """`GET /v1/feedback`."""

    object: Literal["list"]
    data: list[JudgementRecord]
    has_more: bool = Field(description="There are more than are listed.")


class PlanRecord(BaseModel):
    """How a request was to be answered, and why so."""

    strategy: str
    aggregator: AggregatorName
    reason: str
    gate: Gate | None
    steps: list[dict[str, Any]]
    chosen: str | None = Field(description="Key of the step whose text is the answer.")
    judgements: list[Judgement]
    rules: list[UsedRule] = Field(description="That fitted it, with what became of each.")


class RequestRecord(BaseModel):
    """State, plan, subtasks, times, tokens and cost of a request."""

    id: str
    object: Literal["request"]
    state: RequestState
    model: str
    strategy: str
    reason: str
    created_at: str
    started_at: str | None
    finished_at: str | None
    deadline_at: str
    queue: QueuePlace | None = Field(default=None, description="Only while it waits.")
    conversation: str | None
    remembered: dict[str, Any] | None = Field(
        description="What was put before the messages of the client; see docs/conversations.md."
    )
    plan: PlanRecord
    subtasks: list[SubtaskRecord]
    sources: list[dict[str, Any]] = Field(description="What was found in documents for it.")
    citations: list[CitedSentence]
    retrieved: Retrieved | None = Field(description="How looking up went; null: nothing was.")
    usage: dict[str, Any]
    measured: dict[str, Any]
    finish_reason: str | None
    error: dict[str, Any] | None
    judgements: list[JudgementRecord] = Field(description="The first hundred.")
    answer: str | None


class TokenCounts(BaseModel):
    """What an answer cost."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AssistantMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class CompletionChoice(BaseModel):
    """The one choice."""

    index: int
    message: AssistantMessage
    logprobs: Any
    finish_reason: str


class ChatCompletion(BaseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: TokenCounts


class ModelResponse(BaseModel):
    """A response, whatever its state; OpenAI's object."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None = None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    conversation: dict[str, Any] | None = None
    model: str
    output: list[dict[str, Any]]
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: str | None
    temperature: float | None
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_p: float | None
    usage: dict[str, Any] | None


class InputItemList(BaseModel):
    """Items that a response was made from."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedResponse(BaseModel):
    """A response that can no longer be retrieved."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]
