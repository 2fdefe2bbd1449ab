import pytest

from millrace import models_file
from millrace.k8s import cluster
from millrace.k8s.placement import LLAMA_SERVER_URL, OLLAMA_URL, place
from queue_schemas.registry import Registry

MODELS = """\
models:
  - {name: small, provider: ollama, endpoint: "${OLLAMA_HOST:-http://127.0.0.1:11434}"}
  - {name: large, provider: ollama}
  - {name: cloud, provider: openai, endpoint: "https://api.example/v1", remote: true}
  - {name: far, provider: ollama, endpoint: "https://ollama.example", remote: true}
  - {name: vectors, provider: ollama, capabilities: [embedding]}
"""
POOLS = """\
engine: ollama
pools:
  - {name: one, memory_gib: 8, models: [large]}
  - {name: rest, memory_gib: 8}
"""


def registry(text: str = MODELS) -> Registry:
    return models_file.parse(text, "m.yaml", {"OLLAMA_HOST": OLLAMA_URL})


def problems(pools: str = POOLS, models: str = MODELS) -> list[str]:
    return place(registry(models), cluster.parse(pools, "c.yaml"))[1]


def test_every_chat_model_has_its_place() -> None:
    placed, wrong = place(registry(), cluster.parse(POOLS, "c.yaml"))
    assert wrong == []
    assert [(each.name, each.pool and each.pool.name) for each in placed] == [
        ("worker-small", "rest"),
        ("worker-large", "one"),
        ("worker-cloud", None),
        ("worker-far", None),
    ]


def test_an_engine_outside_needs_no_place() -> None:
    models = MODELS.replace("127.0.0.1", "gpu").replace(
        "large, provider: ollama", "large, provider: scripted"
    )
    outside = models_file.parse(models, "m.yaml", {})
    placed, wrong = place(outside, cluster.parse("engine: outside", "c.yaml"))
    assert wrong == []
    assert all(each.pool is None for each in placed)


WRONG = {
    "a model that is not there": (
        POOLS.replace("[large]", "[huge]"),
        MODELS,
        "pool one: there is no model 'huge' in models.yaml; it has small, large, cloud, far.",
    ),
    "a model in two pools": (
        POOLS.replace("memory_gib: 8}", "memory_gib: 8, models: [small, large]}"),
        MODELS,
        "large: pools one and rest. Name it in one.",
    ),
    "a model twice in one": (
        POOLS.replace("[large]", "[large, large]"),
        MODELS,
        "large: pool one twice. Name it in one.",
    ),
    "a model in none": (
        POOLS.replace("memory_gib: 8}", "memory_gib: 8, models: []}"),
        MODELS,
        "small: no pool names it. Add it to the `models` of a pool in cluster.yaml, or leave "
        "`models` out in one pool to take the rest.",
    ),
    "a model that embeds": (
        POOLS.replace("[large]", "[large, vectors]"),
        MODELS,
        "pool one: vectors embeds, and masters ask its endpoint themselves. No worker serves it: "
        "take it out of the pool.",
    ),
    "a model whose engine is elsewhere": (
        POOLS.replace("[large]", "[large, cloud]"),
        MODELS,
        "pool one: the engine of cloud is not in the worker's pod (provider openai, endpoint "
        "https://api.example/v1). Take it out of the pool.",
    ),
    "an endpoint that is not beside the worker": (
        POOLS,
        MODELS.replace("${OLLAMA_HOST:-http://127.0.0.1:11434}", "http://gpu-1"),
        "small: its engine is in the worker's pod, at http://127.0.0.1:11434, and its endpoint is "
        "http://gpu-1:80. Write `endpoint: ${OLLAMA_HOST:-http://127.0.0.1:11434}`.",
    ),
    "a name that KEDA does not take": (
        POOLS,
        MODELS.replace("name: small", f"name: {'s' * 48}"),
        f"{'s' * 48}: the name 'worker-{'s' * 48}' has 55 characters, and KEDA takes 54. Give the "
        "entry a shorter `slug` in models.yaml.",
    ),
    "Ollama where there is none": (
        POOLS.replace("engine: ollama", "engine: llama-server").replace("[large]", "[]"),
        "models: [{name: small, provider: ollama, endpoint: 127.0.0.1}]",
        "small: engine is `llama-server`, and there is no Ollama in the pod. Write `provider: "
        "openai` and `endpoint: http://127.0.0.1:8080/v1`.",
    ),
    "llama-server at another address": (
        POOLS.replace("engine: ollama", "engine: llama-server").replace("[large]", "[]"),
        "models: [{name: small, provider: openai, endpoint: 'http://127.0.0.1:9/v1', "
        "engine_model: a.gguf}]",
        "small: llama-server is at http://127.0.0.1:8080/v1, not at http://127.0.0.1:9/v1.",
    ),
    "an engine outside that is nowhere": (
        "engine: outside",
        "models: [{name: small, provider: openai, endpoint: 'http://localhost:8000/v1'}]",
        "small: its endpoint is http://localhost:8000/v1, and nothing listens there in the "
        "worker's pod. Write where its engine is as seen from the cluster.",
    ),
    "an Ollama outside that nobody names": (
        "engine: outside",
        "models: [{name: small, provider: ollama}]",
        "small: its endpoint is http://127.0.0.1:11434, and nothing listens there in the "
        "worker's pod. Write where its engine is as seen from the cluster.",
    ),
    "another engine beside Ollama": (
        POOLS.replace("[large]", "[]"),
        "models: [{name: small, provider: openai, endpoint: 'http://[::1]:8000/v1'}]",
        "small: its endpoint is http://[::1]:8000/v1, and nothing listens there in the "
        "worker's pod. Write where its engine is as seen from the cluster.",
    ),
    "llama-server without weights": (
        POOLS.replace("engine: ollama", "engine: llama-server").replace("[large]", "[]"),
        f"models: [{{name: small, provider: openai, endpoint: '{LLAMA_SERVER_URL}'}}]",
        "small: llama-server needs the weights' file: write `engine_model: FILE.gguf`, as it lies "
        "in the pool's volume.",
    ),
}


@pytest.mark.parametrize(("pools", "models", "said"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_placed_is_said_with_its_remedy(pools: str, models: str, said: str) -> None:
    assert problems(pools, models) == [said]


def test_llama_server_takes_what_is_at_its_address_and_leaves_the_rest() -> None:
    models = f"""\
models:
  - {{name: a, provider: openai, endpoint: "{LLAMA_SERVER_URL}", engine_model: a.gguf}}
  - {{name: b, provider: openai, endpoint: "https://api.example/v1"}}
"""
    pools = "engine: llama-server\npools: [{name: cpu, memory_gib: 8}]"
    placed, wrong = place(registry(models), cluster.parse(pools, "c.yaml"))
    assert wrong == []
    assert [each.pool is not None for each in placed] == [True, False]
