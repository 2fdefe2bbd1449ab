"""Choosing the provider of a model; settings that contradict each other."""

import subprocess
import sys

import pytest
from pydantic import SecretStr, ValidationError

from queue_schemas.codec import KeyRing
from queue_schemas.registry import ONLY_EMBED, ProviderName
from tests.doubles.subtasks import a_model
from worker.providers.registry import MODULES, make_provider
from worker.settings import WorkerSettings


def test_every_provider_that_answers_chats_has_a_module() -> None:
    assert MODULES.keys() == set(ProviderName) - ONLY_EMBED


def test_a_queue_key_that_can_be_guessed_is_refused_at_start() -> None:
    with pytest.raises(ValidationError, match="12 characters"):
        WorkerSettings(queue_key=SecretStr("secret"))


@pytest.mark.parametrize("name", MODULES)
async def test_every_provider_can_be_made(name: ProviderName) -> None:
    provider = make_provider(a_model(name.value, endpoint="http://127.0.0.1:9"))

    assert type(provider).__name__.lower() == name.value
    await provider.aclose()


def test_a_worker_does_not_load_the_libraries_of_other_providers() -> None:
    code = (
        "import sys; from worker import consumer; from worker.providers.registry import *;"
        "from queue_schemas.registry import Model;"
        "make_provider(Model(name='m', provider='extractive'));"
        "print(sorted({'openai', 'ollama', 'httpx', 'httpx2'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "[]"


def test_a_bad_script_is_refused_before_any_work() -> None:
    with pytest.raises(ValidationError, match="tokens_per_secnd"):
        make_provider(a_model(options={"tokens_per_secnd": 3}))


def test_names_differ_between_workers_of_one_machine() -> None:
    assert WorkerSettings().name != WorkerSettings().name


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_WORKER_NAME", "gpu-1")
    monkeypatch.setenv("MILLRACE_WORKER_DRAIN_SECONDS", "20")
    monkeypatch.setenv("MILLRACE_QUEUE_KEY", "a shared secret")
    monkeypatch.setenv("MILLRACE_OFFLINE", "true")

    settings = WorkerSettings()

    assert (settings.name, settings.drain_seconds, settings.offline) == ("gpu-1", 20, True)
    assert settings.key_ring == KeyRing.parse("a shared secret")
    assert "a shared secret" not in repr(settings)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"coalesce_seconds": 0.5, "heartbeat_seconds": 0.1}, "smaller than a heartbeat"),
        ({"drain_seconds": 100_000}, "consumer timeout"),
        ({"name": "a b"}, "pattern"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    fields: dict[str, object], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        WorkerSettings.model_validate(fields)
