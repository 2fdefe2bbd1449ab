"""An embedding model behind HTTP; the files beside this one know the dialects."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from master.retrieval.embedders.batches import in_batches, words_of
from master.retrieval.embedders.engine import NO_MODEL, TOO_LONG, UNREACHABLE, Engine
from master.retrieval.embedders.protocol import EmbeddingError, Vector
from queue_schemas.registry import Model


@dataclass(frozen=True)
class Dialect:
    """How an engine wants to be asked."""

    path: str
    body: Callable[[Sequence[str]], dict[str, JsonValue]]
    """From texts to what is posted."""
    vectors: Callable[[Any], object]
    """From what was answered to its vectors, unchecked. KeyError and TypeError are caught."""
    batch_size: int = 64
    remedies: Mapping[str, str] = field(default_factory=dict)
    """What a person can do, by the code of the error."""


class Remote:
    """One engine and one of its models."""

    def __init__(self, model: Model, url: str, dialect: Dialect) -> None:
        key = os.environ.get(model.api_key_env) if model.api_key_env else None
        self.model = model.name
        self.max_words = words_of(model.context_length)
        self.engine = Engine(url, key, model.first_token_seconds)
        self._dialect = dialect
        self._remedies = {
            UNREACHABLE[1]: f"no engine answers at {url}; start it or correct `endpoint`",
            TOO_LONG[1]: f"set context_length of {model.name} to what the model has, "
            f"in the registry; it is {model.context_length} there",
            NO_MODEL[1]: f"the engine has no {model.name_at_engine!r}; set engine_model",
            **dialect.remedies,
        }

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One vector for each text."""
        return await in_batches(texts, self._dialect.batch_size, self._ask)

    async def check(self) -> int:
        """Have the engine load the model."""
        return len((await self.embed(["word"]))[0])

    async def aclose(self) -> None:
        """Close connections."""
        await self.engine.aclose()

    async def _ask(self, texts: Sequence[str]) -> object:
        try:
            answer = await self.engine.post(self._dialect.path, self._dialect.body(texts))
        except EmbeddingError as error:
            raise self._with_remedy(error) from error
        try:
            return self._dialect.vectors(answer)
        except (KeyError, TypeError, ValueError):
            return None  # `checked` says what is wrong with that

    def _with_remedy(self, error: EmbeddingError) -> EmbeddingError:
        remedy = self._remedies.get(error.code)
        message = f"{remedy} ({error.message})" if remedy else error.message
        return EmbeddingError(error.kind, error.code, message)
