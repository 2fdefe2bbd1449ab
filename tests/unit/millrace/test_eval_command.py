"""Which embedding model `millrace eval` measures with."""

import pytest

from millrace.commands import eval as command
from millrace.problems import Problem
from queue_schemas.registry import Capability, Model, ProviderName, Registry

CHAT = Model(name="chat", provider=ProviderName.EXTRACTIVE)
NOMIC = Model(
    name="nomic", provider=ProviderName.OLLAMA, capabilities=frozenset({Capability.EMBEDDING})
)


def test_the_registry_decides_before_what_is_installed() -> None:
    assert command._chosen(Registry(models=(CHAT, NOMIC)), None) is NOMIC


@pytest.mark.parametrize(("installed", "chosen"), [(True, command.MINILM), (False, None)])
def test_without_one_in_the_registry_it_depends_on_what_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: bool, chosen: Model | None
) -> None:
    monkeypatch.setattr(command.local_models, "is_installed", lambda name: installed)
    assert command._chosen(Registry(models=(CHAT,)), None) is chosen


def test_without_packaged_weights_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.local_models, "folder_of", lambda name: name)
    assert command._chosen(Registry(models=(CHAT,)), None) is None


def test_the_known_model_may_be_named_without_a_registry_entry() -> None:
    assert command._chosen(Registry(models=(CHAT, NOMIC)), command.MINILM.name) is command.MINILM


@pytest.mark.parametrize("name", ["unheard-of", "chat"])
def test_a_model_that_does_not_embed_is_refused(name: str) -> None:
    with pytest.raises(Problem, match="no embedding model"):
        command._chosen(Registry(models=(CHAT,)), name)
