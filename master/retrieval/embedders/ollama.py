"""Ollama through its native `/api/embed`; `/v1` cuts long texts without a word."""

import os
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import JsonValue

from master.retrieval.embedders.engine import NO_MODEL, UNREACHABLE
from master.retrieval.embedders.options import HttpOptions, read
from master.retrieval.embedders.remote import Dialect, Remote
from queue_schemas.registry import Model

_PORT = 11434


def make(model: Model) -> Remote:
    """The embedder of a registry entry."""
    url = _address(model.endpoint or os.environ.get("OLLAMA_HOST") or f"127.0.0.1:{_PORT}")
    options = read(HttpOptions, model)

    def body(texts: Sequence[str]) -> dict[str, JsonValue]:
        return {
            "model": model.name_at_engine,
            "input": list(texts),
            "truncate": False,
            "keep_alive": _duration(model.keep_alive),
            "options": options.for_engine,
        }

    remedies = {
        NO_MODEL[1]: f"the model is missing; get it with `ollama pull {model.name_at_engine}`",
        UNREACHABLE[1]: f"Ollama does not answer at {url}; start it with `ollama serve`",
    }
    return Remote(model, url, Dialect("/api/embed", body, _vectors, options.batch_size, remedies))


def _vectors(answer: Any) -> object:
    return answer["embeddings"]


def _duration(text: str) -> JsonValue:
    return int(text) if text.lstrip("-").isdecimal() else text


def _address(given: str) -> str:
    """An address as Ollama's own variable may hold it: scheme and port may be missing."""
    if "://" in given:
        return given
    parts = urlsplit(f"http://{given}")
    has_port = bool(re.search(r":\d+$", parts.netloc))
    return parts.geturl() if has_port else f"http://{parts.netloc.rstrip(':')}:{_PORT}"
