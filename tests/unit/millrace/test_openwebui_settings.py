"""What is changed in Open WebUI: ours, once, and nothing that somebody else has set."""

from typing import Any

import pytest

from millrace.openwebui_settings import (
    HEADERS,
    TASK_MODEL,
    connection,
    grants,
    own_models,
    task_model,
)
from millrace.problems import Problem

URL = "http://127.0.0.1:8000/v1"
FRESH: dict[str, Any] = {
    "ENABLE_OPENAI_API": True,
    "OPENAI_API_BASE_URLS": ["https://api.example.org/v1"],
    "OPENAI_API_KEYS": ["sk-theirs"],
    "OPENAI_API_CONFIGS": {"0": {"enable": False, "prefix_id": "far"}},
}


def test_a_new_connection_is_added_behind_the_others() -> None:
    found, index, changes = connection(FRESH, URL, "mr-key")
    assert index == 1
    assert found["OPENAI_API_BASE_URLS"] == [*FRESH["OPENAI_API_BASE_URLS"], URL]
    assert found["OPENAI_API_KEYS"] == ["sk-theirs", "mr-key"]
    assert found["OPENAI_API_CONFIGS"]["0"] == FRESH["OPENAI_API_CONFIGS"]["0"]
    assert found["OPENAI_API_CONFIGS"]["1"] == {"enable": True, "headers": dict(HEADERS)}
    assert [change.what for change in changes] == ["connection", "headers of the connection"]
    assert "mr-key" not in str(changes)


def test_the_same_again_changes_nothing() -> None:
    found, _, _ = connection(FRESH, URL, "mr-key")
    for key in ("mr-key", None):
        again, index, changes = connection(found, URL, key)
        assert (again, index, changes) == (found, 1, [])


def test_an_old_connection_is_mended_and_keeps_what_is_not_ours() -> None:
    old = {
        "ENABLE_OPENAI_API": False,
        "OPENAI_API_BASE_URLS": [URL + "/"],
        "OPENAI_API_KEYS": [],
        "OPENAI_API_CONFIGS": {
            "0": {
                "enable": False,
                "tags": [{"name": "mill"}],
                "headers": {"X-Own": "1", "x-millrace-task": "{{TASK}}"},
            }
        },
    }
    found, index, changes = connection(old, URL, "mr-key")
    assert (index, found["OPENAI_API_BASE_URLS"]) == (0, [URL + "/"])
    assert found["OPENAI_API_KEYS"] == ["mr-key"]
    assert found["OPENAI_API_CONFIGS"]["0"]["tags"] == [{"name": "mill"}]
    assert found["OPENAI_API_CONFIGS"]["0"]["headers"] == {"X-Own": "1", **HEADERS}
    assert {change.what for change in changes} == {
        "key of the connection",
        "headers of the connection",
        "state of the connection",
        "OpenAI API",
    }
    assert old["OPENAI_API_CONFIGS"]["0"]["enable"] is False  # it is not changed in place


def test_settings_by_address_are_of_an_older_release_and_are_found() -> None:
    old = FRESH | {"OPENAI_API_BASE_URLS": [URL], "OPENAI_API_CONFIGS": {URL: {"prefix_id": "m"}}}
    found, _, _ = connection(old, URL, None)
    assert found["OPENAI_API_CONFIGS"]["0"]["prefix_id"] == "m"


def test_a_new_connection_needs_a_key() -> None:
    with pytest.raises(Problem, match="needs a key"):
        connection(FRESH, URL, None)


@pytest.mark.parametrize("odd", [{}, {"OPENAI_API_BASE_URLS": None, "OPENAI_API_KEYS": None}])
def test_settings_that_are_empty_are_filled(odd: dict[str, Any]) -> None:
    found, index, _ = connection(odd, URL, "mr-key")
    assert (index, found["OPENAI_API_KEYS"]) == (0, ["mr-key"])


@pytest.mark.parametrize(
    ("before", "wanted", "after"),
    [
        (None, None, TASK_MODEL),
        ("", None, TASK_MODEL),
        ("small", None, "small"),
        ("small", "tiny", "tiny"),
        ("tiny", "tiny", "tiny"),
    ],
)
def test_the_model_of_background_prompts_stays_if_somebody_chose_it(
    before: str | None, wanted: str | None, after: str
) -> None:
    config = {"TASK_MODEL_EXTERNAL": before, "ENABLE_TITLE_GENERATION": True}
    found, changes = task_model(config, wanted)
    assert found == {"TASK_MODEL_EXTERNAL": after, "ENABLE_TITLE_GENERATION": True}
    assert len(changes) == int((before or "") != after)


def test_models_are_opened_once_and_their_other_users_stay() -> None:
    public = {"principal_type": "user", "principal_id": "*", "permission": "read"}
    group = {"principal_type": "group", "principal_id": "g1", "permission": "write"}
    records = [
        {"id": "a", "access_grants": [{**public, "id": "x", "created_at": 1}]},
        {"id": "b", "access_grants": [{**group, "id": "y"}, "odd"]},
        {"id": "c", "access_grants": None},
    ]
    found = grants(records, ["a", "b", "c", "d"])
    assert found == {"b": [group, public], "c": [public], "d": [public]}


def test_only_models_of_our_connection_are_ours() -> None:
    models = {"data": [{"id": "a", "urlIdx": 1}, {"id": "b", "urlIdx": 0}, {"urlIdx": 1}, "odd"]}
    assert own_models(models, 1) == ["a"]
    assert own_models({}, 1) == own_models({"data": None}, 1) == []
