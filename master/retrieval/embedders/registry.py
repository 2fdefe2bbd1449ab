"""From an entry of the model registry to its embedder."""

from collections.abc import Mapping
from importlib import import_module

from master.retrieval.embedders.protocol import Embedder, EmbeddingError
from queue_schemas.messages import ErrorKind
from queue_schemas.registry import Model, ProviderName

# Names instead of imports: most installations need one of them.
MODULES: Mapping[ProviderName, str] = {
    ProviderName.OLLAMA: "master.retrieval.embedders.ollama",
    ProviderName.OPENAI: "master.retrieval.embedders.openai",
    ProviderName.SENTENCE_TRANSFORMERS: "master.retrieval.embedders.sentence_transformers",
    ProviderName.EMBEDDER: "master.retrieval.embedders.embedder",
}


def make_embedder(model: Model) -> Embedder:
    """The embedder of this model. Every module has `make(model)`. Raises EmbeddingError."""
    module = MODULES.get(model.provider)
    if module is None:
        message = f"{model.name}: the provider {model.provider} does not embed"
        raise EmbeddingError(ErrorKind.PERMANENT, "engine_misconfigured", message)
    embedder: Embedder = import_module(module).make(model)
    return embedder
