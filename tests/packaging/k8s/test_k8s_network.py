"""NetworkPolicies: exactly the paths that are needed are open, and all others are closed."""

from tests.packaging.k8s.addresses import ports_behind, told
from tests.packaging.k8s.manifests import NAMESPACE, Cluster, Manifest, namespace_of, title
from tests.packaging.k8s.network import Endpoint, Policies, endpoints

PATHS = {
    "open-webui": {"master:8000"},
    "n8n": {"postgres:5432", "rabbitmq:5672", "master:8000", "open-webui:8080"},
    "master": {
        "postgres:5432",
        "rabbitmq:5672",
        "rabbitmq:15672",
        "embedder:8001",
        "open-webui:8080",
    },
    "worker": {"rabbitmq:5672"},
    "celery-worker": {"postgres:5432", "rabbitmq:5672", "embedder:8001"},
    "celery-beat": {"postgres:5432", "rabbitmq:5672", "embedder:8001"},
    "migrations": {"postgres:5432"},
    "backup": {"postgres:5432"},
    "restore": {"postgres:5432"},
    "prometheus": {
        "master:8000",
        "worker:8002",
        "celery-worker:8003",
        "celery-beat:8003",
        "embedder:8001",
        "rabbitmq:15692",
        "grafana:3000",
    },
    "grafana": {"prometheus:9090"},
}
"""Between our own pods, by the role that the label app.kubernetes.io/name gives them."""
_INGEST = ("master", "celery-worker", "celery-beat")
_DATABASE = {f"{role}:5432" for role in (*_INGEST, "n8n", "migrations")}
_KUBERNETES = {"worker:443", "worker:6443"}
TO_THE_NETWORK = {
    "docker-desktop": {f"{role}:11434" for role in ("worker", *_INGEST)},
    "k3s-gpu-elsewhere": _DATABASE | _KUBERNETES,
}
"""To addresses of the machine itself and its network, by cluster."""
TO_THE_INTERNET = {
    "k3s-gpu": {"pull-models:443"},
    "k3s-arm64-cpu": {"pull-models:443"},
    "k3s-arm64-cpu-watched": {"pull-models:443"},
    "k3s-gpu-elsewhere": {"pull-models:443"}
    | {f"{role}:{port}" for role in _INGEST for port in (80, 443)}
    | _DATABASE
    # The API server's address is the cluster's own and may be any.
    | _KUBERNETES,
}
"""To public addresses."""

KEDA = Endpoint("keda", "keda", {"app.kubernetes.io/name": "keda-operator", "app": "keda-operator"})
TRAEFIK = Endpoint("ingress", "kube-system", {"app.kubernetes.io/name": "traefik"})
DNS = Endpoint("dns", "kube-system", {"k8s-app": "kube-dns"})
STRANGER = Endpoint("stranger", "default", {"app.kubernetes.io/name": "master"})
INTERNET = Endpoint("internet", address="203.0.113.7")
NEIGHBOUR = Endpoint("neighbour", address="192.168.1.7")
METADATA = Endpoint("metadata service", address="169.254.169.254")


ELSEWHERE: dict[str | None, Endpoint] = {"keda": KEDA}
"""Who answers at a Service of another namespace."""


MAY_BE_MISSING = {"embedder-pods.millrace.svc.cluster.local"}
"""Who is asked for numbers where there is one."""


def _role(pod: Endpoint) -> str:
    return pod.labels.get("app.kubernetes.io/name", pod.name)


def _ours(cluster: Cluster) -> list[Endpoint]:
    return [each for each in endpoints(cluster).values() if each.namespace == NAMESPACE]


def _open(policies: Policies, source: Endpoint, pods: list[Endpoint]) -> set[str]:
    """Role and port of all that the source reaches. Ports that nobody serves count as well."""
    ports = {port for pod in pods for port in pod.ports.values()} | {22, 80, 443, 9999}
    return {
        f"{_role(target)}:{port}"
        for target in pods
        for port in ports
        if policies.allow(source, target, port)
    }


def test_our_pods_reach_each_other_exactly_where_they_must(cluster: Cluster) -> None:
    pods, policies = _ours(cluster), Policies(cluster)
    roles = {_role(pod) for pod in pods}
    for source in pods:
        expected = {
            path for path in PATHS.get(_role(source), set()) if path.partition(":")[0] in roles
        }
        assert _open(policies, source, pods) == expected, source.name


