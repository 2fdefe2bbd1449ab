"""Faults that somebody may put into a manifest: each is found by the check that is meant for it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.packaging.k8s import test_k8s_commands as commands
from tests.packaging.k8s import test_k8s_consistency as consistency
from tests.packaging.k8s import test_k8s_environment as settings
from tests.packaging.k8s import test_k8s_network as network
from tests.packaging.k8s import test_k8s_pods as pods
from tests.packaging.k8s import test_k8s_references as references
from tests.packaging.k8s import test_k8s_scaling as scaling
from tests.packaging.k8s.manifests import Cluster, title

GONE = object()
"""Instead of a value: the field is taken away."""
_POD = "spec.template.spec"
_OWN = f"{_POD}.containers.0"


WORKER = "Deployment/worker-llama3-2-3b"
SCALED = "ScaledObject/worker-llama3-2-3b"
FAULTS: dict[Callable[[Cluster], None], list[tuple[str, str, Any]]] = {
    pods.test_pods_may_do_only_what_they_must: [
        ("Deployment/master", f"{_OWN}.securityContext", {}),
        ("Deployment/master", f"{_POD}.hostNetwork", True),
        ("Deployment/master", f"{_POD}.automountServiceAccountToken", GONE),
        ("Deployment/n8n", f"{_POD}.securityContext.runAsUser", 0),
    ],
    pods.test_the_namespace_enforces_nothing_that_its_pods_break: [
        (
            "Namespace/millrace",
            "metadata.labels",
            {"pod-security.kubernetes.io/enforce": "restricted"},
        ),
    ],
    pods.test_our_images_run_as_the_user_that_they_are_made_for: [
        ("Deployment/master", f"{_POD}.securityContext.runAsUser", 999),
    ],
    pods.test_every_container_says_what_it_needs_and_where_its_memory_ends: [
        ("Deployment/grafana", f"{_OWN}.resources.requests", GONE),
        ("Deployment/grafana", f"{_OWN}.resources.requests.memory", "9Gi"),
    ],
    pods.test_workers_get_the_time_that_their_longest_subtask_takes: [
        (WORKER, f"{_POD}.terminationGracePeriodSeconds", 600),
        (WORKER, f"{_OWN}.command.4", "llama4"),
    ],
    pods.test_others_get_the_time_that_they_take_to_drain: [
        ("Deployment/master", f"{_POD}.terminationGracePeriodSeconds", 30),
    ],
    pods.test_what_a_service_leads_to_says_when_it_is_ready: [
        ("Deployment/master", f"{_OWN}.readinessProbe", GONE),
    ],
    commands.test_probes_ask_for_what_is_there: [
        ("Deployment/master", f"{_OWN}.livenessProbe.httpGet.path", "/healthz"),
        ("Deployment/master", f"{_OWN}.livenessProbe.httpGet.port", "web"),
        (WORKER, f"{_OWN}.readinessProbe.httpGet.path", "/health"),
    ],
    commands.test_command_lines_of_ours_are_understood: [
        (WORKER, f"{_OWN}.command.1", "work"),
        (WORKER, f"{_OWN}.command.2", "--waits"),
    ],
    commands.test_each_image_runs_what_it_is_made_for: [
        ("Deployment/celery-worker", f"{_OWN}.image", "millrace/worker:0.1.0"),
    ],
    settings.test_every_variable_of_ours_is_one_that_the_code_reads: [
        ("Deployment/master", f"{_OWN}.env.0.name", "MILLRACE_DATABASE_URL"),
    ],
    references.test_everything_that_is_named_is_there: [
        ("Deployment/master", f"{_OWN}.env.0.valueFrom.secretKeyRef.key", "URL"),
        ("Deployment/master", f"{_OWN}.volumeMounts.0.name", "model"),
    ],
    settings.test_nobody_is_given_a_secret_of_others: [
        (WORKER, f"{_OWN}.envFrom", [{"secretRef": {"name": "database"}}]),
    ],
    settings.test_every_process_reads_the_registry_that_is_mounted: [
        (WORKER, f"{_OWN}.env.0.value", "/etc/models.yaml"),
    ],
    settings.test_servers_that_are_reached_from_outside_of_their_pod_listen_there: [
        (WORKER, f"{_OWN}.env.1.value", "127.0.0.1"),
    ],
    references.test_every_image_has_a_tag_of_the_one_place_and_no_host: [
        ("Deployment/master", f"{_OWN}.image", "millrace/master"),
        ("Deployment/master", f"{_OWN}.image", "millrace/master:9"),
    ],
    settings.test_every_address_leads_to_a_service_and_a_port_that_are_there: [
        ("Service/master", "spec.ports.0.port", 80),
        ("Service/rabbitmq", "metadata.name", "broker"),
    ],
    consistency.test_node_ports_are_the_ones_that_are_promised: [
        ("Service/master", "spec.ports.0.nodePort", 31000),
    ],
    network.test_each_pod_is_closed_unless_something_opens_it: [
        ("NetworkPolicy/default-deny", "spec.podSelector", {"matchLabels": {"a": "b"}}),
    ],
    network.test_from_outside_only_what_is_published_is_reached: [
        ("NetworkPolicy/rabbitmq", "spec.ingress.0.from", GONE),
        ("Service/grafana", "spec.type", "ClusterIP"),
    ],
    network.test_every_address_that_a_pod_is_told_can_be_reached_by_it: [
        ("NetworkPolicy/rabbitmq", "spec.ingress.0.ports.0.port", 5671),
    ],
    network.test_the_internet_is_reached_only_by_what_must: [
        ("NetworkPolicy/worker", "spec.egress.0", {}),
    ],
    network.test_keda_reaches_the_management_api_and_nothing_else: [
        ("NetworkPolicy/rabbitmq-from-keda", "spec.ingress.0.ports", GONE),
    ],
    network.test_everybody_may_ask_for_names_and_nobody_for_the_cloud_s_metadata: [
        ("NetworkPolicy/dns", "spec.egress.0.to", [{"podSelector": {}}]),
    ],
    scaling.test_keda_takes_every_scaled_object_without_a_warning: [
        (SCALED, "spec.triggers.0.metadata.protocol", "amqp"),
        (SCALED, "spec.cooldownPeriod", 300),
    ],
    scaling.test_every_model_that_chats_has_workers_that_are_scaled_by_its_own_queue: [
        (SCALED, "spec.triggers.0.metadata.queueName", "subtasks.x"),
    ],
    scaling.test_scaling_is_by_the_backlog_with_what_runs_and_never_shrinks_for_want_of_numbers: [
        (SCALED, "spec.fallback.behavior", "static"),
    ],
    scaling.test_what_is_scaled_has_no_count_of_its_own_and_no_surge: [
        (WORKER, "spec.replicas", 1),
        (WORKER, "spec.strategy.rollingUpdate.maxSurge", 1),
    ],
}
"""By the check that must fail: an object, a field of it, and the value that it is given."""


def _put(target: Any, path: list[str], value: Any) -> None:
    for key in path[:-1]:
        target = target[int(key)] if isinstance(target, list) else target[key]
    last: Any = int(path[-1]) if isinstance(target, list) else path[-1]
    if value is GONE:
        del target[last]
    else:
        target[last] = value


@pytest.mark.parametrize(
    ("check", "name", "field", "value"),
    [(check, *fault) for check, faults in FAULTS.items() for fault in faults],
    ids=[f"{name} {field}" for faults in FAULTS.values() for name, field, _ in faults],
)
def test_a_fault_is_found(
    check: Callable[[Cluster], None],
    name: str,
    field: str,
    value: Any,
    built: Callable[[str], Cluster],
) -> None:
    objects = list(built("docker-desktop").objects)
    (at,) = (at for at, each in enumerate(objects) if title(each) == name)
    objects[at] = copy.deepcopy(objects[at])
    _put(objects[at], field.split("."), value)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(Cluster("docker-desktop", tuple(objects)))
