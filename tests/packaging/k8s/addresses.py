"""Addresses in what a pod is told, and where in the cluster they lead. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import yaml

from queue_schemas.registry import Registry
from tests.packaging.k8s.manifests import Cluster, Container, Manifest, environment
from tests.packaging.k8s.references import pods_of
from tests.packaging.k8s.registries import parsed

_URL = re.compile(r"\b(?:https?|amqps?|postgres(?:ql)?)://[^\s\"'`,<>{}\[\]\\]+")
_PORTS = {"http": 80, "https": 443, "amqp": 5672, "amqps": 5671}
_HOST_AND_PORT = (("DB_POSTGRESDB_HOST", "DB_POSTGRESDB_PORT"), ("PGHOST", "PGPORT"))


@dataclass(frozen=True)
class Address:
    """Where a container is told to go."""

    host: str
    port: int

    def service(self, cluster: Cluster, namespace: str) -> Manifest | None:
        """The Service that it means; None: something outside of the cluster."""
        if "." in self.host and self.namespace is None:
            return None
        return cluster.find("Service", self.host.partition(".")[0], self.namespace or namespace)

    @property
    def namespace(self) -> str | None:
        """Of a Service that says where it is."""
        name, _, rest = self.host.partition(".svc")
        if name == self.host or rest not in {"", ".cluster.local"}:
            return None
        return name.partition(".")[2]

    @property
    def is_own(self) -> bool:
        """Within the pod itself."""
        return self.host in {"127.0.0.1", "localhost", "0.0.0.0", "::1"}


def told(cluster: Cluster, container: Container) -> set[Address]:
    """All addresses in its environment and in the settings files that it is given."""
    env = environment(cluster, container)
    if container.is_ours and container.workload.name != "n8n":
        env.pop("MILLRACE_URL", None)  # of clients; masters and Celery are given it with the rest
    files = dict(_files(cluster, container))
    if registry := files.pop("models.yaml", None):
        files["engines"] = "\n".join(_engines(container, parsed(registry, env)))
    texts = [*env.values(), *files.values()]
    found = {address for text in texts for address in addresses_in(text)}
    found |= set(_scraped(files.get("prometheus.yml", "{}")))
    for host, port in _HOST_AND_PORT:
        if env.get(host):
            found.add(Address(env[host], int(env.get(port, "5432"))))
    return {address for address in found if not address.is_own}


def addresses_in(text: str) -> Iterator[Address]:
    """Every URL of a text."""
    # A comment is nobody's setting, and ${NAME:-default} stands for its default.
    text = re.sub(r"(?m)^\s*#.*$|\s#\s.*$", "", text)
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    for url in _URL.findall(text):
        parts = urlsplit(url)
        if parts.hostname:
            yield Address(parts.hostname, parts.port or _PORTS.get(parts.scheme, 5432))


def _engines(container: Container, registry: Registry) -> Iterator[str]:
    """The engines that this process asks itself: a worker its model's, others for vectors."""
    line = container.spec.get("command", [])
    if "--model" in line:
        served = registry.get(line[line.index("--model") + 1])
        models = served.engines() if served else ()
    else:
        models = registry.embedding_models()
    yield from (model.endpoint for model in models if model.endpoint)


def _scraped(text: str) -> Iterator[Address]:
    for job in yaml.safe_load(text).get("scrape_configs", []):
        for static in job.get("static_configs", []):
            for target in static["targets"]:
                host, _, port = target.rpartition(":")
                yield Address(host, int(port))
        for names in job.get("dns_sd_configs", []):
            yield from (Address(name, names["port"]) for name in names["names"])


def _files(cluster: Cluster, container: Container) -> Iterator[tuple[str, str]]:
    volumes = {each["name"]: each for each in container.workload.pod.get("volumes", [])}
    for mount in container.spec.get("volumeMounts", []):
        source = volumes.get(mount["name"], {}).get("configMap")
        if source:
            held = cluster.keys("ConfigMap", source["name"]) or {}
            names = {mount["subPath"]} if "subPath" in mount else held.keys()
            yield from ((name, text) for name, text in held.items() if name in names)


def ports_behind(cluster: Cluster, service: Manifest, port: int) -> set[tuple[str, int]]:
    """The pods behind a Service's port, with the number that they listen on."""
    spec = service["spec"]
    selector = {"matchLabels": spec["selector"]}
    wanted = [each for each in spec["ports"] if each["port"] == port]
    return {
        (pod.name, pod.ports[target] if isinstance(target, str) else target)
        for each in wanted
        for pod in pods_of(cluster, selector, service["metadata"]["namespace"])
        for target in [each.get("targetPort", port)]
    }
