"""From an entry of the model registry to its provider."""

from collections.abc import Mapping
from importlib import import_module

from queue_schemas.messages import ErrorKind
from queue_schemas.registry import Model, ProviderName
from worker.providers.fallback import Engine, FallbackProvider
from worker.providers.protocol import Provider, ProviderError

# Names instead of imports: the libraries behind `openai` and `ollama` cost a worker half a second
# and 40 MB each, and a worker serves one model, so it needs at most those of its engines.
MODULES: Mapping[ProviderName, str] = {
    ProviderName.OLLAMA: "worker.providers.ollama",
    ProviderName.OPENAI: "worker.providers.openai",
    ProviderName.EXTRACTIVE: "worker.providers.extractive",
    ProviderName.SCRIPTED: "worker.providers.scripted",
}


def make_provider(model: Model, *, offline: bool = False) -> Provider:
    """The provider that serves this model; offline, of what is not remote.

    Every provider module has `make(model)`. Raises ProviderError when offline leaves no engine.
    """
    engines = [engine for engine in model.engines() if not (offline and engine.remote)]
    if not engines:
        said = "it is remote only, and MILLRACE_OFFLINE is set; give it a fallback that is not"
        raise ProviderError(ErrorKind.PERMANENT, "offline", said)
    if not model.fallbacks:
        return _made(model)
    return FallbackProvider([Engine(_name(engine), engine, _made(engine)) for engine in engines])


def _made(model: Model) -> Provider:
    provider: Provider = import_module(MODULES[model.provider]).make(model)
    return provider


def _name(model: Model) -> str:
    return f"{model.provider.value}:{model.name_at_engine}"
