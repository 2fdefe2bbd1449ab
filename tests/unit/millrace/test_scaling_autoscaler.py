"""The loop over all models: what it does with the registry, and when it knows nothing."""

import asyncio
import contextlib
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from db.depths import Depth
from millrace.scaling.autoscaler import Autoscaler, running
from millrace.scaling.settings import ScalingSettings
from queue_schemas.registry import Model, Registry
from tests.doubles.subtasks import a_model

EMBEDS = Model.model_validate(
    {"name": "vectors", "provider": "sentence-transformers", "capabilities": ["embedding"]}
)


@dataclass
class Process:
    model: str
    name: str
    obeys: bool = True
    code: int | None = None
    signals: list[int] = field(default_factory=list)

    def poll(self) -> int | None:
        return self.code

    def send_signal(self, sig: int) -> None:
        self.signals.append(sig)
        if self.obeys:
            self.code = 0


@dataclass
class World:
    """A machine, a registry and a database, as the test has them."""

    models: list[Model]
    depths: Mapping[str, Depth] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    away: bool = False
    obeys: bool = True
    looks: int = 0

    def registry(self) -> Registry:
        return Registry(models=tuple(self.models))

    async def look(self) -> Mapping[str, Depth]:
        self.looks += 1
        if self.away:
            raise ConnectionRefusedError
        return self.depths

    def launch(self, model: Model, name: str) -> Process:
        self.processes.append(Process(model.name, name, self.obeys))
        return self.processes[-1]

    def alive(self, model: str = "mill") -> int:
        return sum(each.model == model and each.code is None for each in self.processes)

    def autoscaler(self) -> Autoscaler:
        settings = ScalingSettings(seconds=0.01, down_window_seconds=0, down_period_seconds=1)
        return Autoscaler(self.registry, self.look, self.launch, settings)


@pytest.fixture
def world() -> World:
    return World([a_model(max_workers=4), EMBEDS])


def test_only_models_that_chat_have_workers(world: World) -> None:
    world.autoscaler().step({}, 0)
    assert [each.model for each in world.processes] == ["mill"]


def test_each_model_follows_its_own_backlog(world: World) -> None:
    world.models.append(Model(name="quern", provider="scripted", max_workers=4, slug="quern"))
    world.autoscaler().step({"quern": Depth(2, {"w": 1}), "unknown": Depth(9)}, 0)
    assert (world.alive(), world.alive("quern")) == (1, 3)


def test_a_model_that_is_added_gets_workers_and_one_that_vanishes_loses_them(world: World) -> None:
    autoscaler = world.autoscaler()
    autoscaler.step({"mill": Depth(3)}, 0)
    quern = Model(name="quern", provider="scripted", slug="quern")
    world.models = [quern]
    autoscaler.step({"mill": Depth(3)}, 1)
    assert (world.alive(), world.alive("quern")) == (0, 1)
    autoscaler.step({}, 2)
    assert list(autoscaler.pools) == ["quern"]


def test_workers_of_a_vanished_model_finish_before_they_are_forgotten(world: World) -> None:
    world.obeys = False
    autoscaler = world.autoscaler()
    autoscaler.step({}, 0)
    world.models = [Model(name="quern", provider="scripted", slug="quern")]
    for now in (1, 2, 3):
        autoscaler.step({}, now)
    [mill] = [each for each in world.processes if each.model == "mill"]
    assert mill.signals == [signal.SIGTERM]
    assert set(autoscaler.pools) == {"mill", "quern"}
    mill.code = 0
    autoscaler.step({}, 4)
    assert set(autoscaler.pools) == {"quern"}


def test_nobody_goes_while_the_load_is_unknown_but_who_crashed_is_replaced(world: World) -> None:
    autoscaler = world.autoscaler()
    autoscaler.step({"mill": Depth(3)}, 0)
    world.processes[0].code = -9
    for now in range(1, 10):
        autoscaler.step(None, now)
    assert world.alive() == 3
    assert len(world.processes) == 4


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  what is waited for sets no event
            await asyncio.sleep(0.005)


async def test_the_loop_outlives_a_database_that_is_away(world: World) -> None:
    world.away = True
    async with running(world.autoscaler()):
        await until(lambda: world.looks > 3)
        world.away, world.depths = False, {"mill": Depth(4)}
        await until(lambda: world.alive() == 4)
    assert world.alive() == 0


async def test_the_loop_outlives_a_bug(world: World) -> None:
    whole, world.models = world.models, []  # no registry may be empty
    async with running(world.autoscaler()):
        await until(lambda: world.looks > 3)
        world.models = whole
        await until(lambda: world.alive() == 1)


def test_a_bug_with_one_model_costs_the_others_nothing(world: World) -> None:
    world.models = [a_model(name="broken"), *world.models]

    def launch(model: Model, name: str) -> Process:
        if model.name == "broken":
            raise ValueError("a bug")
        return world.launch(model, name)

    Autoscaler(world.registry, world.look, launch, ScalingSettings()).step({}, 0)
    assert world.alive("mill") == 1


async def test_the_end_waits_for_what_workers_have_in_hand(world: World) -> None:
    world.obeys = False
    ending = asyncio.create_task(_run_for_a_moment(world))
    await until(lambda: any(each.signals for each in world.processes))
    await asyncio.sleep(0.2)
    assert not ending.done()
    world.processes[0].code = 0
    await ending
    assert world.processes[0].signals == [signal.SIGTERM]


async def test_who_does_not_want_to_wait_ends_them(world: World) -> None:
    world.obeys = False
    ending = asyncio.create_task(_run_for_a_moment(world))
    await until(lambda: any(each.signals for each in world.processes))
    ending.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ending
    assert ending.cancelled()
    assert world.processes[0].signals == [signal.SIGTERM] * 2


async def _run_for_a_moment(world: World) -> None:
    async with running(world.autoscaler()):
        await until(lambda: world.processes)
