"""Labels whose values are bounded, whatever clients, messages and old rows say."""

from typing import Final

from master.planning.strategies import STRATEGIES
from queue_schemas.registry import Registry

OTHER: Final = "other"

_models: set[str] = set()


def know(registry: Registry) -> list[str]:
    """Take the models of the registry, as it is now, for labels from here on; returns new ones."""
    names = {model.name for model in registry.models}
    fresh = sorted(names - _models)
    _models.intersection_update(names)
    _models.update(fresh)
    return fresh


def model_label(model: str) -> str:
    """The name of a model that is registered; `other` of one that is not, or not any more."""
    return model if model in _models else OTHER


def strategy_label(strategy: str | None) -> str:
    """The name of a strategy without what it is applied to; `other` of what is none."""
    name = (strategy or "").partition(":")[0]
    return name if name in STRATEGIES else OTHER
