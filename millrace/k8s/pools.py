"""What a pool has of its own: a volume with the weights of its models, and a Job that fills it."""

from collections.abc import Sequence
from typing import Final

from millrace.k8s.cluster import Cluster, Engine, Pool
from millrace.k8s.engines import MODELS_MOUNT, ollama_environment
from millrace.k8s.labels import Manifest, container_security, fingerprint, labels, pod_security
from millrace.k8s.workers import on_nodes
from queue_schemas.registry import Model

_KEPT_SECONDS: Final = 24 * 3600
PULL: Final = """\
set -eu
ollama serve &
server=$!
trap 'kill "$server" 2> /dev/null || true' EXIT
trap 'exit 143' TERM
until ollama ps > /dev/null 2>&1; do
  kill -0 "$server"
  sleep 1
done
for model in "$@"; do
  echo "pulling $model"
  ollama pull "$model"
done
"""


def claim(pool: Pool, cluster: Cluster) -> Manifest:
    """The volume. Pods of one node share it, also where it can only be used on one node."""
    storage = cluster.storage
    spec: Manifest = {
        "accessModes": [storage.access],
        "resources": {"requests": {"storage": f"{storage.gib}Gi"}},
    }
    if storage.class_ is not None:
        spec["storageClassName"] = storage.class_
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": f"models-{pool.name}", "labels": labels("models", "models")},
        "spec": spec,
    }


def pull_job(
    pool: Pool, models: Sequence[Model], cluster: Cluster, ollama_tag: str
) -> Manifest | None:
    """What fetches the weights; None where they are not Ollama's.

    A Job cannot be changed. Its name says what it does, the release of Ollama included, so that
    another model makes another Job, and applying the same again does nothing.
    """
    if cluster.engine is not Engine.OLLAMA or not models:
        return None
    names = sorted({model.name_at_engine for model in models})
    spec: Manifest = {
        "backoffLimit": 6,
        "ttlSecondsAfterFinished": _KEPT_SECONDS,
        "template": {
            "metadata": {"labels": labels("pull-models", "pull-models")},
            "spec": _pod(pool, names, cluster),
        },
    }
    name = f"pull-models-{pool.name}-{fingerprint([spec, ollama_tag], 8)}"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels("pull-models", "pull-models")},
        "spec": spec,
    }


def _pod(pool: Pool, names: Sequence[str], cluster: Cluster) -> Manifest:
    environment = {
        **ollama_environment(),
        "OLLAMA_HOST": "127.0.0.1:11434",
        "NVIDIA_VISIBLE_DEVICES": "void",  # it only fetches
    }
    return {
        "restartPolicy": "OnFailure",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 10,
        "securityContext": pod_security(),
        **on_nodes(pool, cluster),
        "containers": [
            {
                "name": "pull",
                "image": "ollama/ollama",
                "command": ["sh", "-c", PULL, "pull", *names],
                "env": [{"name": name, "value": value} for name, value in environment.items()],
                "resources": {
                    "requests": {"cpu": "100m", "memory": "256Mi"},
                    "limits": {"memory": "2Gi"},
                },
                "securityContext": container_security(),
                "volumeMounts": [
                    {"name": "models", "mountPath": MODELS_MOUNT},
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  in the container
                ],
            }
        ],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": f"models-{pool.name}"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
        ],
    }
