"""The Deployment of a model's workers."""

import math
from typing import Final

from millrace.k8s.cluster import Cluster, Engine, Pool
from millrace.k8s.engines import PULL_SECONDS, engine_container, engine_volumes
from millrace.k8s.labels import (
    MODEL_LABEL,
    Manifest,
    container_security,
    fingerprint,
    pod_security,
    worker_labels,
)
from millrace.k8s.placement import OLLAMA_URL, Placed
from queue_schemas.registry import NOT_FOR_WORKERS, Model

HEALTH_PORT: Final = 8002

_DRAIN_MARGIN, _GRACE_MARGIN = 30, 60
"""Seconds beyond the longest subtask: to publish its result, and to end."""
_ENTRY_ANNOTATION: Final = "millrace.dev/entry"
_MODELS_FILE: Final = "/etc/millrace/models.yaml"


def deployment(placed: Placed, cluster: Cluster) -> Manifest:
    """The workers of one model.

    Without `replicas`, which every apply would set back to that number. Without surge, for which
    there is no GPU, and which makes the autoscaler count too many.
    """
    model, pool = placed.model, placed.pool
    selector = {"app.kubernetes.io/name": "worker", MODEL_LABEL: model.slug}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": placed.name, "labels": worker_labels(model)},
        "spec": {
            "selector": {"matchLabels": selector},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
            },
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": PULL_SECONDS + math.ceil(model.first_token_seconds),
            "template": {
                "metadata": {
                    "labels": worker_labels(model),
                    # Workers read their entry when they start: a changed one starts them anew.
                    "annotations": {_ENTRY_ANNOTATION: _entry(model)},
                },
                "spec": _pod(model, pool, cluster, selector),
            },
        },
    }


def _entry(model: Model) -> str:
    """Changes with what a worker reads of its entry, and with nothing else."""
    entry = model.model_dump(mode="json", exclude=set(NOT_FOR_WORKERS))
    return fingerprint({**entry, "capabilities": sorted(entry["capabilities"])})


def _pod(model: Model, pool: Pool | None, cluster: Cluster, selector: dict[str, str]) -> Manifest:
    pod: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": math.ceil(model.timeout_seconds) + _GRACE_MARGIN,
        "securityContext": pod_security(),
    }
    if pool is not None and pool.gpus and cluster.runtime_class:
        pod["runtimeClassName"] = cluster.runtime_class
    pod |= on_nodes(pool, cluster)
    pod["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector},
        }
    ]
    if pool is not None:
        pod["initContainers"] = [engine_container(cluster.engine, model, pool)]
    pod["containers"] = [_worker(model, beside=cluster.engine if pool is not None else None)]
    pod["volumes"] = [
        {"name": "registry", "configMap": {"name": "models"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
        *(engine_volumes(pool) if pool is not None else []),
    ]
    return pod


def on_nodes(pool: Pool | None, cluster: Cluster) -> Manifest:
    """Which nodes a pod of this pool may go to."""
    where: Manifest = {}
    if pool is not None and pool.node_selector:
        where["nodeSelector"] = dict(pool.node_selector)
    if cluster.tolerations:
        where["tolerations"] = [
            each.model_dump(mode="json", exclude_none=True) for each in cluster.tolerations
        ]
    return where


def _worker(model: Model, beside: Engine | None) -> Manifest:
    return {
        "name": "worker",
        "image": "millrace/worker",
        "command": ["millrace", "worker", "--wait", "--model", model.name],
        "env": _environment(model, beside),
        "ports": [{"name": "health", "containerPort": HEALTH_PORT}],
        # Not /ready: a broker or an engine that is away must not restart pods in a circle.
        "startupProbe": _probe("/live", period=2, timeout=3, failures=60),
        "readinessProbe": _probe("/ready", period=5, timeout=3, failures=2),
        "livenessProbe": _probe("/live", period=10, timeout=5, failures=6),
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"memory": "512Mi"},
        },
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "registry", "mountPath": "/etc/millrace", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  in the container
        ],
    }


def _environment(model: Model, beside: Engine | None) -> list[Manifest]:
    drain = math.ceil(model.timeout_seconds) + _DRAIN_MARGIN
    plain = {
        "MILLRACE_MODELS": _MODELS_FILE,
        "MILLRACE_HEALTH_HOST": "0.0.0.0",  # noqa: S104  probes come from outside the pod
        "MILLRACE_HEALTH_PORT": str(HEALTH_PORT),
        "MILLRACE_WORKER_DRAIN_SECONDS": str(drain),
    }
    if beside is Engine.OLLAMA:
        plain["OLLAMA_HOST"] = OLLAMA_URL
    secret = {"RABBITMQ_URL": "broker-worker", "MILLRACE_QUEUE_KEY": "queue-key"}
    secret |= dict.fromkeys(key_names(model), "engine-keys")
    return [
        *({"name": name, "value": value} for name, value in plain.items()),
        *(
            {"name": name, "valueFrom": {"secretKeyRef": {"name": source, "key": name}}}
            for name, source in secret.items()
        ),
    ]


def key_names(model: Model) -> list[str]:
    """The variables that hold the keys of a model's engines."""
    return sorted({engine.api_key_env for engine in model.engines() if engine.api_key_env})


def _probe(path: str, *, period: int, timeout: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "health"},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }
