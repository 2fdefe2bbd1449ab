"""The registry of models that a cluster has, as a process with this environment reads it."""

import re
from collections.abc import Mapping
from functools import cache

from millrace import models_file
from queue_schemas.registry import Registry
from tests.packaging.k8s.manifests import Cluster


def registry_of(cluster: Cluster, env: Mapping[str, str]) -> Registry:
    """What is in the ConfigMap `models`."""
    return parsed((cluster.keys("ConfigMap", "models") or {})["models.yaml"], env)


def parsed(text: str, env: Mapping[str, str]) -> Registry:
    """Once for each file and what it takes from the environment: that is not quick."""
    names = set(re.findall(r"\$\{(\w+)", text))
    return _parsed(text, frozenset((name, env[name]) for name in names & env.keys()))


@cache
def _parsed(text: str, env: frozenset[tuple[str, str]]) -> Registry:
    return models_file.parse(text, "models.yaml", dict(env))
