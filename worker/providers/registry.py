"""From an entry of the model registry to its provider."""

from collections.abc import Mapping
from importlib import import_module

from queue_schemas.registry import Model, ProviderName
from worker.providers.protocol import Provider

# Names instead of imports: the libraries behind `openai` and `ollama` cost a worker half a second
# and 40 MB each, and a worker serves one model, so it needs at most one of them.
MODULES: Mapping[ProviderName, str] = {
    ProviderName.OLLAMA: "worker.providers.ollama",
    ProviderName.OPENAI: "worker.providers.openai",
    ProviderName.EXTRACTIVE: "worker.providers.extractive",
    ProviderName.SCRIPTED: "worker.providers.scripted",
}


def make_provider(model: Model) -> Provider:
    """The provider that serves this model. Every provider module has `make(model)`."""
    provider: Provider = import_module(MODULES[model.provider]).make(model)
    return provider
