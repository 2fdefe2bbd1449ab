"""Any engine that speaks OpenAI's `/v1/embeddings`: llama.cpp, LocalAI, vLLM, hosted ones."""

import base64
import binascii
import sys
from array import array
from collections.abc import Sequence
from typing import Any

from pydantic import JsonValue

from master.retrieval.embedders.options import HttpOptions, read
from master.retrieval.embedders.protocol import Vector
from master.retrieval.embedders.remote import Dialect, Remote
from queue_schemas.registry import Model

DEFAULT_URL = "https://api.openai.com/v1"


def make(model: Model) -> Remote:
    """The embedder of a registry entry."""
    options = read(HttpOptions, model)

    def body(texts: Sequence[str]) -> dict[str, JsonValue]:
        fixed: dict[str, JsonValue] = {"model": model.name_at_engine, "input": list(texts)}
        return {"encoding_format": "float", **options.for_engine, **fixed}

    dialect = Dialect("/embeddings", body, vectors_in_order, options.batch_size)
    return Remote(model, model.endpoint or DEFAULT_URL, dialect)


def vectors_in_order(answer: Any) -> object:
    """The vectors by their `index`; ValueError when these are not 0 to n-1."""
    items = {item["index"]: item["embedding"] for item in answer["data"]}
    if sorted(items) != list(range(len(answer["data"]))):
        raise ValueError("the indexes are not 0 to n-1")
    return [_decoded(items[index]) for index in range(len(items))]


def _decoded(embedding: Any) -> object:
    return from_base64(embedding) if isinstance(embedding, str) else embedding


def from_base64(text: str) -> Vector:
    """Little-endian float32 numbers. Raises ValueError."""
    try:
        numbers = array("f", base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def to_base64(vector: Vector) -> str:
    """As `from_base64` reads it."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")
