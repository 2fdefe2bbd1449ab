"""The types behind `models.yaml`: names, slugs, and errors that say what is wrong."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from queue_schemas.registry import Capability, Model, Price, Registry, Roles, cheapest, slug


def model(name: str = "codellama:34b-instruct", **fields: object) -> Model:
    return Model.model_validate({"name": name, "provider": "ollama", **fields})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("codellama:34b-instruct", "codellama-34b-instruct"),
        ("Qwen/Qwen2.5-7B", "qwen-qwen2-5-7b"),
        ("--odd--", "odd"),
        ("a" * 80, "a" * 63),
        ("a" * 62 + "-b", "a" * 62),
    ],
)
def test_a_name_becomes_a_slug(name: str, expected: str) -> None:
    assert slug(name) == expected
    assert model(name).slug == expected


@given(st.from_regex(r"[\x21-\x7e]{1,100}", fullmatch=True))
def test_a_slug_is_a_dns_label_or_the_name_is_refused(name: str) -> None:
    try:
        made = model(name).slug
    except ValidationError:
        return
    assert 1 <= len(made) <= 63
    assert made.strip("-") == made
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@given(st.text(max_size=100))
def test_a_slug_of_a_slug_is_itself(name: str) -> None:
    assert slug(slug(name)) == slug(name)


def test_a_given_slug_is_kept() -> None:
    assert model(slug="big").slug == "big"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "millrace/auto"}, "strategies"),
        ({"name": "two words"}, "printable ASCII"),
        ({"name": "../etc"}, "printable ASCII"),
        ({"name": "modèle"}, "printable ASCII"),
        ({"name": ""}, "at least 1 character"),
        ({"name": "///"}, "a-z, 0-9"),
        ({"slug": "Big"}, "a-z, 0-9"),
        ({"slug": "-x"}, "a-z, 0-9"),
        ({"provider": "crystal-ball"}, "ollama"),
        ({"capabilities": ["juggling"]}, "chat"),
        ({"min_workers": 3, "max_workers": 2}, "min_workers is larger than max_workers"),
        ({"max_output_tokens": 8192, "context_length": 8192}, "smaller than context_length"),
        ({"slots": 0}, "greater than or equal to 1"),
        ({"keep_alive": "for a while"}, "pattern"),
        ({"timeout_seconds": 3601}, "less than or equal to 3600"),
        ({"gpu_memory_gib": float("nan")}, "finite"),
        ({"price": {"prompt": -1}}, "greater than or equal to 0"),
        ({"contextlength": 1}, "Extra inputs are not permitted"),
    ],
)
def test_a_wrong_entry_is_refused_with_a_reason(fields: Mapping[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        model(**{"name": "fine", **fields})


def test_the_engine_may_know_it_by_another_name() -> None:
    assert model("big").name_at_engine == "big"
    assert model("big", engine_model="llama3.3:70b").name_at_engine == "llama3.3:70b"


def test_an_embedding_model_does_not_chat() -> None:
    embedder = model("embed", capabilities=["embedding"])
    registry = Registry(models=(model(), embedder))
    assert [m.name for m in registry.chat_models()] == ["codellama:34b-instruct"]
    with pytest.raises(ValidationError, match="at least one model must answer chats"):
        Registry(models=(embedder,))


def test_names_and_slugs_are_unique() -> None:
    with pytest.raises(ValidationError, match="two models have the name 'a'"):
        Registry(models=(model("a"), model("a", slug="b")))
    with pytest.raises(ValidationError, match="two models have the slug 'a-b'"):
        Registry(models=(model("a:b"), model("a/b")))


@pytest.mark.parametrize("role", Roles.model_fields)
def test_a_role_must_name_a_known_model(role: str) -> None:
    models = (model("a"), model("e", capabilities=["embedding"]))
    known = "e" if role == "embedding" else "a"
    assert Registry(models=models, roles=Roles(**{role: known})).get(known)
    with pytest.raises(ValidationError, match=f"roles.{role} names 'b'"):
        Registry(models=models, roles=Roles(**{role: "b"}))


def test_the_embedding_model_of_new_collections_is_named_or_the_first_one() -> None:
    models = (model("a"), *(model(name, capabilities=["embedding"]) for name in ("e", "f")))
    assert Registry(models=models[:1]).default_embedding() is None
    assert Registry(models=models).default_embedding() == models[1]
    assert Registry(models=models, roles=Roles(embedding="f")).default_embedding() == models[2]
    with pytest.raises(ValidationError, match="'a', which does not embed"):
        Registry(models=models, roles=Roles(embedding="a"))


def test_what_auto_chooses_among_is_listed_once_and_has_direct() -> None:
    models = (model("a"),)
    assert Registry(models=models).auto == ("direct", "split", "rag")
    with pytest.raises(ValidationError, match="needs direct"):
        Registry.model_validate({"models": models, "auto": ["split"]})
    with pytest.raises(ValidationError, match="has split twice"):
        Registry.model_validate({"models": models, "auto": ["direct", "split", "split"]})


def test_what_only_embeds_says_so() -> None:
    with pytest.raises(ValidationError, match="only embeds"):
        model("m", provider="sentence-transformers")
    with pytest.raises(ValidationError, match="needs its endpoint"):
        model("m", provider="embedder", capabilities=["embedding"])


def test_no_models_are_no_registry() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        Registry(models=())


def test_an_unknown_name_finds_nothing() -> None:
    assert Registry(models=(model("a"),)).get("b") is None


def test_cheapest_goes_by_price_then_memory_then_order() -> None:
    dear = model("dear", price=Price(prompt=1, completion=1))
    large, small = model("large", gpu_memory_gib=40), model("small", gpu_memory_gib=4)
    assert cheapest([dear, large, small]) is small
    first, second = model("first"), model("second")
    assert cheapest([first, second]) is first


def test_capabilities_default_to_chat() -> None:
    assert model().capabilities == {Capability.CHAT}
