"""Which model runs in which pool, and whose engine is beside its worker."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from millrace.k8s.cluster import Cluster, Engine, Pool
from queue_schemas.registry import Model, ProviderName, Registry

OLLAMA_URL = "http://127.0.0.1:11434"
LLAMA_SERVER_URL = "http://127.0.0.1:8080/v1"
LONGEST_NAME = 54
"""KEDA names an autoscaler `keda-hpa-` and this, in 63 characters."""
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class Placed:
    """A chat model and where its worker pods go. Without a pool there is no engine in them."""

    model: Model
    pool: Pool | None

    @property
    def name(self) -> str:
        """Of its Deployment and its ScaledObject."""
        return worker_name(self.model)


def worker_name(model: Model) -> str:
    """The name of a model's workers in the cluster."""
    return f"worker-{model.slug}"


def has_engine_beside(model: Model, cluster: Cluster) -> bool:
    """Whether the cluster's own engine serves this model, in the pod of each worker."""
    if model.remote:
        return False
    if cluster.engine is Engine.OLLAMA:
        return model.provider is ProviderName.OLLAMA
    if cluster.engine is Engine.LLAMA_SERVER:
        return model.provider is ProviderName.OPENAI and _is_loopback(model.endpoint)
    return False


def place(registry: Registry, cluster: Cluster) -> tuple[list[Placed], list[str]]:
    """Every chat model with its pool, in the order of the file, and what is wrong with that."""
    problems = [*_wrong_names(registry), *_wrong_endpoints(registry, cluster)]
    problems += _wrong_pools(registry, cluster)
    placed = []
    for model in registry.chat_models():
        pool = _pool_of(model, cluster) if has_engine_beside(model, cluster) else None
        if pool is None and has_engine_beside(model, cluster):
            problems.append(
                f"{model.name}: no pool names it. Add it to the `models` of a pool in "
                "cluster.yaml, or leave `models` out in one pool to take the rest."
            )
        placed.append(Placed(model, pool))
    return placed, problems


def _pool_of(model: Model, cluster: Cluster) -> Pool | None:
    named = [pool for pool in cluster.pools if model.name in (pool.models or ())]
    rest = [pool for pool in cluster.pools if pool.models is None]
    return next(iter([*named, *rest]), None)


def _wrong_names(registry: Registry) -> list[str]:
    problems = []
    for model in registry.chat_models():
        name = worker_name(model)
        if len(name) > LONGEST_NAME:
            problems.append(
                f"{model.name}: the name {name!r} has {len(name)} characters, and KEDA takes "
                f"{LONGEST_NAME}. Give the entry a shorter `slug` in models.yaml."
            )
    return problems


def _wrong_endpoints(registry: Registry, cluster: Cluster) -> list[str]:
    """An engine in the worker's pod is at one address only, which the entry has to say."""
    if cluster.engine is Engine.OLLAMA:
        return [
            f"{model.name}: its engine is in the worker's pod, at {OLLAMA_URL}, and its endpoint "
            f"is {model.endpoint}. Write `endpoint: ${{OLLAMA_HOST:-{OLLAMA_URL}}}`."
            for model in registry.chat_models()
            if has_engine_beside(model, cluster) and model.endpoint not in {None, OLLAMA_URL}
        ] + _nowhere(registry, cluster)
    if cluster.engine is Engine.LLAMA_SERVER:
        return _unlike_llama_server(registry.chat_models(), cluster)
    return _nowhere(registry, cluster)


def _nowhere(registry: Registry, cluster: Cluster) -> list[str]:
    """Loopback is the worker's own pod, where there is no engine but the cluster's own."""
    return [
        f"{model.name}: its endpoint is {_endpoint(model)}, and nothing listens there in the "
        "worker's pod. Write where its engine is as seen from the cluster."
        for model in registry.chat_models()
        if not has_engine_beside(model, cluster) and _is_loopback(_endpoint(model))
    ]


def _endpoint(model: Model) -> str | None:
    return model.endpoint or (OLLAMA_URL if model.provider is ProviderName.OLLAMA else None)


def _unlike_llama_server(models: Sequence[Model], cluster: Cluster) -> list[str]:
    problems = []
    for model in models:
        beside = has_engine_beside(model, cluster)
        if model.provider is ProviderName.OLLAMA and _is_loopback(_endpoint(model)):
            problems.append(
                f"{model.name}: engine is `llama-server`, and there is no Ollama in the pod. Write "
                f"`provider: openai` and `endpoint: {LLAMA_SERVER_URL}`."
            )
        elif beside and (model.endpoint or "").rstrip("/") != LLAMA_SERVER_URL:
            problems.append(
                f"{model.name}: llama-server is at {LLAMA_SERVER_URL}, not at {model.endpoint}."
            )
        elif beside and not model.name_at_engine.endswith(".gguf"):
            problems.append(
                f"{model.name}: llama-server needs the weights' file: write `engine_model: "
                "FILE.gguf`, as it lies in the pool's volume."
            )
    return problems


def _wrong_pools(registry: Registry, cluster: Cluster) -> list[str]:
    problems = []
    seen: dict[str, str] = {}
    for pool in cluster.pools:
        for name in pool.models or ():
            if name in seen:
                twice = f"pools {seen[name]} and {pool.name}" if seen[name] != pool.name else ""
                problems.append(f"{name}: {twice or f'pool {pool.name} twice'}. Name it in one.")
            seen[name] = pool.name
            problems += _unfit_for_a_pool(name, pool, registry, cluster)
    return problems


def _unfit_for_a_pool(name: str, pool: Pool, registry: Registry, cluster: Cluster) -> list[str]:
    model = registry.get(name)
    if model is None:
        known = ", ".join(each.name for each in registry.chat_models())
        return [f"pool {pool.name}: there is no model {name!r} in models.yaml; it has {known}."]
    if not model.chats:
        return [
            f"pool {pool.name}: {name} embeds, and masters ask its endpoint themselves. "
            "No worker serves it: take it out of the pool."
        ]
    if not has_engine_beside(model, cluster):
        return [
            f"pool {pool.name}: the engine of {name} is not in the worker's pod (provider "
            f"{model.provider.value}, endpoint {model.endpoint}). Take it out of the pool."
        ]
    return []


def _is_loopback(url: str | None) -> bool:
    return urlsplit(url or "").hostname in _LOOPBACK
