"""How many workers a model has: a ScaledObject for each, and how KEDA logs in to the broker.

KEDA asks how many subtasks wait and run, and has an autoscaler of Kubernetes' follow that number.
"""

from typing import Final

from millrace.k8s.cluster import Cluster
from millrace.k8s.labels import Manifest, labels, worker_labels
from millrace.k8s.placement import Placed
from queue_schemas import topology
from queue_schemas.registry import Model

BROKER_AUTHENTICATION: Final = "broker-keda"


def scaled_object(placed: Placed, cluster: Cluster) -> Manifest:
    """As many workers as subtasks wait and run, between the entry's limits."""
    model = placed.model
    spec: Manifest = {"scaleTargetRef": {"name": placed.name}}
    if not model.min_workers:
        # Only the step between none and one is KEDA's own; with a worker that stays these two
        # have no effect, and KEDA says so.
        spec |= {"pollingInterval": 5, "cooldownPeriod": cluster.scale_down_seconds}
    spec |= {
        "minReplicaCount": model.min_workers,
        "maxReplicaCount": model.max_workers,
        # A broker that is away says nothing of the work there is: nobody leaves.
        "fallback": {
            "failureThreshold": 3,
            "replicas": model.min_workers,
            "behavior": "currentReplicasIfHigher",
        },
        "advanced": {
            "horizontalPodAutoscalerConfig": {
                "behavior": {
                    "scaleUp": {
                        "stabilizationWindowSeconds": 0,
                        "selectPolicy": "Max",
                        "policies": [_pods(model.max_workers, seconds=15)],
                    },
                    "scaleDown": {
                        "stabilizationWindowSeconds": cluster.scale_down_seconds,
                        "selectPolicy": "Min",
                        "policies": [_pods(1, seconds=60)],
                    },
                }
            }
        },
        "triggers": [_trigger(model)],
    }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": placed.name, "labels": worker_labels(model)},
        "spec": spec,
    }


def _pods(count: int, *, seconds: int) -> Manifest:
    return {"type": "Pods", "value": count, "periodSeconds": seconds}


def _trigger(model: Model) -> Manifest:
    return {
        "type": "rabbitmq",
        "name": "subtasks",
        "metricType": "AverageValue",
        "metadata": {
            # Over http the messages in workers' hands count as well: by AMQP it would see none as
            # soon as they are fetched, and take busy workers away.
            "protocol": "http",
            "mode": "QueueLength",
            "queueName": topology.subtasks(model.slug).name,
            # One worker for each subtask, also where one could run several at once (`slots`): the
            # answers come soonest so. `max_workers` is the limit of what that may cost.
            "value": "1",
            "excludeUnacknowledged": "false",
        },
        "authenticationRef": {"name": BROKER_AUTHENTICATION},
    }


def trigger_authentication() -> Manifest:
    """Where KEDA finds the broker, and its user there."""
    parameters = ("host", "username", "password")
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": {"name": BROKER_AUTHENTICATION, "labels": labels("keda", "scaling")},
        "spec": {
            "secretTargetRef": [
                {"parameter": each, "name": BROKER_AUTHENTICATION, "key": each}
                for each in parameters
            ]
        },
    }
