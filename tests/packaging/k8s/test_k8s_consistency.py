"""Numbers and names that stand in two places and must agree."""

import json
import re
from collections import Counter

import yaml

from master.planning.strategies import model_names
from millrace import openwebui_settings
from queue_schemas import topology
from queue_schemas.registry import ProviderName
from tests.packaging.k8s.conftest import REPOSITORY
from tests.packaging.k8s.known_names import answers
from tests.packaging.k8s.manifests import Cluster, Workload, environment, matches, title
from tests.packaging.k8s.registries import registry_of

NODE_PORTS = {"master": 30800, "open-webui": 30801, "n8n": 30802, "grafana": 30803}
OF_OLLAMA = {
    "OLLAMA_CONTEXT_LENGTH", "OLLAMA_HOST", "OLLAMA_KEEP_ALIVE", "OLLAMA_LOAD_TIMEOUT",
    "OLLAMA_MAX_LOADED_MODELS", "OLLAMA_MODELS", "OLLAMA_NOPRUNE", "OLLAMA_NUM_PARALLEL",
}  # fmt: skip
"""Variables that Ollama reads, of those that we use."""
_CONNECTIONS_OF_A_MASTER = 19
"""Its pool of 10, and what it needs beside it, with ingestion (docs/operations.md)."""


def _workload(cluster: Cluster, name: str) -> Workload | None:
    return next((each for each in cluster.workloads if each.name == name), None)


def _environment(cluster: Cluster, workload: str, container: str) -> dict[str, str]:
    found = _workload(cluster, workload)
    assert found, workload
    (own,) = (each for each in found.containers if each.name == container)
    return environment(cluster, own)


def _mounted(cluster: Cluster, workload: str, file: str) -> str:
    """A file of the ConfigMap that a workload mounts."""
    found = _workload(cluster, workload)
    assert found, workload
    names = [each["configMap"]["name"] for each in found.pod["volumes"] if "configMap" in each]
    held = [(cluster.keys("ConfigMap", name) or {}).get(file) for name in names]
    (text,) = (each for each in held if each is not None)
    return text


def test_the_overlay_s_registry_is_the_one_in_the_cluster(cluster: Cluster) -> None:
    own = REPOSITORY / "k8s" / "overlays" / cluster.name / "models.yaml"
    if own.exists():
        held = cluster.keys("ConfigMap", "models")
        assert held == {"models.yaml": own.read_text("utf-8")}


def test_open_webui_asks_for_models_that_there_are(cluster: Cluster) -> None:
    told = _environment(cluster, "open-webui", "open-webui")
    registry = registry_of(cluster, {})
    embedding = registry.get(told["RAG_EMBEDDING_MODEL"])
    assert embedding, told["RAG_EMBEDDING_MODEL"]
    assert not embedding.chats
    assert told["TASK_MODEL_EXTERNAL"] == openwebui_settings.TASK_MODEL
    assert openwebui_settings.TASK_MODEL in model_names(registry)
    (connection,) = json.loads(told["OPENAI_API_CONFIGS"]).values()
    assert connection == {"enable": True, "headers": openwebui_settings.HEADERS}
    assert told["OPENAI_API_BASE_URL"].endswith("/v1")


def test_engines_beside_workers_are_told_what_their_entry_says(cluster: Cluster) -> None:
    for container in cluster.containers:
        if container.name != "engine" or container.image != "ollama/ollama":
            continue
        told = environment(cluster, container)
        (worker,) = (each for each in container.workload.containers if each.name == "worker")
        model = registry_of(cluster, {}).get(worker.spec["command"][-1])
        assert model, worker
        assert told["OLLAMA_CONTEXT_LENGTH"] == str(model.context_length)
        assert told["OLLAMA_NUM_PARALLEL"] == str(model.slots)
        assert told["OLLAMA_KEEP_ALIVE"] == model.keep_alive
        assert told["OLLAMA_NOPRUNE"] == "1", "it would delete what another pod is pulling"
        assert {name for name in told if name.startswith("OLLAMA_")} <= OF_OLLAMA
        address = environment(cluster, worker)["OLLAMA_HOST"]
        assert address.removeprefix("http://") == told["OLLAMA_HOST"]


