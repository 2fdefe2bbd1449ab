"""ScaledObjects: what KEDA and the HPA would refuse, warn of or do wrong, before they see them."""

import copy
import json
from collections import Counter
from typing import Any

import pytest

from queue_schemas import topology
from tests.packaging.k8s.addresses import addresses_in, ports_behind
from tests.packaging.k8s.manifests import Cluster, Manifest, title
from tests.packaging.k8s.registries import registry_of
from tests.packaging.k8s.scaler_rules import authentication, object_faults, trigger_faults


def _faults(cluster: Cluster, scaled: Manifest) -> list[str]:
    found = list(object_faults(scaled))
    for trigger in scaled["spec"]["triggers"]:
        assert trigger["type"] == "rabbitmq"
        found += trigger_faults(trigger, authentication(cluster, scaled, trigger))
    return [f"{title(scaled)}: {fault}" for fault in found]


def _target(cluster: Cluster, scaled: Manifest) -> Manifest:
    reference = scaled["spec"]["scaleTargetRef"]
    found = cluster.find(reference.get("kind", "Deployment"), reference["name"])
    assert found is not None, f"{title(scaled)} scales {reference}, which is not there"
    return found


def test_keda_takes_every_scaled_object_without_a_warning(cluster: Cluster) -> None:
    scaled = cluster.of("ScaledObject")
    assert [fault for each in scaled for fault in _faults(cluster, each)] == []


def test_what_is_scaled_has_no_count_of_its_own_and_no_surge(cluster: Cluster) -> None:
    targets = [_target(cluster, each) for each in cluster.of("ScaledObject")]
    for target in targets:
        assert "replicas" not in target["spec"], title(target)
        assert target["spec"]["strategy"] == {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
        }, title(target)
    assert [name for name, count in Counter(map(title, targets)).items() if count > 1] == []
    assert not cluster.of("HorizontalPodAutoscaler"), "two autoscalers would fight"


def test_every_model_that_chats_has_workers_that_are_scaled_by_its_own_queue(
    cluster: Cluster,
) -> None:
    expected = {
        f"worker-{model.slug}": (
            topology.subtasks(model.slug).name,
            model.min_workers,
            model.max_workers,
        )
        for model in registry_of(cluster, {}).chat_models()
    }
    found = {
        each["metadata"]["name"]: (
            each["spec"]["triggers"][0]["metadata"]["queueName"],
            each["spec"]["minReplicaCount"],
            each["spec"]["maxReplicaCount"],
        )
        for each in cluster.of("ScaledObject")
    }
    assert found == expected
    workers = {each.name for each in cluster.workloads if each.name.startswith("worker-")}
    assert workers == set(expected)


def test_scaling_is_by_the_backlog_with_what_runs_and_never_shrinks_for_want_of_numbers(
    cluster: Cluster,
) -> None:
    for each in cluster.of("ScaledObject"):
        spec = each["spec"]
        (trigger,) = spec["triggers"]
        metadata = trigger["metadata"]
        # By AMQP only waiting messages count, and busy workers would be taken away.
        assert (metadata["protocol"], metadata["mode"], metadata["value"]) == (
            "http",
            "QueueLength",
            "1",
        )
        assert metadata.get("excludeUnacknowledged", "false") == "false"
        assert trigger.get("metricType", "AverageValue") == "AverageValue"
        assert "useCachedMetrics" not in trigger
        assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        up, down = behavior["scaleUp"], behavior["scaleDown"]
        assert up["stabilizationWindowSeconds"] == 0
        assert max(policy["value"] for policy in up["policies"]) >= spec["maxReplicaCount"]
        assert down["stabilizationWindowSeconds"] >= 60
        assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]


def test_the_broker_s_secret_leads_to_a_user_and_vhost_that_the_definitions_have(
    cluster: Cluster,
) -> None:
    held = cluster.keys("Secret", "broker-keda") or {}
    definitions = json.loads(
        (cluster.keys("Secret", "broker-definitions") or {})["definitions.json"]
    )
    users = {each["name"]: each for each in definitions["users"]}
    vhosts = {each["name"] for each in definitions["vhosts"]}
    assert held["host"].rpartition("/")[2] in vhosts
    (address,) = addresses_in(held["host"])
    # KEDA asks from a namespace of its own, where a short name would lead nowhere.
    assert address.namespace == "millrace"
    service = address.service(cluster, "keda")
    assert service
    assert ports_behind(cluster, service, address.port) == {("rabbitmq", 15672)}
    assert "management" in users[held["username"]]["tags"]
    queues = {(each["vhost"], each["name"]) for each in definitions["queues"]}
    for each in cluster.of("ScaledObject"):
        name = each["spec"]["triggers"][0]["metadata"]["queueName"]
        assert (held["host"].rpartition("/")[2], name) in queues


