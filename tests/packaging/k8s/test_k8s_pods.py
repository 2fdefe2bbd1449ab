"""Pods: what they may do, what they ask of a node, and how they end."""

from collections.abc import Iterator

import pytest

from tests.packaging.k8s.known_names import parse
from tests.packaging.k8s.manifests import (
    NAMESPACE,
    Cluster,
    Container,
    Manifest,
    environment,
    title,
)
from tests.packaging.k8s.references import pods_of
from tests.packaging.k8s.registries import registry_of

_GIVES_AWAY = "it gives a volume of root's to the pod's user: components/owned-volumes"
EXCEPTIONS = {
    (f"{workload}/own-volume", rule): _GIVES_AWAY
    for workload in (
        "StatefulSet/postgres",
        "StatefulSet/rabbitmq",
        "CronJob/backup",
        "Deployment/open-webui",
        "Deployment/prometheus",
        "Deployment/grafana",
    )
    for rule in ("runAsNonRoot", "capabilities")
}
"""Container or pod, and the rule that it breaks: the reason."""
OF_ANOTHER_USER = {"Deployment/n8n/provision": "it shares a folder with n8n, whose user it is"}
WITH_A_TOKEN = {"worker": "the component pod-deletion-cost: it writes into its own pod"}
"""By service account."""
WITHOUT_A_LIMIT = {"engine": "weights pass through the page cache, which is counted as its memory"}
"""On a GPU; on a CPU its memory is what the pool's budget says."""


def _security_faults(container: Container) -> Iterator[str]:
    pod = container.workload.pod.get("securityContext", {})
    own = container.spec.get("securityContext", {})
    both = {**pod, **own}
    if both.get("runAsNonRoot") is not True or both.get("runAsUser", 1) == 0:
        yield "runAsNonRoot"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "readOnlyRootFilesystem"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if own.get("privileged"):
        yield "privileged"
    if own.get("capabilities") != {"drop": ["ALL"]}:
        yield "capabilities"
    if both.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "seccompProfile"


def _pod_faults(pod: Manifest) -> Iterator[str]:
    asks = pod.get("automountServiceAccountToken") is not False
    if asks and pod.get("serviceAccountName") not in WITH_A_TOKEN:
        yield "automountServiceAccountToken"
    if pod.get("enableServiceLinks") is not False:
        yield "enableServiceLinks"
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    if any("hostPath" in volume for volume in pod.get("volumes", [])):
        yield "hostPath"


def test_pods_may_do_only_what_they_must(cluster: Cluster) -> None:
    found = {
        *(
            (str(container), fault)
            for container in cluster.containers
            for fault in _security_faults(container)
        ),
        *(
            (str(workload), fault)
            for workload in cluster.workloads
            for fault in _pod_faults(workload.pod)
        ),
    }
    assert found - EXCEPTIONS.keys() == set()


_BASELINE = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
    "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}  # fmt: skip
_RESTRICTED = {"runAsNonRoot", "allowPrivilegeEscalation", "capabilities", "seccompProfile"}


def test_the_namespace_enforces_nothing_that_its_pods_break(cluster: Cluster) -> None:
    namespace = cluster.find("Namespace", NAMESPACE, "default")
    assert namespace
    level = namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert level in {"baseline", "restricted"}
    for container in cluster.containers:
        if container.workload.namespace != NAMESPACE:
            continue
        faults = {*_security_faults(container), *_pod_faults(container.workload.pod)}
        added = container.spec["securityContext"].get("capabilities", {}).get("add", [])
        assert set(added) <= _BASELINE, container
        assert not faults & {"privileged", "hostPath", "hostNetwork", "hostPID"}, container
        assert level == "baseline" or not faults & _RESTRICTED, container


def test_our_images_run_as_the_user_that_they_are_made_for(cluster: Cluster) -> None:
    for container in cluster.containers:
        if container.is_ours and str(container) not in OF_ANOTHER_USER:
            both = {
                **container.workload.pod["securityContext"],
                **container.spec.get("securityContext", {}),
            }
            assert both["runAsUser"] == 10001, container


def test_service_accounts_give_no_token_away(cluster: Cluster) -> None:
    for each in cluster.of("ServiceAccount"):
        assert each["automountServiceAccountToken"] is False, title(each)


ROLES: dict[str, list[Manifest]] = {
    "pod-deletion-cost": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]}],
}
"""All that anything of ours may do with the API server, by the name of its role."""


def test_roles_allow_nothing_more_than_is_listed_here(cluster: Cluster) -> None:
    assert cluster.of("ClusterRole", "ClusterRoleBinding") == []
    found = {each["metadata"]["name"]: each["rules"] for each in cluster.of("Role")}
    assert found == {name: rules for name, rules in ROLES.items() if name in found}


