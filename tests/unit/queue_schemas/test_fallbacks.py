"""Several engines of one registry entry: what may stand beside what, and what each one is."""

from typing import Any

import pytest
from pydantic import ValidationError

from queue_schemas.registry import Model, ProviderName

ENTRY: dict[str, Any] = {
    "name": "large",
    "provider": "openai",
    "endpoint": "https://engines.example/v1",
    "engine_model": "vendor/large-70b",
    "api_key_env": "ENGINE_KEY",
    "remote": True,
    "first_token_seconds": 15,
    "context_length": 4096,
    "options": {"min_p": 0.1},
}


def entry(*fallbacks: dict[str, Any], **fields: Any) -> Model:
    return Model.model_validate(ENTRY | {"fallbacks": fallbacks} | fields)


def test_an_entry_without_fallbacks_has_one_engine_itself() -> None:
    assert entry().engines() == (entry(),)


def test_an_engine_is_the_entry_but_for_what_differs() -> None:
    first, second = entry({"provider": "ollama"}).engines()

    assert first == entry()
    assert (second.name, second.slug, second.context_length) == ("large", "large", 4096)
    assert second.provider is ProviderName.OLLAMA
    assert second.first_token_seconds == 15
    assert not second.fallbacks


def test_nothing_that_belongs_to_the_entrys_engine_goes_to_another_one() -> None:
    second = entry({"provider": "ollama"}).engines()[1]

    assert (second.endpoint, second.api_key_env, second.options) == (None, None, {})
    assert (second.name_at_engine, second.remote) == ("large", False)


def test_an_engine_may_have_a_patience_of_its_own() -> None:
    assert entry({"provider": "ollama", "first_token_seconds": 180}).engines()[1] == entry(
        provider="ollama",
        endpoint=None,
        engine_model=None,
        api_key_env=None,
        remote=False,
        first_token_seconds=180.0,
        options={},
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"fallbacks": [{"provider": "extractive"}]}, "cannot go on with an answer"),
        ({"fallbacks": [{"provider": "embedder"}]}, "cannot go on with an answer"),
        ({"fallbacks": [{"provider": "ollama"}, {"provider": "ollama"}]}, "are the same"),
        (
            {
                "fallbacks": [
                    {
                        "provider": "openai",
                        "endpoint": ENTRY["endpoint"],
                        "engine_model": ENTRY["engine_model"],
                    }
                ]
            },
            "are the same",
        ),
        ({"provider": "extractive", "fallbacks": [{"provider": "ollama"}]}, "only chat models"),
        (
            {"capabilities": ["embedding"], "fallbacks": [{"provider": "ollama"}]},
            "only chat models",
        ),
        ({"fallbacks": [{"provider": "ollama", "first_token_seconds": "9"}]}, "valid number"),
        ({"fallbacks": [{"provider": "ollama", "first_token_seconds": 0}]}, "greater than 0"),
        ({"fallbacks": [{"provider": "ollama", "slots": 2}]}, "Extra inputs"),
        ({"fallbacks": [{}]}, "Field required"),
        ({"fallbacks": [{"provider": "ollama", "fallbacks": []}]}, "Extra inputs"),
        (
            {"fallbacks": [{"provider": "ollama", "engine_model": str(n)} for n in range(9)]},
            "at most 8",
        ),
    ],
)
def test_engines_that_do_not_fit_are_refused_with_a_reason(
    fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        entry(**fields)
