"""What KEDA's RabbitMQ scaler and its admission webhook refuse, and what they only warn of. Pure.

The definitions of the custom resources say nothing about it: a trigger's fields are free strings.
"""

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

from tests.packaging.k8s.manifests import Cluster, Manifest, namespace_of
from tests.packaging.k8s.strict_schemas import KEDA

LONGEST_NAME = 54
"""KEDA puts `keda-hpa-` before it, and a name has 63 characters."""
_NEED_HTTP = {
    "MessageRate",
    "DeliverGetRate",
    "PublishedToDeliveredRatio",
    "ExpectedQueueConsumptionTime",
}
_MODES = {"QueueLength", *_NEED_HTTP}
_MOST_BY_DEFAULT = 100


@cache
def _parameters() -> dict[str, dict[str, Any]]:
    held = json.loads((KEDA / "rabbitmq-scaler-schema.json").read_text("utf-8"))
    return {each["name"]: each for each in held["parameters"]}


def trigger_faults(trigger: Manifest, from_authentication: dict[str, str]) -> Iterator[str]:
    """Of one trigger of type rabbitmq; with what its authentication gives it, by parameter."""
    metadata = trigger["metadata"]
    yield from _unknown(metadata, from_authentication)
    for name, value in metadata.items():
        if not isinstance(value, str):
            yield f"{name} must be a string, not {value!r}"
    given = {**metadata, **from_authentication}
    named = {name.removesuffix("FromEnv") for name in given}
    for name, parameter in _parameters().items():
        if not parameter.get("optional") and "default" not in parameter and name not in named:
            yield f"{name} is missing"
    if ("username" in named) != ("password" in named):
        yield "username and password must come together"
    yield from _target(metadata)
    yield from _protocol(given)


def _unknown(metadata: Manifest, from_authentication: dict[str, str]) -> Iterator[str]:
    readable = {
        name + suffix
        for name, parameter in _parameters().items()
        for suffix, where in (("", "metadata"), ("FromEnv", "env"))
        if parameter.get(f"{where}VariableReadable")
    }
    for name in metadata.keys() - readable:
        yield f"metadata.{name} is nothing that the scaler reads"
    for name in from_authentication:
        if not _parameters().get(name, {}).get("triggerAuthenticationVariableReadable"):
            yield f"the scaler reads no {name} from an authentication"


def _target(metadata: Manifest) -> Iterator[str]:
    mode, value = metadata.get("mode"), metadata.get("value")
    if "queueLength" in metadata:
        yield "queueLength is deprecated: say mode and value"
    if mode not in _MODES:
        yield f"mode must be one of {sorted(_MODES)}, not {mode!r}"
    if not _is_positive(value):
        yield f"value must be a number above 0, not {value!r}"


def _is_positive(value: object) -> bool:
    try:
        return float(str(value)) > 0
    except ValueError:
        return False


def _protocol(given: dict[str, str]) -> Iterator[str]:
    host = given.get("host", "")
    protocol = given.get("protocol", "auto")
    if protocol not in {"auto", "http", "amqp"}:
        yield f"there is no protocol {protocol!r}"
    spoken = "http" if host.startswith("http") else "amqp"
    if protocol not in {"auto", spoken} and host:
        yield f"protocol {protocol} does not fit a host of {spoken}"
    if spoken == "http" or protocol == "http":
        return
    for name, value in given.items():
        if name in {"timeout", "useRegex"} or (name, value) == ("excludeUnacknowledged", "true"):
            yield f"{name} needs http"
    if given.get("mode") in _NEED_HTTP:
        yield f"mode {given['mode']} needs http"
    if given.get("excludeUnacknowledged") == "false":
        yield "amqp counts ready messages only, whatever excludeUnacknowledged says"


def object_faults(scaled: Manifest) -> Iterator[str]:
    """Of one ScaledObject: its CEL rule, and the webhook's warnings taken for errors."""
    spec = scaled["spec"]
    least, most = spec.get("minReplicaCount", 0), spec.get("maxReplicaCount", _MOST_BY_DEFAULT)
    if least > most:
        yield f"minReplicaCount {least} is above maxReplicaCount {most}"
    if len(scaled["metadata"]["name"]) > LONGEST_NAME:
        yield f"the name has more than {LONGEST_NAME} characters"
    names = Counter(each["name"] for each in spec["triggers"] if "name" in each)
    yield from (f"two triggers are called {name}" for name, count in names.items() if count > 1)
    if spec.get("idleReplicaCount") not in {None, 0}:
        yield "only 0 works as idleReplicaCount"
    if least == 0 or "idleReplicaCount" in spec:
        return
    if "cooldownPeriod" in spec:
        yield "cooldownPeriod is not relevant: it never scales to zero"
    cached = any(each.get("useCachedMetrics") for each in spec["triggers"])
    if "pollingInterval" in spec and not cached:
        yield "pollingInterval is not relevant: it never scales to zero"


def authentication(cluster: Cluster, scaled: Manifest, trigger: Manifest) -> dict[str, str]:
    """What the trigger gets from its TriggerAuthentication, by parameter, read in its Secrets.

    Raises LookupError where something that it names is not there.
    """
    reference = trigger.get("authenticationRef")
    if reference is None:
        return {}
    kind = reference.get("kind", "TriggerAuthentication")
    found = cluster.find(kind, reference["name"], namespace_of(scaled))
    if found is None:
        raise LookupError(f"there is no {kind} {reference['name']}")
    given = {}
    for each in found["spec"].get("secretTargetRef", []):
        held = cluster.keys("Secret", each["name"]) or {}
        if each["key"] not in held:
            raise LookupError(f"Secret {each['name']} has no {each['key']}")
        given[each["parameter"]] = held[each["key"]]
    return given
