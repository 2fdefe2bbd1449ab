import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from millrace.k8s.budget import over_budget
from millrace.k8s.cluster import Pool
from millrace.k8s.placement import Placed
from queue_schemas.registry import Model, ProviderName


def model(name: str, gib: float, workers: int = 1) -> Model:
    return Model(name=name, provider=ProviderName.OLLAMA, gpu_memory_gib=gib, max_workers=workers)


def judged(pool: Pool, *models: Model) -> list[str]:
    return over_budget([Placed(each, pool) for each in models])


def pool(gpus: int = 1, slices: int = 1, gib: float = 24) -> Pool:
    return Pool(name="p", gpus=gpus, slices=slices, memory_gib=gib)


FITS = {
    "one card for one": (pool(), [model("a", 24)]),
    "a card each": (pool(gpus=3), [model("a", 24, 2), model("b", 1)]),
    "slices of one card": (pool(slices=3), [model("a", 8, 3)]),
    "fewer workers than slices": (pool(slices=8), [model("a", 12, 2)]),
    "slices of several cards": (pool(gpus=2, slices=2), [model("a", 12, 3), model("b", 6)]),
    "main memory": (pool(gpus=0, gib=8), [model("a", 1.8, 2), model("b", 4.4)]),
    "sums that floating point misses": (pool(gpus=0, gib=0.3), [model("a", 0.1, 3)]),
}

EXCEEDS = {
    "larger than a card": (
        pool(),
        [model("a", 24.1)],
        "pool p: one worker of a takes 24.1 GiB, and a GPU has 24. Take a smaller model or "
        "context, or another pool.",
    ),
    "more workers than cards": (
        pool(gpus=2),
        [model("a", 1, 2), model("b", 1)],
        "pool p: max_workers are 2 (a) + 1 (b) = 3, and it has 2 GPUs. Lower max_workers, or "
        "raise gpus or slices if there are more.",
    ),
    "more workers than slices": (
        pool(slices=2),
        [model("a", 1, 3)],
        "pool p: max_workers are 3 (a) = 3, and it has 1 GPU x 2 slices = 2. Lower max_workers, "
        "or raise gpus or slices if there are more.",
    ),
    "the large ones may meet on one card": (
        pool(gpus=2, slices=2),
        [model("a", 16, 2), model("b", 2, 2)],
        "pool p: 16 (a) + 16 (a) = 32 GiB may meet on one GPU of 24: slices share its memory, and "
        "the scheduler does not know it. Lower slices, max_workers or context_length, or give the "
        "large model a pool of its own.",
    ),
    "main memory": (
        pool(gpus=0, gib=8),
        [model("a", 3, 2), model("b", 2.5)],
        "pool p: 2 x 3 (a) + 1 x 2.5 (b) = 8.5 GiB, and it has 8. Lower max_workers or "
        "context_length, take smaller models, or raise memory_gib.",
    ),
    "a footprint that nobody knows": (
        pool(gpus=0),
        [model("a", 0)],
        "pool p. Set it to what one worker takes: weights and context.",
    ),
}


@pytest.mark.parametrize(("where", "models"), FITS.values(), ids=FITS)
def test_what_fits_is_accepted(where: Pool, models: list[Model]) -> None:
    assert judged(where, *models) == []


@pytest.mark.parametrize(("where", "models", "said"), EXCEEDS.values(), ids=EXCEEDS)
def test_what_does_not_fit_is_said_with_its_arithmetic(
    where: Pool, models: list[Model], said: str
) -> None:
    [line] = judged(where, *models)
    assert line.endswith(said)


SMALL, LARGE = model("small", 8, 3), model("large", 20)


@pytest.mark.parametrize(
    ("small", "large"),
    [({"node": "a"}, {"node": "a"}), ({"node": "a", "disk": "b"}, {"node": "a"}), ({}, {"x": "y"})],
)
def test_slices_of_two_pools_on_the_same_nodes_may_meet_on_one_card(
    small: dict[str, str], large: dict[str, str]
) -> None:
    pools = [
        Pool(name="small", gpus=1, slices=3, memory_gib=24, node_selector=small),
        Pool(name="large", gpus=1, memory_gib=24, node_selector=large),
    ]
    found = over_budget([Placed(SMALL, pools[0]), Placed(LARGE, pools[1])])
    assert found == [
        "pools small and large share nodes, and GPUs are cut into slices there: nobody can say "
        "what meets on one GPU. Make them one pool, or give each a node_selector of its own."
    ]


def test_pools_of_other_nodes_or_of_whole_cards_share_nothing() -> None:
    def two(slices: int, first: dict[str, str], second: dict[str, str]) -> list[str]:
        cut = Pool(name="a", gpus=1, slices=slices, memory_gib=24, node_selector=first)
        whole = Pool(name="b", gpus=1, memory_gib=24, node_selector=second)
        return over_budget([Placed(model("a", 8), cut), Placed(LARGE, whole)])

    assert two(3, {"node": "a"}, {"node": "b"}) == []
    assert two(1, {"node": "a"}, {"node": "a"}) == []


def test_pools_are_judged_apart_and_what_has_none_is_not_judged() -> None:
    one, other = pool(), pool(gpus=2).model_copy(update={"name": "q"})
    outside = Placed(model("c", 900), None)
    assert (
        over_budget([Placed(model("a", 24), one), Placed(model("b", 24, 2), other), outside]) == []
    )


@settings(max_examples=50)
@given(
    gpus=st.integers(1, 4),
    slices=st.integers(1, 4),
    gib=st.integers(1, 48),
    models=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 3)), min_size=1, max_size=3),
    order=st.randoms(use_true_random=False),
)
def test_no_scheduler_can_overfill_a_card_with_what_was_accepted(
    gpus: int, slices: int, gib: int, models: list[tuple[int, int]], order: object
) -> None:
    """Whatever is accepted can be placed, and the worst of schedulers overfills no card."""
    where = pool(gpus, slices, gib)
    assume(not judged(where, *(model(str(i), g, n) for i, (g, n) in enumerate(models))))
    replicas = [footprint for footprint, workers in models for _ in range(workers)]
    order.shuffle(replicas)  # type: ignore[attr-defined]  # hypothesis' own Random
    cards = [replicas[i : i + slices] for i in range(0, len(replicas), slices)]  # packed, as it may
    assert len(cards) <= gpus
    assert all(sum(card) <= gib for card in cards)
    worst = max(map(sum, itertools.combinations(replicas, min(slices, len(replicas)))))
    assert worst <= gib


@settings(max_examples=50)
@given(
    gib=st.integers(1, 64),
    models=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 5)), min_size=1, max_size=4),
)
def test_main_memory_holds_all_workers_at_once(gib: int, models: list[tuple[int, int]]) -> None:
    problems = judged(pool(0, 1, gib), *(model(str(i), g, n) for i, (g, n) in enumerate(models)))
    assert (problems == []) == (sum(g * n for g, n in models) <= gib)
