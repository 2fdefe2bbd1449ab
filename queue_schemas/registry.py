"""The models this installation serves: the types behind `models.yaml`.

Reading the file, with errors that name line and field, is `millrace/models_file.py`.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from queue_schemas.topology import LONGEST_SUBTASK_SECONDS

RESERVED_PREFIX = "millrace/"
NOT_FOR_WORKERS = frozenset({"gpu_memory_gib", "max_workers", "min_workers", "price"})
"""Fields of an entry that its workers do not look at: what changes there restarts none."""
_SLUG = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class ProviderName(StrEnum):
    """How an engine is reached; one file each in `worker/providers/` for those that answer chats.

    Embedding models are reached by the master itself, see `master/retrieval/embedders/`.
    """

    OLLAMA = "ollama"
    OPENAI = "openai"
    EXTRACTIVE = "extractive"
    SCRIPTED = "scripted"
    SENTENCE_TRANSFORMERS = "sentence-transformers"
    """In the process that embeds; only for embedding models."""
    EMBEDDER = "embedder"
    """`millrace embedder` at the endpoint; only for embedding models."""


ONLY_EMBED = frozenset({ProviderName.SENTENCE_TRANSFORMERS, ProviderName.EMBEDDER})
TAKES_OVER = frozenset({ProviderName.OLLAMA, ProviderName.OPENAI, ProviderName.SCRIPTED})
"""What can go on with another one's answer. Who quotes cannot stand in for who writes."""
_TAKES_OVER_WORDS = ", ".join(sorted(TAKES_OVER))


class Capability(StrEnum):
    """What a model is good for. Planning matches these with the kind of a part."""

    CHAT = "chat"
    CODE = "code"
    REASONING = "reasoning"
    SUMMARY = "summary"
    PLAN = "plan"
    VISION = "vision"
    TOOLS = "tools"
    EMBEDDING = "embedding"


class Price(BaseModel):
    """Cost per million tokens, in the currency of the whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompt: Annotated[float, Field(ge=0)] = 0.0
    completion: Annotated[float, Field(ge=0)] = 0.0


class Fallback(BaseModel):
    """Another engine for an entry: what differs there. Nothing of the entry's engine is taken."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    provider: ProviderName
    endpoint: str | None = Field(default=None, description="URL of the engine; none: its default.")
    engine_model: str | None = Field(
        default=None, description="The engine's own name for the model; none: the entry's name."
    )
    api_key_env: str | None = Field(
        default=None, description="Name of the environment variable that holds the engine's key."
    )
    remote: bool = Field(
        default=False, description="Reached over the internet; left out when offline."
    )
    first_token_seconds: float | None = Field(
        default=None,
        gt=0,
        le=LONGEST_SUBTASK_SECONDS,
        strict=True,
        description="With model loading; none: the entry's.",
    )
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="Engine options as the provider understands them."
    )

    @field_validator("provider")
    @classmethod
    def _takes_over(cls, provider: ProviderName) -> ProviderName:
        if provider not in TAKES_OVER:
            raise ValueError(f"{provider} cannot go on with an answer; use {_TAKES_OVER_WORDS}")
        return provider


