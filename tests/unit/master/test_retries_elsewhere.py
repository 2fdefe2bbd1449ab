"""When and where a retry goes: the budget of a model, and another model for the last attempts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.planning.question import Fleet
from master.retry import (
    Bucket,
    another_model,
    goes_elsewhere,
    goes_elsewhere_on_loss,
    spend,
)
from queue_schemas.messages import ErrorKind
from queue_schemas.registry import Model, Registry


def a_model(name: str, **fields: Any) -> Model:
    return Model.model_validate({"name": name, "provider": "scripted"} | fields)


def a_fleet(*models: Model, live: dict[str, int] | None = None) -> Fleet:
    slots = dict.fromkeys((m.name for m in models), 1) if live is None else live
    return Fleet(registry=Registry(models=models), free_slots=slots)


def test_a_minutes_worth_of_retries_costs_no_wait_and_the_next_ones_come_at_the_steady_rate() -> (
    None
):
    bucket, waits = None, []
    for _ in range(8):
        bucket, wait = spend(bucket, 100.0, per_minute=6)
        waits.append(wait)
    assert waits == [0, 0, 0, 0, 0, 0, 10, 20]


def test_a_quiet_minute_fills_the_budget_and_no_more() -> None:
    empty = Bucket(left=0, at=0)
    assert spend(empty, 60.0, per_minute=6)[0] == Bucket(5, 60.0)
    assert spend(empty, 6000.0, per_minute=6)[0] == Bucket(5, 6000.0)
    assert spend(empty, 10.0, per_minute=6) == (Bucket(0, 10.0), 0)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=200), st.integers(1, 60))
def test_no_minute_sees_more_than_twice_its_budget_whatever_the_failures(
    pauses: list[float], per_minute: int
) -> None:
    now, bucket, times = 0.0, None, []
    for pause in pauses:
        now += pause
        bucket, wait = spend(bucket, now, per_minute)
        times.append(now + wait)
    for start in times:
        assert sum(start <= t < start + 60 for t in times) <= 2 * per_minute + 1


def test_a_clock_that_steps_back_gives_no_credit() -> None:
    bucket, _ = spend(Bucket(left=3, at=100), 50.0, per_minute=60)
    assert bucket == Bucket(2, 100)


@pytest.mark.parametrize(
    ("kind", "code", "attempts"),
    [
        (ErrorKind.TRANSIENT, "engine_busy", {3, 4}),
        (ErrorKind.POISON, "engine_crashed", {1}),
        (ErrorKind.PERMANENT, "model_not_found", {1, 2, 3, 4}),
        (ErrorKind.PERMANENT, "bad_request", set()),
    ],
)
def test_only_the_last_two_attempts_go_elsewhere_and_those_that_the_model_is_to_blame_for(
    kind: ErrorKind, code: str, attempts: set[int]
) -> None:
    assert {n for n in range(1, 8) if goes_elsewhere(kind, code, n, 5)} == attempts


def test_after_losses_only_the_last_chance_goes_elsewhere() -> None:
    goes = [goes_elsewhere_on_loss(n + 1, n, max_attempts=5, max_losses=3) for n in range(3)]
    assert goes == [False, True, True]
    assert not goes_elsewhere_on_loss(5, 0, max_attempts=5, max_losses=3)


def test_another_model_is_live_as_capable_and_has_the_room() -> None:
    planned = a_model("planned", capabilities=["chat", "code"])
    fleet = a_fleet(
        planned,
        a_model("chats-only"),
        a_model("quotes", provider="extractive", capabilities=["chat", "code"]),
        a_model("narrow", capabilities=["chat", "code"], context_length=512, max_output_tokens=64),
        a_model("asleep", capabilities=["chat", "code"]),
        a_model("fit", capabilities=["chat", "code", "vision"]),
        live={"planned": 1, "chats-only": 1, "quotes": 1, "narrow": 1, "fit": 0},
    )
    found = another_model("planned", "planned", 4000, fleet)
    assert found is not None
    assert found.name == "fit"
    assert another_model("planned", "fit", 4000, fleet) is None
    narrow = another_model("planned", "fit", 300, fleet)
    assert narrow is not None
    assert narrow.name == "narrow"


def test_of_several_the_one_that_starts_first_and_then_the_cheapest() -> None:
    dear = a_model("dear", price={"prompt": 9, "completion": 9})
    models = (a_model("planned"), dear, a_model("cheap"))
    both = another_model("planned", "planned", 10, a_fleet(*models))
    assert both is not None
    assert both.name == "cheap"
    busy = {"planned": 1, "dear": 1, "cheap": 0}
    free = another_model("planned", "planned", 10, a_fleet(*models, live=busy))
    assert free is not None
    assert free.name == "dear"


def test_for_a_model_that_left_the_registry_any_live_one_that_writes_and_has_room_stands_in() -> (
    None
):
    narrow = a_model("narrow", context_length=512, max_output_tokens=256)
    quoting = a_model("quoting", provider="extractive")
    cold, here = a_model("cold"), a_model("here")
    live = {"narrow": 1, "quoting": 1, "here": 1}
    found = another_model("gone", "gone", 600, a_fleet(narrow, quoting, cold, here, live=live))
    assert found is not None
    assert found.name == "here"
    assert another_model("gone", "here", 600, a_fleet(narrow, quoting, here, live=live)) is None