def _doors(cluster: Cluster, services: list[Manifest]) -> set[str]:
    """Role and port of the pods behind these Services."""
    pods = endpoints(cluster)
    return {
        f"{_role(pods[pod])}:{number}"
        for service in services
        for port in service["spec"]["ports"]
        for pod, number in ports_behind(cluster, service, port["port"])
    }


def _published(cluster: Cluster) -> list[Manifest]:
    """Services that nodes or a load balancer offer to everybody."""
    return [
        each
        for each in cluster.of("Service")
        if each["spec"].get("type", "ClusterIP") in {"NodePort", "LoadBalancer"}
    ]


def _behind_ingress(cluster: Cluster) -> list[Manifest]:
    found = []
    for ingress in cluster.of("Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                name = path["backend"]["service"]["name"]
                service = cluster.find("Service", name, namespace_of(ingress))
                assert service, f"{title(ingress)}: there is no Service {name}"
                found.append(service)
    return found


def test_from_outside_only_what_is_published_is_reached(cluster: Cluster) -> None:
    pods, policies = _ours(cluster), Policies(cluster)
    published = _doors(cluster, _published(cluster))
    for outsider in (INTERNET, NEIGHBOUR):
        assert _open(policies, outsider, pods) == published, outsider.name
    assert _open(policies, STRANGER, pods) <= published


def test_the_ingress_controller_reaches_exactly_what_it_is_to_publish(cluster: Cluster) -> None:
    reached = _open(Policies(cluster), TRAEFIK, _ours(cluster))
    published = _doors(cluster, _published(cluster))
    assert reached - published == _doors(cluster, _behind_ingress(cluster)) - published


def test_keda_reaches_the_management_api_and_nothing_else(cluster: Cluster) -> None:
    published = _doors(cluster, _published(cluster))
    reached = _open(Policies(cluster), KEDA, _ours(cluster))
    assert reached - published == {"rabbitmq:15672"}


def test_everybody_may_ask_for_names_and_nobody_for_the_cloud_s_metadata(cluster: Cluster) -> None:
    policies = Policies(cluster)
    for pod in _ours(cluster):
        assert policies.allow(pod, DNS, 53, "UDP"), pod.name
        assert policies.allow(pod, DNS, 53), pod.name
        assert not policies.allow(pod, DNS, 8080), pod.name
        assert not policies.allow(pod, METADATA, 80), pod.name


def _reaching(cluster: Cluster, target: Endpoint) -> set[str]:
    policies = Policies(cluster)
    return {
        f"{_role(pod)}:{port}"
        for pod in _ours(cluster)
        for port in (22, 25, 80, 443, 5432, 6443, 8080, 9999, 11434)
        if policies.allow(pod, target, port)
    }


def test_the_internet_is_reached_only_by_what_must(cluster: Cluster) -> None:
    assert _reaching(cluster, INTERNET) == TO_THE_INTERNET.get(cluster.name, set())


def test_the_network_around_is_reached_only_by_what_must(cluster: Cluster) -> None:
    assert _reaching(cluster, NEIGHBOUR) == TO_THE_NETWORK.get(cluster.name, set())


def test_every_address_that_a_pod_is_told_can_be_reached_by_it(cluster: Cluster) -> None:
    policies, pods = Policies(cluster), endpoints(cluster)
    shut = set()
    for container in cluster.containers:
        source = pods[container.workload.name]
        for address in told(cluster, container):
            service = address.service(cluster, source.namespace)
            if service is None and address.host in MAY_BE_MISSING:
                continue
            behind = ports_behind(cluster, service, address.port) if service else set()
            targets = [(pods[name], number) for name, number in behind if name != source.name]
            if service is None:
                targets = [(ELSEWHERE.get(address.namespace, NEIGHBOUR), address.port)]
            for target, number in targets:
                if not policies.allow(source, target, number):
                    shut.add(f"{container}: {address.host}, which is {target.name}:{number}")
    assert shut == set()


def test_each_pod_is_closed_unless_something_opens_it(cluster: Cluster) -> None:
    policies = Policies(cluster)
    newcomer = Endpoint("a newcomer that no policy names", NAMESPACE)
    for pod in (*_ours(cluster), newcomer):
        for direction in ("Ingress", "Egress"):
            assert policies.selecting(pod, direction), f"{pod.name}: {direction} is open"
