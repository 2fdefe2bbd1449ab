"""What clients send to `/v1/documents` and `/v1/collections`: checked, with defaults filled in."""

from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError, to_json

from db.collections import Collection, NewCollection
from db.corpus import Strategy
from master.api import errors
from master.api.chat_schema import REFUSED
from master.planning.question import COLLECTION_NAME, DEFAULT_COLLECTION
from master.retrieval.chunking import LONGEST_CHUNK, Chunking, Method
from queue_schemas.registry import Registry

_METADATA_BYTES: Final = 16_384
_OVERLAP: Final = 50

CollectionName = Annotated[str, Field(pattern=COLLECTION_NAME)]


class ChunkingBody(BaseModel):
    """How documents are cut. Sizes are words; without an overlap it is a tenth, at most 50.

    The overlap is at most half of the size.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    method: Annotated[Method, Field(strict=False)] = Method.WORDS
    size: int = Field(512, ge=1, le=LONGEST_CHUNK)
    overlap: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _overlap_at_most_half(self) -> Self:
        if self.overlap is not None and self.overlap * 2 > self.size:
            raise _refused("must be at most half of size", "overlap")
        return self

    def chosen(self) -> dict[str, Any]:
        """As it is stored."""
        overlap = min(_OVERLAP, self.size // 10) if self.overlap is None else self.overlap
        return Chunking(method=self.method, size=self.size, overlap=overlap).model_dump(mode="json")


class CollectionSettings(BaseModel):
    """How a collection is made; what is left out has a default."""

    model_config = ConfigDict(extra="forbid", strict=True)

    strategy: Annotated[Strategy | None, Field(strict=False)] = None
    embedding_model: str | None = Field(None, max_length=200)
    language: str | None = Field(None, pattern=r"^[a-z_]{1,63}$", examples=["english"])
    chunking: ChunkingBody | None = None


class CollectionRequest(CollectionSettings):
    """A new collection."""

    name: CollectionName
    dense_weight: float | None = Field(None, ge=0, le=1)


class CollectionChange(CollectionSettings):
    """New settings of a collection. All but `dense_weight` have its documents done again."""

    dense_weight: float | None = Field(None, ge=0, le=1)


class DocumentSettings(CollectionSettings):
    """Where a document goes. The collection's settings are for one that does not exist yet."""

    collection: CollectionName = DEFAULT_COLLECTION
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    replace: bool = Field(
        default=False,
        description="Once it is ready, older documents of the same name and collection go.",
    )

    @model_validator(mode="after")
    def _small(self) -> Self:
        if len(to_json(self.metadata)) > _METADATA_BYTES:
            raise _refused(f"must have at most {_METADATA_BYTES} bytes", "metadata")
        return self


class DocumentRequest(DocumentSettings):
    """A document as text or as a URL to fetch."""

    text: str | None = None
    url: str | None = Field(None, max_length=2048)
    name: str | None = Field(None, min_length=1, max_length=512)

    @model_validator(mode="after")
    def _one_content(self) -> Self:
        if (self.text is None) == (self.url is None):
            raise _refused("or url is required, and not both", "text")
        return self


def new_collection(
    registry: Registry, name: str, settings: CollectionSettings, dense_weight: float | None = None
) -> NewCollection:
    """A collection with the defaults that this registry allows. Raises 400 or 404."""
    model = embedding_model(registry, settings.embedding_model)
    strategy = settings.strategy or (Strategy.HYBRID if model else Strategy.SPARSE)
    if strategy is not Strategy.SPARSE and model is None:
        message = f"{strategy} needs an embedding model, and models.yaml has none; use sparse"
        raise errors.invalid_value(message, "strategy")
    weight = {} if dense_weight is None else {"dense_weight": dense_weight}
    return NewCollection(
        name=name,
        strategy=strategy,
        embedding_model=None if strategy is Strategy.SPARSE else model,
        language=settings.language or "english",
        chunking=(settings.chunking or ChunkingBody()).chosen(),
        **weight,
    )


def embedding_model(registry: Registry, name: str | None) -> str | None:
    """The name, or that of the default model; None if there is none. Raises 404."""
    if name is None:
        default = registry.default_embedding()
        return default.name if default else None
    known = [model.name for model in registry.embedding_models()]
    if name not in known:
        raise errors.model_not_found(name, known)
    return name


def check_agrees(collection: Collection, said: CollectionSettings) -> None:
    """What is said of a collection that exists must be so. Raises 409."""
    stored = {
        "strategy": collection.strategy,
        "embedding_model": collection.embedding_model,
        "language": collection.language,
        "chunking": dict(collection.chunking),
    }
    wanted = {name: getattr(said, name) for name in stored}
    if said.chunking is not None:
        wanted["chunking"] = said.chunking.chosen()
    for name, value in wanted.items():
        if value is not None and value != stored[name]:
            message = (
                f"the collection {collection.name} has {name} {_shown(stored[name])}; change it "
                f"with PATCH /v1/collections/{collection.name}, or leave {name} out"
            )
            raise errors.ApiError(409, "collection_differs", message, param=name)


def _shown(value: object) -> str:
    return to_json(value).decode()


def _refused(words: str, field: str) -> PydanticCustomError:
    return PydanticCustomError(REFUSED, "{words}", {"words": words, "field": field})


def is_web(url: str) -> bool:
    """Whether it begins as an address of the web; what it leads to is judged when it is fetched."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)