GOOD: dict[str, Any] = {
    "kind": "ScaledObject",
    "metadata": {"name": "worker-x", "namespace": "millrace"},
    "spec": {
        "scaleTargetRef": {"name": "worker-x"},
        "minReplicaCount": 1,
        "maxReplicaCount": 4,
        "triggers": [
            {
                "type": "rabbitmq",
                "metadata": {
                    "queueName": "subtasks.x",
                    "mode": "QueueLength",
                    "value": "1",
                    "protocol": "http",
                    "excludeUnacknowledged": "false",
                },
            }
        ],
    },
}
SECRET = {"host": "http://rabbitmq:15672/millrace", "username": "keda", "password": "x"}


def test_the_rules_take_what_is_right() -> None:
    assert list(object_faults(GOOD)) == []
    assert list(trigger_faults(GOOD["spec"]["triggers"][0], SECRET)) == []


@pytest.mark.parametrize(
    ("change", "secret", "said"),
    [
        ({"value": 1}, SECRET, "value must be a string"),
        ({"value": "0"}, SECRET, "above 0"),
        ({"value": "many"}, SECRET, "above 0"),
        ({"mode": "Length"}, SECRET, "mode must be one of"),
        ({"queueLength": "5"}, SECRET, "deprecated"),
        ({"queue": "x"}, SECRET, "metadata.queue is nothing"),
        ({"queueNameFromEnv": "X"}, SECRET, "metadata.queueNameFromEnv is nothing"),
        ({"password": "x"}, SECRET, "metadata.password is nothing"),
        ({}, {"username": "keda", "password": "x"}, "host is missing"),
        ({}, {"host": SECRET["host"], "username": "keda"}, "must come together"),
        ({}, {**SECRET, "queueName": "x"}, "reads no queueName from an authentication"),
        ({"protocol": "amqp"}, SECRET, "protocol amqp does not fit"),
        ({"protocol": "auto"}, {**SECRET, "host": "amqp://mq/v"}, "ready messages only"),
        (
            {"protocol": "amqp", "excludeUnacknowledged": "true"},
            {**SECRET, "host": "amqp://mq/v"},
            "excludeUnacknowledged needs http",
        ),
        (
            {"protocol": "amqp", "timeout": "5"},
            {**SECRET, "host": "amqp://mq/v"},
            "timeout needs http",
        ),
        (
            {"protocol": "amqp", "mode": "MessageRate"},
            {**SECRET, "host": "amqp://mq/v"},
            "mode MessageRate needs http",
        ),
    ],
)
def test_a_trigger_that_the_scaler_would_refuse_is_refused(
    change: dict[str, Any], secret: dict[str, str], said: str
) -> None:
    trigger = copy.deepcopy(GOOD["spec"]["triggers"][0])
    trigger["metadata"] |= change
    assert any(said in fault for fault in trigger_faults(trigger, secret))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"minReplicaCount": 5}, "above maxReplicaCount"),
        ({"minReplicaCount": 101, "maxReplicaCount": None}, "above maxReplicaCount"),
        ({"cooldownPeriod": 300}, "cooldownPeriod is not relevant"),
        ({"pollingInterval": 5}, "pollingInterval is not relevant"),
        ({"idleReplicaCount": 1}, "only 0 works"),
    ],
)
def test_a_scaled_object_that_the_webhook_would_refuse_or_warn_of_is_refused(
    change: dict[str, Any], said: str
) -> None:
    scaled = copy.deepcopy(GOOD)
    scaled["spec"] = {
        key: value for key, value in (scaled["spec"] | change).items() if value is not None
    }
    assert any(said in fault for fault in object_faults(scaled))


def test_names_are_counted_with_what_keda_puts_before_them() -> None:
    scaled = copy.deepcopy(GOOD)
    scaled["metadata"]["name"] = "worker-" + "x" * 48
    assert any("54 characters" in fault for fault in object_faults(scaled))


def test_scaling_to_zero_may_say_how_often_it_looks() -> None:
    scaled = copy.deepcopy(GOOD)
    scaled["spec"] |= {"minReplicaCount": 0, "cooldownPeriod": 300, "pollingInterval": 5}
    assert list(object_faults(scaled)) == []
