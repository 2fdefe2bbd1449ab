"""Settings: every variable is one that the code reads, its value is taken, its address is there."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import BaseSettings

from master.embedder.settings import EmbedderSettings
from master.settings import CelerySettings, MasterSettings
from tests.packaging.k8s.addresses import told
from tests.packaging.k8s.conftest import REPOSITORY
from tests.packaging.k8s.known_names import variables
from tests.packaging.k8s.manifests import Cluster, Container, environment
from tests.packaging.k8s.registries import registry_of
from worker.settings import WorkerSettings

OF_LIBRARIES = {
    "HOME": "what a process writes outside of /tmp",
    "HF_HOME": "where sentence-transformers looks for models",
    "HF_HUB_OFFLINE": "sentence-transformers asks nobody",
    "OMP_NUM_THREADS": "torch's threads",
    "PYTHONUNBUFFERED": "lines appear when they are written",
    "NVIDIA_VISIBLE_DEVICES": "the container runtime's",
}
SETTINGS: dict[str, type[BaseSettings]] = {
    "master": MasterSettings,
    "embedder": EmbedderSettings,
    "celery": CelerySettings,
    "worker": WorkerSettings,
}
OPTIONAL = {"embedder", "celery"}
"""Vectors may come from elsewhere, and masters can ingest documents themselves."""
NEEDED = {
    "master": {"DATABASE_URL", "RABBITMQ_URL", "MILLRACE_MODELS", "MILLRACE_QUEUE_KEY"},
    "worker": {"RABBITMQ_URL", "MILLRACE_MODELS", "MILLRACE_QUEUE_KEY", "MILLRACE_HEALTH_PORT"},
    "celery": {"DATABASE_URL", "MILLRACE_CELERY_BROKER_URL", "MILLRACE_MODELS"},
}


def _ours(cluster: Cluster) -> Iterator[Container]:
    for container in cluster.containers:
        if container.is_ours and container.image != "millrace/llama-server":
            yield container


def test_every_variable_of_ours_is_one_that_the_code_reads(cluster: Cluster) -> None:
    keys = set(cluster.keys("Secret", "engine-keys") or {})
    unread = {
        f"{container}: {name}"
        for container in _ours(cluster)
        for name in environment(cluster, container)
        if name not in variables() and name not in OF_LIBRARIES and name not in keys
    }
    assert unread == set()


def test_the_keys_of_engines_are_those_that_the_models_name(cluster: Cluster) -> None:
    held = set(cluster.keys("Secret", "engine-keys") or {})
    models = registry_of(cluster, {}).models
    named = {each.api_key_env for model in models for each in model.engines() if each.api_key_env}
    assert held == named


def _runs(container: Container) -> str:
    """The subcommand of `millrace` that the container is; empty: another thing."""
    line = [*container.spec.get("command", []), *container.spec.get("args", [])]
    return line[1] if line[:1] == ["millrace"] else ""


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_the_settings_are_taken(
    cluster: Cluster, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [each for each in _ours(cluster) if _runs(each) == name]
    if not found:
        assert name in OPTIONAL, f"nothing runs `millrace {name}`"
    for container in found:
        env = environment(cluster, container)
        assert NEEDED.get(name, set()) <= {key for key, value in env.items() if value}, container
        with monkeypatch.context() as patch:
            for variable in variables():
                patch.delenv(variable, raising=False)
            for variable, value in env.items():
                patch.setenv(variable, value)
            made = SETTINGS[name]()
        host = getattr(made, "host", "0.0.0.0")
        assert host == "0.0.0.0", f"{container}: listens on {host}, where nobody reaches it"
        port = getattr(made, "port", None)
        if name in {"master", "embedder"}:
            assert port in container.ports.values(), container


def test_servers_that_are_reached_from_outside_of_their_pod_listen_there(cluster: Cluster) -> None:
    for container in _ours(cluster):
        kind = {"worker": "HEALTH", "celery": "METRICS"}.get(_runs(container))
        if kind:
            env = environment(cluster, container)
            assert env[f"MILLRACE_{kind}_HOST"] == "0.0.0.0", container
            assert int(env[f"MILLRACE_{kind}_PORT"]) in container.ports.values(), container


def test_every_process_reads_the_registry_that_is_mounted(cluster: Cluster) -> None:
    for container in _ours(cluster):
        if _runs(container) not in {"master", "worker", "celery"}:
            continue
        env = environment(cluster, container)
        mounted = {mount["mountPath"]: mount for mount in container.spec["volumeMounts"]}
        file = Path(env["MILLRACE_MODELS"])
        assert file.name == "models.yaml"
        assert str(file.parent) in mounted, container
        mount = mounted[str(file.parent)]
        # A file that is mounted by a subPath never changes, and masters follow changes.
        assert "subPath" not in mount, container
        volumes = {each["name"]: each for each in container.workload.pod["volumes"]}
        assert volumes[mount["name"]]["configMap"]["name"] == "models", container
        registry_of(cluster, env)


def test_both_ends_of_the_queues_have_the_same_key_and_vhost(cluster: Cluster) -> None:
    seen = {
        (env["MILLRACE_QUEUE_KEY"], env["RABBITMQ_URL"].rpartition("/")[2])
        for container in _ours(cluster)
        if _runs(container) in {"master", "worker"}
        for env in [environment(cluster, container)]
    }
    assert len(seen) == 1


SECRETS = {
    "master": {"database", "broker-master", "queue-key", "engine-keys", "open-webui-ratings"},
    "worker": {"broker-worker", "queue-key", "engine-keys"},
    "celery-worker": {"database", "broker-master", "engine-keys"},
    "celery-beat": {"database", "broker-master", "engine-keys"},
    "migrations": {"database", "api-key"},
    "postgres": {"postgres"},
    "backup": {"postgres"},
    "restore": {"postgres"},
    "rabbitmq": {"broker-definitions"},
    "n8n": {"n8n", "api-key"},
    "open-webui": {"open-webui"},
    "grafana": {"grafana"},
}
"""Who may be given which, by the label app.kubernetes.io/name. A worker has no database."""


def test_nobody_is_given_a_secret_of_others(cluster: Cluster) -> None:
    for workload in cluster.workloads:
        role = workload.labels["app.kubernetes.io/name"]
        assert set(_secrets(workload.pod)) <= SECRETS.get(role, set()), workload


def _secrets(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for each in node:
            yield from _secrets(each)
    elif isinstance(node, dict):
        for key, each in node.items():
            if key in {"secretRef", "secretKeyRef", "secret"}:
                yield each.get("name") or each["secretName"]
            else:
                yield from _secrets(each)


def test_every_address_leads_to_a_service_and_a_port_that_are_there(cluster: Cluster) -> None:
    astray = set()
    for container in cluster.containers:
        for address in told(cluster, container):
            service = address.service(cluster, container.workload.namespace)
            if service is None:
                if "." not in address.host:
                    astray.add(f"{container}: there is no Service {address.host}")
                continue
            if address.port not in {port["port"] for port in service["spec"]["ports"]}:
                astray.add(f"{container}: {address.host} has no port {address.port}")
    assert astray == set()


def test_no_secret_is_in_what_git_keeps_or_in_anything_but_a_secret(cluster: Cluster) -> None:
    values = {
        value
        for each in cluster.of("Secret")
        for value in (cluster.keys("Secret", each["metadata"]["name"]) or {}).values()
    }
    words = {word for value in values for word in re.findall(r"[A-Za-z0-9_+/=-]{20,}", value)}
    rest = json.dumps([each for each in cluster.objects if each["kind"] != "Secret"])
    assert [word for word in sorted(words) if _is_random(word) and word in rest] == []
    ignored = (REPOSITORY / ".gitignore").read_text()
    assert "k8s/overlays/*/secrets/" in ignored.splitlines()


def _is_random(word: str) -> bool:
    """Unlike names, which may well be in both."""
    return len({*word} & {*"0123456789"}) > 2 and word.lower() != word
