from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from millrace.chaos.engine import Engine, serve
from millrace.chaos.openai_engine import OpenAIEngine
from queue_schemas.registry import Model
from tests.doubles.ollama_engine import OllamaEngine
from tests.doubles.subtasks import a_model


@dataclass(frozen=True)
class Served:
    """A fake engine and how the registry would name it."""

    engine: Engine
    provider: str
    url: str

    def model(self, **fields: object) -> Model:
        return a_model(self.provider, **{"endpoint": self.url} | fields)


@pytest.fixture
def ollama() -> Iterator[Served]:
    engine = OllamaEngine()
    with serve(engine) as url:
        yield Served(engine, "ollama", url)


@pytest.fixture
def openai() -> Iterator[Served]:
    engine = OpenAIEngine()
    with serve(engine) as url:
        yield Served(engine, "openai", f"{url}/v1")


@pytest.fixture(params=["ollama", "openai"])
def served(request: pytest.FixtureRequest) -> Served:
    """Each engine in turn: what they have in common is tested once."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Served)
    return found