def test_no_deployment_gives_up_before_those_who_wait_for_it(cluster: Cluster) -> None:
    # A node pulls one image after the other; the first start takes as long as the line is slow.
    plan = (REPOSITORY / "scripts/cluster/plan").read_text("utf-8")
    patience = re.search(r"rollout status .* --timeout (\d+)s", plan)
    assert patience
    for each in cluster.workloads:
        if each.manifest["kind"] == "Deployment":
            deadline = each.manifest["spec"].get("progressDeadlineSeconds", 600)
            assert deadline >= int(patience[1]), each.name


def test_changed_settings_restart_who_reads_them(cluster: Cluster) -> None:
    # By a name that changes with what is in it, in an overlay that changes some of it as well.
    for each in cluster.workloads:
        for container in each.containers:
            for source in container.spec.get("envFrom", []):
                name = source.get("configMapRef", {}).get("name", "-settings-0123456789")
                assert re.search(r"-[a-z0-9]{10}$", name), f"{each.name}: {name}"


def test_prometheus_asks_for_what_is_there(cluster: Cluster) -> None:
    if _workload(cluster, "prometheus") is None:
        return
    jobs = yaml.safe_load(_mounted(cluster, "prometheus", "prometheus.yml"))["scrape_configs"]
    paths = {job["job_name"]: job.get("metrics_path", "/metrics") for job in jobs}
    for command in ("master", "worker", "embedder"):
        assert answers(command, paths[f"millrace-{command}"])
    assert paths["rabbitmq-queues"] == "/metrics/detailed"


def test_the_embedder_serves_the_model_that_is_asked_of_it(cluster: Cluster) -> None:
    asked = {
        model.name_at_engine
        for model in registry_of(cluster, {}).embedding_models()
        if model.provider is ProviderName.EMBEDDER
    }
    if _workload(cluster, "embedder") is None:
        assert asked == set()
    else:
        assert asked == {_environment(cluster, "embedder", "embedder")["MILLRACE_EMBEDDER_MODEL"]}


def test_open_webui_and_the_migrations_have_the_same_api_key(cluster: Cluster) -> None:
    key = _environment(cluster, "migrations", "api-key")["MILLRACE_API_KEY"]
    assert _environment(cluster, "open-webui", "open-webui")["OPENAI_API_KEY"] == key
    if _workload(cluster, "n8n"):
        assert _environment(cluster, "n8n", "provision")["MILLRACE_API_KEY"] == key


def test_the_broker_waits_longer_than_any_subtask_takes(cluster: Cluster) -> None:
    conf = _mounted(cluster, "rabbitmq", "rabbitmq.conf")
    (milliseconds,) = re.findall(r"(?m)^consumer_timeout = (\d+)$", conf)
    assert int(milliseconds) >= topology.CONSUMER_TIMEOUT_SECONDS * 1000
    plugins = _mounted(cluster, "rabbitmq", "enabled_plugins")
    assert {"rabbitmq_management", "rabbitmq_prometheus"} <= set(re.findall(r"\w+", plugins))


def test_the_broker_finds_its_definitions_and_has_the_ports_that_it_says(cluster: Cluster) -> None:
    conf = _mounted(cluster, "rabbitmq", "rabbitmq.conf")
    (path,) = re.findall(r"(?m)^load_definitions = (\S+)$", conf)
    broker = _workload(cluster, "rabbitmq")
    assert broker
    (container,) = (each for each in broker.containers if each.name == "rabbitmq")
    folder, _, name = path.rpartition("/")
    (mount,) = (each for each in container.spec["volumeMounts"] if each["mountPath"] == folder)
    (volume,) = (each for each in broker.pod["volumes"] if each["name"] == mount["name"])
    assert name in (cluster.keys("Secret", volume["secret"]["secretName"]) or {})
    said = re.findall(r"(?m)^(?:listeners\.tcp\.default|\w+\.tcp\.port) = (\d+)$", conf)
    assert set(container.ports.values()) == {int(port) for port in said}


