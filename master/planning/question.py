"""What planning is given: the question, and what is known of the fleet."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from master.planning.remembered import Remembered
from master.rules.rule import UsedRule
from queue_schemas.registry import Registry

DEFAULT_COLLECTION = "default"
COLLECTION_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"


class Retrieval(BaseModel):
    """What a request wants from documents."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    collection: str = Field(default=DEFAULT_COLLECTION, pattern=COLLECTION_NAME)
    top: int = Field(default=3, ge=1, le=50, description="Sources that each step is given.")
    candidates: int = Field(default=10, ge=1, le=200, description="Of each leg.")
    filter: dict[str, JsonValue] | None = Field(
        default=None, description="What a document's metadata must contain."
    )
    only: bool = Field(default=False, description="Answer from the sources and nothing else.")
    optional: bool = Field(
        default=False, description="Go on without where there is no such collection."
    )


@dataclass(frozen=True)
class Question:
    """A chat request as planning sees it, already validated."""

    model: str
    """What the client asked for: a model of the registry or a strategy (`millrace/split`)."""
    messages: tuple[dict[str, JsonValue], ...]
    parameters: Mapping[str, JsonValue] = field(default_factory=dict)
    """Every other OpenAI parameter, as it came (temperature, tools, response_format, …)."""
    stream: bool = False
    task: str | None = None
    """A front end's background prompt, named by its template header (`title_generation`)."""
    retrieval: Retrieval | None = None
    """What it looks up in documents; None: nothing."""
    remembered: Remembered | None = None
    """What was said before in its conversation; `memory.woven` puts it into the messages."""
    training: bool = True
    """Whether it may be exported to train models, where its tenant lets that happen."""
    learned: Mapping[str, str] = field(default_factory=dict)
    """Of the fleet when it was asked: also what is added to its plan later goes by that."""
    rules: tuple[UsedRule, ...] = ()
    """Those that hold for it, the first one first where two say different things."""


@dataclass(frozen=True)
class Fleet:
    """What is known of models and workers at the moment of planning."""

    registry: Registry
    tokens_per_second: Mapping[str, float] = field(default_factory=dict)
    """Measured completion rate of one slot, by model; absent until something was measured."""
    free_slots: Mapping[str, int] = field(default_factory=dict)
    """Slots of live workers that are idle now, by model."""
    backlog: Mapping[str, int] = field(default_factory=dict)
    """Subtasks ready, queued or running, by model."""
    learned: Mapping[str, str] = field(default_factory=dict)
    """Models that were judged better than those that the registry prefers, by kind of work."""
    tried: frozenset[str] = frozenset()
    """Kinds of work where the learned model is only tried, to find out."""