def test_every_container_says_what_it_needs_and_where_its_memory_ends(cluster: Cluster) -> None:
    for container in cluster.containers:
        resources = container.spec.get("resources", {})
        assert {"cpu", "memory"} <= resources.get("requests", {}).keys(), container
        on_gpu = "nvidia.com/gpu" in resources.get("limits", {})
        if not (on_gpu and container.name in WITHOUT_A_LIMIT):
            assert "memory" in resources.get("limits", {}), container
        for name, most in resources["limits"].items():
            least = resources["requests"].get(name)
            assert least is None or _amount(least) <= _amount(most), container
        for volume in container.workload.pod.get("volumes", []):
            assert volume.get("emptyDir", {"sizeLimit": 1}).get("sizeLimit"), (
                f"{container.workload}: {volume['name']} may fill the node's disk"
            )


_UNITS = {"m": 0.001, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def _amount(quantity: str | int) -> float:
    text = str(quantity)
    unit = next((each for each in _UNITS if text.endswith(each)), "")
    return float(text.removesuffix(unit)) * _UNITS.get(unit, 1)


def test_a_folder_that_is_written_to_is_a_volume(cluster: Cluster) -> None:
    for container in cluster.containers:
        mounts = {mount["mountPath"] for mount in container.spec.get("volumeMounts", [])}
        if container.is_ours:
            assert "/tmp" in mounts, f"{container}: HOME is /tmp, and the root is read-only"
        assert len(mounts) == len(container.spec.get("volumeMounts", [])), container


def test_what_runs_on_has_probes_and_what_ends_has_none(cluster: Cluster) -> None:
    for container in cluster.containers:
        ends = container.workload.kind in {"Job", "CronJob"} or (
            container.is_init and not container.is_sidecar
        )
        probes = {name for name in container.spec if name.endswith("Probe")}
        if ends:
            assert probes == set(), container
        elif container.is_sidecar:
            assert "startupProbe" in probes, f"{container}: its pod would not wait for it"
        else:
            assert probes & {"startupProbe", "readinessProbe", "livenessProbe"}, container


def test_what_a_service_leads_to_says_when_it_is_ready(cluster: Cluster) -> None:
    for service in cluster.of("Service"):
        selector = {"matchLabels": service["spec"].get("selector", {})}
        for workload in pods_of(cluster, selector, service["metadata"]["namespace"]):
            assert any("readinessProbe" in each.spec for each in workload.containers), workload


def test_a_liveness_probe_is_slower_to_judge_than_readiness(cluster: Cluster) -> None:
    for container in cluster.containers:
        ready, live = (container.spec.get(f"{kind}Probe") for kind in ("readiness", "liveness"))
        if ready and live:
            assert _patience(live) >= _patience(ready), container


def _patience(probe: Manifest) -> int:
    return int(probe.get("periodSeconds", 10)) * int(probe.get("failureThreshold", 3))


def test_workers_get_the_time_that_their_longest_subtask_takes(cluster: Cluster) -> None:
    for workload in cluster.workloads:
        worker = next((each for each in workload.containers if each.name == "worker"), None)
        if worker is None:
            continue
        told = environment(cluster, worker)
        _, options = parse([*worker.spec["command"][1:], *worker.spec.get("args", [])])
        model = registry_of(cluster, told).get(options["model"])
        assert model, f"{worker}: models.yaml has no {options['model']}"
        grace = workload.pod["terminationGracePeriodSeconds"]
        drain = float(told["MILLRACE_WORKER_DRAIN_SECONDS"])
        assert model.timeout_seconds < drain < grace, workload


def test_others_get_the_time_that_they_take_to_drain(cluster: Cluster) -> None:
    for container in cluster.containers:
        told = environment(cluster, container)
        grace = container.workload.pod.get("terminationGracePeriodSeconds", 30)
        before = container.spec.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
        match container.image:
            case "millrace/master" if container.workload.name == "master":
                drain = float(told.get("MILLRACE_DRAIN_SECONDS", 20)) + 5
            case "millrace/embedder":
                drain = float(told.get("MILLRACE_EMBEDDER_DRAIN_SECONDS", 20))
            case "millrace/celery":
                drain = 300 - 1
            case _:
                continue
        assert grace > drain + before.get("seconds", 0), container


def test_an_eviction_never_takes_the_last_one_and_is_never_impossible(cluster: Cluster) -> None:
    for each in cluster.of("PodDisruptionBudget"):
        (workload,) = pods_of(cluster, each["spec"]["selector"], each["metadata"]["namespace"])
        replicas = workload.manifest["spec"].get("replicas", 1)
        most = each["spec"].get("maxUnavailable")
        least = each["spec"].get("minAvailable")
        assert (most is not None and most >= 1) or (least is not None and least < replicas), title(
            each
        )


@pytest.mark.parametrize("key", ["app.kubernetes.io/name", "app.kubernetes.io/part-of"])
def test_every_pod_says_what_it_is(cluster: Cluster, key: str) -> None:
    ours = [each for each in cluster.workloads if each.namespace == "millrace"]
    assert [str(each) for each in ours if key not in each.labels] == []