def test_every_user_of_the_broker_is_one_of_its_definitions(cluster: Cluster) -> None:
    text = (cluster.keys("Secret", "broker-definitions") or {})["definitions.json"]
    definitions = json.loads(text)
    allowed = {(each["user"], each["vhost"]) for each in definitions["permissions"]}
    urls = {
        url
        for container in cluster.containers
        for url in environment(cluster, container).values()
        if url.startswith("amqp://")
    }
    assert urls
    for url in urls:
        user, vhost = re.fullmatch(r"amqp://([^:]+):[^@]+@[^/]+/(\w+)", url).groups()  # type: ignore[union-attr]  # None is a failure, and shows
        assert (user, vhost) in allowed


def test_postgres_has_a_connection_for_everybody(cluster: Cluster) -> None:
    master = _workload(cluster, "master")
    if _workload(cluster, "postgres") is None or master is None:
        return
    conf = _mounted(cluster, "postgres", "postgresql.conf")
    (most,) = re.findall(r"(?m)^max_connections = (\d+)", conf)
    replicas = master.manifest["spec"].get("replicas", 1) + 1  # one more while they are replaced
    assert int(most) > replicas * _CONNECTIONS_OF_A_MASTER + 50


def test_celery_is_looked_at_where_it_writes(cluster: Cluster) -> None:
    for container in cluster.containers:
        told = environment(cluster, container)
        if container.image == "millrace/celery" and "livenessProbe" in container.spec:
            for probe in ("startupProbe", "livenessProbe"):
                assert told["MILLRACE_ALIVE_FILE"] in str(container.spec[probe]["exec"]), container


def test_node_ports_are_the_ones_that_are_promised(cluster: Cluster) -> None:
    found = {
        each["metadata"]["name"]: port["nodePort"]
        for each in cluster.of("Service")
        for port in each["spec"]["ports"]
        if "nodePort" in port
    }
    assert found.items() <= NODE_PORTS.items()
    assert [port for port, count in Counter(found.values()).items() if count > 1] == []
    if cluster.name == "docker-desktop":
        assert found == NODE_PORTS


def test_monitors_watch_services_and_ports_that_there_are(cluster: Cluster) -> None:
    for monitor in cluster.of("ServiceMonitor"):
        services = [
            each
            for each in cluster.of("Service")
            if matches(monitor["spec"]["selector"], each["metadata"].get("labels", {}))
        ]
        if not services and _workload(cluster, "celery-worker") is None:
            assert monitor["metadata"]["name"] == "celery", title(monitor)
            continue
        ports = {port.get("name") for each in services for port in each["spec"]["ports"]}
        for endpoint in monitor["spec"]["endpoints"]:
            assert endpoint["port"] in ports, title(monitor)


def test_workers_that_ask_for_a_gpu_get_its_runtime_and_others_do_not_see_it(
    cluster: Cluster,
) -> None:
    for container in cluster.containers:
        resources = container.spec["resources"]
        asks = {name for kind in resources.values() for name in kind} & {"nvidia.com/gpu"}
        if asks:
            assert container.workload.pod["runtimeClassName"] == "nvidia", container
            assert resources["limits"]["nvidia.com/gpu"] == 1, "slices count for no more than one"
        elif container.image == "ollama/ollama":
            told = environment(cluster, container)
            assert told["NVIDIA_VISIBLE_DEVICES"] == "void", container


def test_one_volume_is_never_written_by_pods_of_several_nodes(cluster: Cluster) -> None:
    for workload in cluster.workloads:
        claims = {
            volume["persistentVolumeClaim"]["claimName"]
            for volume in workload.pod.get("volumes", [])
            if "persistentVolumeClaim" in volume
        }
        if not claims or workload.kind not in {"Deployment", "StatefulSet"}:
            continue
        if workload.name.startswith("worker-"):
            mounts = [
                mount
                for each in workload.containers
                for mount in each.spec["volumeMounts"]
                if mount["name"] == "models"
            ]
            assert all(mount.get("readOnly") for mount in mounts), workload
            assert workload.pod["nodeSelector"], f"{workload}: its volume is of one node"
        else:
            spec = workload.manifest["spec"]
            assert spec.get("replicas", 1) == 1, workload
            assert workload.kind == "StatefulSet" or spec["strategy"]["type"] == "Recreate", (
                workload
            )