class Model(BaseModel):
    """One entry of the registry."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=200, description="What clients ask for.")
    provider: ProviderName
    endpoint: str | None = Field(default=None, description="URL of the engine; none: its default.")
    engine_model: str | None = Field(default=None, description="The engine's own name for it.")
    api_key_env: str | None = Field(
        default=None, description="Name of the environment variable that holds the engine's key."
    )
    remote: bool = Field(
        default=False, description="Reached over the internet; left out when offline."
    )
    fallbacks: tuple[Fallback, ...] = Field(
        default=(), max_length=8, description="Engines to try, in this order, when it fails."
    )
    slug: str = Field(default="", description="For queue and pod names; made from the name.")
    capabilities: frozenset[Capability] = frozenset({Capability.CHAT})
    context_length: int = Field(default=8192, ge=256, le=10_000_000, description="Tokens.")
    max_output_tokens: int = Field(default=2048, ge=1, le=1_000_000)
    slots: int = Field(default=1, ge=1, le=1024, description="Generations at once in one worker.")
    keep_alive: str = Field(default="30m", pattern=r"^-?\d+(ms|s|m|h)?$")
    min_workers: int = Field(default=1, ge=0, le=1000)
    max_workers: int = Field(default=1, ge=1, le=1000)
    gpu_memory_gib: float = Field(default=0.0, ge=0, le=10_000)
    timeout_seconds: float = Field(default=600.0, gt=0, le=LONGEST_SUBTASK_SECONDS)
    first_token_seconds: float = Field(
        default=120.0, gt=0, le=LONGEST_SUBTASK_SECONDS, description="With model loading."
    )
    inter_token_seconds: float = Field(default=30.0, gt=0)
    price: Price = Price()
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="Engine options as the provider understands them."
    )

    @model_validator(mode="before")
    @classmethod
    def _slug_from_name(cls, value: object) -> object:
        if isinstance(value, dict) and not value.get("slug") and isinstance(value.get("name"), str):
            return {**value, "slug": slug(value["name"])}
        return value

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if name.startswith(RESERVED_PREFIX):
            raise ValueError(f"names that begin with {RESERVED_PREFIX!r} are strategies")
        if not re.fullmatch(r"[\x21-\x7e]+", name) or ".." in name:
            raise ValueError("use printable ASCII without spaces")
        return name

    @field_validator("slug")
    @classmethod
    def _plain_slug(cls, value: str) -> str:
        if not _SLUG.fullmatch(value):
            raise ValueError("use up to 63 of a-z, 0-9 and -, with a letter or digit at both ends")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_workers > self.max_workers:
            raise ValueError("min_workers is larger than max_workers")
        if self.chats and self.max_output_tokens >= self.context_length:
            raise ValueError("max_output_tokens must be smaller than context_length")
        if self.provider in ONLY_EMBED and self.chats:
            raise ValueError(f"{self.provider} only embeds: set capabilities to [embedding]")
        if self.provider is ProviderName.EMBEDDER and not self.endpoint:
            raise ValueError("an embedder needs its endpoint, for example http://127.0.0.1:8001")
        return self

    @model_validator(mode="after")
    def _fallbacks_fit(self) -> Self:
        if not self.fallbacks:
            return self
        if not self.chats or self.provider not in TAKES_OVER:
            raise ValueError(f"only chat models of {_TAKES_OVER_WORDS} can have fallbacks")
        engines = [(m.provider, m.endpoint, m.name_at_engine) for m in self.engines()]
        for engine in engines:
            if engines.count(engine) > 1:
                raise ValueError(f"two engines are the same: {engine[0]} with {engine[2]!r}")
        return self

    @property
    def name_at_engine(self) -> str:
        """What the engine calls this model."""
        return self.engine_model or self.name

    def engines(self) -> tuple["Model", ...]:
        """This entry as each of its engines would serve it alone, in the order to try them."""
        return (self.model_copy(update={"fallbacks": ()}), *map(self._at, self.fallbacks))

    def _at(self, other: Fallback) -> "Model":
        differs = {name: getattr(other, name) for name in Fallback.model_fields}
        differs["first_token_seconds"] = other.first_token_seconds or self.first_token_seconds
        return self.model_copy(update={**differs, "fallbacks": ()})

    @property
    def chats(self) -> bool:
        """Whether it answers chats; an embedding model does not."""
        return Capability.EMBEDDING not in self.capabilities


class Roles(BaseModel):
    """Which model does the work that no client names. None: chosen by capability and price."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: str | None = Field(default=None, description="Splits a question; none: by rules only.")
    synthesis: str | None = Field(default=None, description="Merges the parts.")
    task: str | None = Field(default=None, description="Titles, tags and follow-up prompts.")
    optimise: str | None = Field(
        default=None, description="Rewrites the question for an ensemble; none: left as it is."
    )
    judge: str | None = Field(
        default=None, description="Judges answers, reviews and checks; none: the largest model."
    )
    research: str | None = Field(default=None, description="Gathers notes in a crew.")
    write: str | None = Field(default=None, description="Writes from them, for all to see.")
    classify: str | None = Field(
        default=None, description="Says what kind of question it is; none: the cheapest model."
    )
    summarise: str | None = Field(
        default=None, description="Summarises conversations; none: the cheapest model."
    )
    embedding: str | None = Field(
        default=None, description="For new collections; none: the first embedding model, if any."
    )


