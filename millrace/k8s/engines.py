"""The engine beside a worker: a native sidecar, which starts before the worker and ends after it.

Ollama answers SIGTERM by cutting off what it generates, and Kubernetes signals all ordinary
containers of a pod at once; a sidecar is only signalled when the worker has drained.
"""

import math
from typing import Final

from millrace.k8s.cluster import Engine, Pool
from millrace.k8s.labels import Manifest, container_security
from millrace.k8s.placement import OLLAMA_URL
from queue_schemas.registry import Model

MODELS_MOUNT: Final = "/models"
LLAMA_SERVER_PORT: Final = 8080
PULL_SECONDS: Final = 3600
"""Weights may be on their way for so long until an engine that waits for them is started anew."""

# Ollama does not start where it can neither find nor make its folders, and the volume is
# read-only here: until the Job has made them there is nothing to serve.
SERVE: Final = """\
trap 'exit 0' TERM
until [ -d "$OLLAMA_MODELS/blobs" ] && [ -d "$OLLAMA_MODELS/manifests" ]; do sleep 2; done
trap - TERM
exec ollama serve
"""
# `ollama run` would pull a model that is missing; only `show` first makes it mean "load it". An
# empty prompt loads and generates nothing.
LOADED: Final = 'ollama show "$0" > /dev/null && ollama run "$0" "" < /dev/null'
_STARTUP_PERIOD: Final = 5
_OLLAMAS_PATIENCE: Final = 300
_SHM_GIB: Final = 1
# llama.cpp's server, which Ollama runs as well, keeps up to 8 GiB of earlier prompts in main memory
# unless it is told not to: more than the container may have, and counted by nobody.
_NO_PROMPTS_KEPT: Final = {"LLAMA_ARG_CACHE_RAM": "0"}


def ollama_environment() -> dict[str, str]:
    """What every Ollama in the cluster is told."""
    return {
        "HOME": "/tmp",  # noqa: S108  it writes a key there; the pod's own folder
        "OLLAMA_MODELS": MODELS_MOUNT,
        # It would take the weights away that another pod of this volume is fetching right now.
        "OLLAMA_NOPRUNE": "1",
    }


def engine_container(engine: Engine, model: Model, pool: Pool) -> Manifest:
    """The sidecar that serves this model."""
    made = _ollama(model) if engine is Engine.OLLAMA else _llama_server(model)
    environment: dict[str, str] = made.pop("env") | _NO_PROMPTS_KEPT
    if not pool.gpus:
        # Ollama's image asks for all GPUs; where NVIDIA's runtime is the default one it would get
        # them without having been given any.
        environment["NVIDIA_VISIBLE_DEVICES"] = "void"
    mounts = [
        {"name": "models", "mountPath": MODELS_MOUNT, "readOnly": True},
        {"name": "engine-tmp", "mountPath": "/tmp"},  # noqa: S108  in the container
    ]
    if pool.gpus:
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108  in the container
    return {
        "name": "engine",
        **made,
        "restartPolicy": "Always",  # this makes a sidecar of an init container
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "resources": _resources(model, pool),
        "securityContext": container_security(),
        "volumeMounts": mounts,
    }


def engine_volumes(pool: Pool) -> list[Manifest]:
    """What the sidecar mounts."""
    volumes: list[Manifest] = [
        {"name": "models", "persistentVolumeClaim": {"claimName": f"models-{pool.name}"}},
        {"name": "engine-tmp", "emptyDir": {"sizeLimit": "1Gi"}},
    ]
    if pool.gpus:
        shm = {"medium": "Memory", "sizeLimit": f"{_SHM_GIB}Gi"}
        volumes.append({"name": "shm", "emptyDir": shm})
    return volumes


def _ollama(model: Model) -> Manifest:
    return {
        "image": "ollama/ollama",
        "command": ["sh", "-c", SERVE],
        "env": {
            **ollama_environment(),
            # On loopback: only the worker beside it may ask it.
            "OLLAMA_HOST": OLLAMA_URL.removeprefix("http://"),
            "OLLAMA_CONTEXT_LENGTH": str(model.context_length),
            "OLLAMA_NUM_PARALLEL": str(model.slots),
            "OLLAMA_KEEP_ALIVE": model.keep_alive,
            "OLLAMA_MAX_LOADED_MODELS": "1",
            "OLLAMA_LOAD_TIMEOUT": f"{max(_OLLAMAS_PATIENCE, _patience(model))}s",
        },
        "startupProbe": {
            "exec": {"command": ["sh", "-c", LOADED, model.name_at_engine]},
            "periodSeconds": _STARTUP_PERIOD,
            "timeoutSeconds": _patience(model),
            "failureThreshold": PULL_SECONDS // _STARTUP_PERIOD,
        },
        "livenessProbe": {
            "exec": {"command": ["ollama", "ps"]},
            "periodSeconds": 30,
            "timeoutSeconds": 15,
            "failureThreshold": 4,
        },
    }


def _llama_server(model: Model) -> Manifest:
    context = model.context_length * model.slots  # it divides its context among its slots
    health = {"path": "/health", "port": "engine"}  # 503 while it loads
    return {
        "image": "millrace/llama-server",
        "args": [
            *("--model", f"{MODELS_MOUNT}/{model.name_at_engine}"),
            *("--alias", model.name_at_engine),
            *("--host", "0.0.0.0"),  # noqa: S104  probes come from outside the pod
            *("--port", str(LLAMA_SERVER_PORT)),
            *("--ctx-size", str(context)),
            *("--parallel", str(model.slots)),
        ],
        "env": {"HOME": "/tmp"},  # noqa: S108  in the container
        "ports": [{"name": "engine", "containerPort": LLAMA_SERVER_PORT}],
        "startupProbe": {
            "httpGet": health,
            "periodSeconds": _STARTUP_PERIOD,
            "failureThreshold": math.ceil(_patience(model) / _STARTUP_PERIOD),
        },
        "livenessProbe": {
            "httpGet": health,
            "periodSeconds": 30,
            "timeoutSeconds": 15,
            "failureThreshold": 4,
        },
    }


def _patience(model: Model) -> int:
    """Seconds that loading the model may take."""
    return max(60, math.ceil(model.first_token_seconds))


def _resources(model: Model, pool: Pool) -> Manifest:
    if pool.gpus:
        # No limit of memory: the weights pass through the node's page cache, which is counted.
        return {
            "requests": {"cpu": "500m", "memory": f"{1 + _SHM_GIB}Gi"},
            "limits": {"nvidia.com/gpu": 1},
        }
    memory = f"{math.ceil(model.gpu_memory_gib * 1024)}Mi"
    return {"requests": {"cpu": "500m", "memory": memory}, "limits": {"memory": memory}}
