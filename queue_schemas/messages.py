"""Every message on the wire, version 1.

Messages are frozen and ignore unknown fields, so that a newer writer does not break an older
reader. Additions stay in version 1 and need a default; a breaking change is a new class on a new
queue name. Golden files under `tests/golden/` hold one JSON of each version ever shipped.
"""

from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

Version = Literal[1]


class Message(BaseModel):
    """What all messages share."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    version: Version = 1


class Passage(Message):
    """A piece of text that an answer may quote, as `[number]`."""

    number: int = Field(ge=1, description="The citation mark, counted from 1 within the request.")
    source: str = Field(description="Where it comes from, as shown to a person.")
    text: str


class SubtaskRequest(Message):
    """One model call to make, on `subtasks.<slug>`. Persistent and confirmed."""

    type: Literal["subtask"] = "subtask"
    request: UUID
    subtask: UUID
    attempt: int = Field(ge=1, description="Numbered by the master; one more for each retry.")
    tenant: UUID
    step: str = Field(description="The step's key in its plan, for example `part-2`.")
    model: str = Field(description="The model's name in the registry.")
    messages: tuple[dict[str, JsonValue], ...] = Field(description="OpenAI chat messages.")
    parameters: dict[str, JsonValue] = Field(
        default_factory=dict, description="OpenAI sampling parameters, passed on as they came."
    )
    passages: tuple[Passage, ...] = Field(
        default=(), description="For engines that answer from passages instead of a prompt."
    )
    shown: str = Field(
        default="", description="Text the client has already seen; the answer goes on from it."
    )
    seed: int = Field(description="So that a redelivered subtask generates the same text again.")
    timeout_seconds: float = Field(gt=0, description="Bound of one execution, engine time.")
    reply_to: str | None = Field(
        default=None, description="The tokens queue of the replica that streams the request."
    )


class Started(Message):
    """An execution began: the claim. On `workers`, and on the tokens queue of the streamer.

    May be lost on `workers`: the next heartbeat names the execution too.
    """

    type: Literal["started"] = "started"
    request: UUID
    subtask: UUID
    attempt: int = Field(ge=1)
    execution: UUID = Field(description="Fresh for every delivery that a worker takes up.")
    delivery: int = Field(ge=0, description="How often the broker had delivered it before.")
    worker: str


class Channel(StrEnum):
    """Which text of an answer a chunk belongs to. Offsets count within a channel."""

    CONTENT = "content"
    REASONING = "reasoning"


class TokenChunk(Message):
    """A piece of text while it is generated. On `tokens.<master>`; may be lost."""

    type: Literal["chunk"] = "chunk"
    request: UUID
    subtask: UUID
    attempt: int = Field(ge=1)
    execution: UUID
    delivery: int = Field(ge=0)
    channel: Channel = Channel.CONTENT
    offset: int = Field(ge=0, description="Characters (code points) before this text.")
    thought: int = Field(
        default=0, ge=0, description="Characters of reasoning that go before this content."
    )
    text: str


class Notice(Message):
    """Collect tells the replica that streams a request to look at the database again."""

    type: Literal["notice"] = "notice"
    request: UUID


class ErrorKind(StrEnum):
    """What the master may do about a failure; see `master/retry.py`."""

    TRANSIENT = "transient"
    """May work at once on another try: engine busy, connection cut, model still loading."""
    PERMANENT = "permanent"
    """Will fail again: bad input, unknown model, context too long."""
    POISON = "poison"
    """Harms the worker that runs it: engine crashed, out of memory."""


class Usage(Message):
    """What an execution cost. Also sent for failed and cancelled executions."""

    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    estimated: bool = Field(default=False, description="Counted by us; the engine gave none.")
    engine_seconds: float = Field(default=0.0, ge=0, description="Time the engine was held.")
    load_seconds: float = Field(default=0.0, ge=0, description="Model loading within that.")
    first_token_seconds: float | None = Field(
        default=None, description="From Started to the first text; none when there was no text."
    )


class Seam(Message):
    """Where another engine of the same model went on with a text that one had begun."""

    offset: int = Field(ge=0, description="Code points of the content before it.")
    provider: str = Field(description="Who went on, for example `ollama:llama3.2:3b`.")
    code: str = Field(description="Why the one before broke off, as in Failed.")


class Outcome(Message):
    """What both results share: the fencing identity and the bill."""

    request: UUID
    subtask: UUID
    attempt: int = Field(ge=1)
    execution: UUID
    delivery: int = Field(
        default=0, ge=0, description="As in Started, which a result may well overtake."
    )
    worker: str
    usage: Usage = Usage()
    seams: tuple[Seam, ...] = Field(default=(), description="Of this execution, in text order.")


class Completed(Outcome):
    """An execution succeeded. On `results`; the text of record."""

    status: Literal["completed"] = "completed"
    text: str
    reasoning: str = ""
    tool_calls: tuple[dict[str, JsonValue], ...] = ()
    logprobs: JsonValue = None
    finish_reason: str = Field(description="stop | length | tool_calls | content_filter")


CANCELLED = "cancelled"
"""The `code` of an execution that was told to stop."""


class Failed(Outcome):
    """An execution failed. The worker never retries; the master decides."""

    status: Literal["failed"] = "failed"
    kind: ErrorKind
    code: str = Field(description="A stable word, for example `engine_busy`.")
    message: str
    text: str = Field(default="", description="What had been generated until then.")
    retry_after_seconds: float | None = None


class Cancel(Message):
    """Abort running executions and drop waiting ones. Fanned out on `control`."""

    type: Literal["cancel"] = "cancel"
    subtasks: tuple[UUID, ...]
    execution: UUID | None = Field(
        default=None, description="Only this execution; none means whichever runs."
    )


class Resend(Message):
    """Ask whoever runs a subtask to send its text again from an offset. On `control`."""

    type: Literal["resend"] = "resend"
    subtask: UUID
    offset: int = Field(ge=0, description="Of the content channel.")
    reasoning: int | None = Field(
        default=None, ge=0, description="Of the reasoning channel; none leaves it out."
    )
    to: str = Field(description="The tokens queue to send to from now on.")


class Drain(Message):
    """Stop taking subtasks, finish what runs, exit. On `control`."""

    type: Literal["drain"] = "drain"
    worker: str | None = Field(default=None, description="None means every worker.")


class RunningSubtask(Message):
    """One line of a heartbeat: a lease to renew, or a claim whose Started was lost."""

    request: UUID
    subtask: UUID
    attempt: int = Field(ge=1)
    execution: UUID
    delivery: int = Field(ge=0)


class Heartbeat(Message):
    """A worker is alive and runs these subtasks. On `workers`; may be lost."""

    type: Literal["heartbeat"] = "heartbeat"
    worker: str
    model: str
    slots: int = Field(ge=1)
    provider: str
    host: str
    pid: int
    release: str
    draining: bool = False
    stopped: bool = Field(default=False, description="The last one before the process ends.")
    running: tuple[RunningSubtask, ...] = ()


class FeedbackNote(Message):
    """Somebody's feedback waits in the inbox, `millrace.feedback_inbox`. On `feedback`.

    May be lost: the master looks into the inbox from time to time.
    """

    type: Literal["feedback"] = "feedback"
    note: UUID = Field(description="Id of the row in the inbox.")


class Event(Message):
    """Something that happened, on the `events` topic exchange, for n8n and other watchers."""

    type: str = Field(description="The routing key, for example `request.completed`.")
    tenant: UUID | None = None
    request: UUID | None = None
    subtask: UUID | None = None
    at: str = Field(description="ISO 8601 with offset.")
    detail: dict[str, JsonValue] = Field(default_factory=dict)


Result = Annotated[Completed | Failed, Field(discriminator="status")]
StreamMessage = Annotated[Started | TokenChunk | Notice, Field(discriminator="type")]
ControlMessage = Annotated[Cancel | Resend | Drain, Field(discriminator="type")]
WorkerMessage = Annotated[Started | Heartbeat, Field(discriminator="type")]

RESULT: TypeAdapter[Completed | Failed] = TypeAdapter(Result)
STREAM: TypeAdapter[Started | TokenChunk | Notice] = TypeAdapter(StreamMessage)
CONTROL: TypeAdapter[Cancel | Resend | Drain] = TypeAdapter(ControlMessage)
WORKER: TypeAdapter[Started | Heartbeat] = TypeAdapter(WorkerMessage)
SUBTASK: TypeAdapter[SubtaskRequest] = TypeAdapter(SubtaskRequest)
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
FEEDBACK: TypeAdapter[FeedbackNote] = TypeAdapter(FeedbackNote)

ALL: tuple[type[Message], ...] = (
    SubtaskRequest,
    Started,
    TokenChunk,
    Notice,
    Completed,
    Failed,
    Cancel,
    Resend,
    Drain,
    Heartbeat,
    Event,
    FeedbackNote,
)