class EnsembleMode(StrEnum):
    """What becomes of the answers of an ensemble."""

    PICK = "pick"
    """The best one is shown."""
    FUSE = "fuse"
    """One answer is made of all."""


class Ensemble(BaseModel):
    """How `millrace/ensemble` answers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    candidates: tuple[str, ...] = Field(
        default=(), max_length=8, description="Models; none: the first three that write."
    )
    mode: EnsembleMode = EnsembleMode.PICK
    minimum: int = Field(default=1, ge=1, le=8, description="Answers without which it has failed.")
    seconds: float = Field(default=120.0, gt=0, description="A candidate may take so long.")


class AutoStrategy(StrEnum):
    """What `millrace/auto` may choose; the last three answer after several model calls only."""

    DIRECT = "direct"
    SPLIT = "split"
    RAG = "rag"
    ROUTER = "router"
    CREW = "crew"
    ENSEMBLE = "ensemble"


class Registry(BaseModel):
    """All models. Immutable: a reload makes a new one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[Model, ...] = Field(min_length=1)
    roles: Roles = Roles()
    ensemble: Ensemble = Ensemble()
    auto: tuple[AutoStrategy, ...] = Field(
        default=(AutoStrategy.DIRECT, AutoStrategy.SPLIT, AutoStrategy.RAG),
        description="Strategies that `millrace/auto` chooses among.",
    )
    currency: str = "USD"

    @field_validator("auto")
    @classmethod
    def _can_choose(cls, auto: tuple[AutoStrategy, ...]) -> tuple[AutoStrategy, ...]:
        if AutoStrategy.DIRECT not in auto:
            raise ValueError("needs direct, for what nothing else is for")
        for strategy in auto:
            if auto.count(strategy) > 1:
                raise ValueError(f"has {strategy} twice")
        return auto

    @model_validator(mode="after")
    def _unique_and_known(self) -> Self:
        for field in ("name", "slug"):
            seen: set[str] = set()
            for model in self.models:
                value = getattr(model, field)
                if value in seen:
                    raise ValueError(f"two models have the {field} {value!r}")
                seen.add(value)
        names = {model.name for model in self.models}
        for role, name in self.roles.model_dump().items():
            if name is not None and name not in names:
                raise ValueError(f"roles.{role} names {name!r}, which is not a model")
        embedding = self.get(self.roles.embedding) if self.roles.embedding else None
        if embedding is not None and embedding.chats:
            raise ValueError(f"roles.embedding names {embedding.name!r}, which does not embed")
        if not any(model.chats for model in self.models):
            raise ValueError("at least one model must answer chats")
        return self

    @model_validator(mode="after")
    def _ensemble_that_can_answer(self) -> Self:
        named = len(self.ensemble.candidates)
        if named and self.ensemble.minimum > named:
            raise ValueError(f"ensemble.minimum is {self.ensemble.minimum} of {named} candidates")
        for name in self.ensemble.candidates:
            if name not in {model.name for model in self.chat_models()}:
                raise ValueError(f"ensemble.candidates names {name!r}, which answers no chats")
        return self

    def get(self, name: str) -> Model | None:
        """The model of that name."""
        return next((model for model in self.models if model.name == name), None)

    def chat_models(self) -> tuple[Model, ...]:
        """The models that answer chats, in the order of the file."""
        return tuple(model for model in self.models if model.chats)

    def embedding_models(self) -> tuple[Model, ...]:
        """The models that turn text into vectors, in the order of the file."""
        return tuple(model for model in self.models if not model.chats)

    def default_embedding(self) -> Model | None:
        """The embedding model of a new collection; None where the registry has none."""
        named = self.get(self.roles.embedding) if self.roles.embedding else None
        return named or next(iter(self.embedding_models()), None)


def slug(name: str) -> str:
    """A model name as part of a queue or pod name: `codellama:34b` -> `codellama-34b`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].strip("-")


def cheapest(models: Iterable[Model]) -> Model:
    """The model to use where quality does not matter: by price, then memory, then file order."""
    return min(models, key=lambda m: (m.price.prompt + m.price.completion, m.gpu_memory_gib))
