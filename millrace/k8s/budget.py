"""Whether the models fit the memory, whatever the scheduler does. Pure.

The scheduler counts devices and knows nothing of their memory. So a number of workers is only
allowed if no way of placing them overfills a card.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from millrace.k8s.cluster import Pool
from millrace.k8s.placement import Placed
from queue_schemas.registry import Model

_ROUNDING_GIB = 1e-6


@dataclass(frozen=True)
class _Replica:
    name: str
    gib: float


def over_budget(placed: Iterable[Placed]) -> list[str]:
    """What does not fit, with the arithmetic and the remedy; nothing of models without a pool."""
    by_pool: dict[str, tuple[Pool, list[Model]]] = {}
    for each in placed:
        if each.pool is not None:
            by_pool.setdefault(each.pool.name, (each.pool, []))[1].append(each.model)
    found = [line for pool, models in by_pool.values() for line in _of_pool(pool, models)]
    return found + _cut_together([pool for pool, _ in by_pool.values()])


def _cut_together(pools: Iterable[Pool]) -> list[str]:
    """Slices are a node's, so what is said of one pool's cards holds only if they are its own."""
    return [
        f"pools {one.name} and {other.name} share nodes, and GPUs are cut into slices there: "
        "nobody can say what meets on one GPU. Make them one pool, or give each a node_selector of "
        "its own."
        for one, other in itertools.combinations((pool for pool in pools if pool.gpus), 2)
        if max(one.slices, other.slices) > 1 and _share_nodes(one, other)
    ]


def _share_nodes(one: Pool, other: Pool) -> bool:
    """Whether all nodes of one are the other's as well."""
    first, second = one.node_selector.items(), other.node_selector.items()
    return first <= second or second <= first


def _of_pool(pool: Pool, models: Sequence[Model]) -> list[str]:
    unknown = [
        f"{model.name}: gpu_memory_gib is not set, so nobody can say whether it fits pool "
        f"{pool.name}. Set it to what one worker takes: weights and context."
        for model in models
        if not model.gpu_memory_gib
    ]
    if unknown:
        return unknown
    if not pool.gpus:
        return _together(pool, models)
    return [*_too_large(pool, models), *_too_many(pool, models), *_on_one_card(pool, models)]


def _together(pool: Pool, models: Sequence[Model]) -> list[str]:
    total = sum(model.max_workers * model.gpu_memory_gib for model in models)
    if total <= pool.memory_gib + _ROUNDING_GIB:
        return []
    terms = " + ".join(f"{m.max_workers} x {m.gpu_memory_gib:g} ({m.name})" for m in models)
    return [
        f"pool {pool.name}: {terms} = {total:g} GiB, and it has {pool.memory_gib:g}. "
        "Lower max_workers or context_length, take smaller models, or raise memory_gib."
    ]


def _too_large(pool: Pool, models: Sequence[Model]) -> list[str]:
    return [
        f"pool {pool.name}: one worker of {model.name} takes {model.gpu_memory_gib:g} GiB, and a "
        f"GPU has {pool.memory_gib:g}. Take a smaller model or context, or another pool."
        for model in models
        if model.gpu_memory_gib > pool.memory_gib + _ROUNDING_GIB
    ]


def _too_many(pool: Pool, models: Sequence[Model]) -> list[str]:
    wanted, there = sum(model.max_workers for model in models), pool.gpus * pool.slices
    if wanted <= there:
        return []
    terms = " + ".join(f"{model.max_workers} ({model.name})" for model in models)
    have = f"{pool.gpus} GPU{'s' * (pool.gpus > 1)}" + (
        f" x {pool.slices} slices = {there}" if pool.slices > 1 else ""
    )
    return [
        f"pool {pool.name}: max_workers are {terms} = {wanted}, and it has {have}. "
        "Lower max_workers, or raise gpus or slices if there are more."
    ]


def _on_one_card(pool: Pool, models: Sequence[Model]) -> list[str]:
    """The scheduler may put the largest ones on one card, as many as it has slices."""
    replicas = [_Replica(m.name, m.gpu_memory_gib) for m in models for _ in range(m.max_workers)]
    worst = sorted(replicas, key=lambda replica: -replica.gib)[: pool.slices]
    total = sum(replica.gib for replica in worst)
    if len(worst) < 2 or total <= pool.memory_gib + _ROUNDING_GIB:
        return []
    terms = " + ".join(f"{replica.gib:g} ({replica.name})" for replica in worst)
    return [
        f"pool {pool.name}: {terms} = {total:g} GiB may meet on one GPU of {pool.memory_gib:g}: "
        "slices share its memory, and the scheduler does not know it. Lower slices, max_workers "
        "or context_length, or give the large model a pool of its own."
    ]
