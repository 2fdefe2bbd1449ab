"""A model's `options` in the registry, as embedders understand them."""

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from master.retrieval.embedders.engine import MISCONFIGURED, failure
from queue_schemas.registry import Model

_Options = TypeVar("_Options", bound=BaseModel)


class Prefixes(BaseModel):
    """What some models want to read before a text: `search_query: ` for nomic-embed-text."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    query_prefix: str = Field(default="", max_length=1000)
    document_prefix: str = Field(default="", max_length=1000)


class HttpOptions(Prefixes):
    """Of an engine behind HTTP; what is not ours is sent to it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    batch_size: int = Field(default=64, ge=1, le=2048, description="Texts in one call.")

    @property
    def for_engine(self) -> dict[str, JsonValue]:
        """What the engine gets."""
        return dict(self.model_extra or {})


class LocalOptions(Prefixes):
    """Of a model in this process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str | None = Field(default=None, description="Folder of the model; none: by its name.")
    batch_size: int = Field(default=32, ge=1, le=2048)
    threads: int | None = Field(
        default=None, ge=1, le=1024, description="Of the CPU; none: all, and at most four."
    )
    download: bool = Field(
        default=False, description="Fetch a model that is not on this machine from its hub."
    )


def read(kind: type[_Options], model: Model) -> _Options:
    """A model's options. Raises EmbeddingError (permanent) that names the first bad one."""
    try:
        return kind.model_validate(model.options)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = f"{model.name}: options.{where}: {first['msg']}"
        raise failure(MISCONFIGURED, message) from error
