"""`millrace openwebui`: one command attaches it, another takes ratings over."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from db import new_requests, tenants
from db.asked import Asked, Message
from db.engine import create_engine
from millrace.chaos.engine import serve
from millrace.openwebui_settings import HEADERS
from tests.doubles.open_webui import EMAIL, KEY, PASSWORD, OpenWebuiDouble
from tests.integration.cli.command_line import millrace

MASTER = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[OpenWebuiDouble, str]]:
    there = OpenWebuiDouble()
    with serve(there) as url:
        yield there, url


@pytest.fixture
def there(served: tuple[OpenWebuiDouble, str]) -> OpenWebuiDouble:
    served[0].reset()
    return served[0]


@pytest.fixture
def settings(served: tuple[OpenWebuiDouble, str], there: OpenWebuiDouble) -> dict[str, str]:
    return {
        "MILLRACE_OPENWEBUI_URL": served[1],
        "MILLRACE_OPENWEBUI_API_KEY": KEY,
        "MILLRACE_API_KEY": "mr-key",
    }


def as_json(*arguments: str, **settings: str) -> Any:
    ended = millrace("openwebui", *arguments, "--json", **settings)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_connecting_sets_what_is_missing_and_a_second_time_nothing(
    there: OpenWebuiDouble, settings: dict[str, str]
) -> None:
    before = there.connections
    would = as_json("connect", "--dry-run", **settings)
    assert would["changes"][0]["what"] == "connection"
    assert (there.connections, there.records) == (before, {})

    ended = millrace("openwebui", "connect", **settings)
    assert ended.returncode == 0, ended.stderr
    assert "access to mill" in ended.stdout
    assert "mr-key" not in ended.stdout
    assert there.connections["OPENAI_API_BASE_URLS"][1] == f"{MASTER}/v1"
    assert there.connections["OPENAI_API_KEYS"] == ["", "mr-key"]
    assert there.connections["OPENAI_API_CONFIGS"]["1"]["headers"] == HEADERS
    assert there.tasks["TASK_MODEL_EXTERNAL"] == "millrace/auto"
    assert set(there.records) == {"mill", "millrace/auto"}

    again = millrace("openwebui", "connect", **settings)
    assert "Nothing to change: 2 models for everybody." in again.stdout


def test_signing_in_makes_an_api_key_for_the_masters(
    there: OpenWebuiDouble, settings: dict[str, str]
) -> None:
    login = {"MILLRACE_OPENWEBUI_PASSWORD": PASSWORD, **settings}
    ended = millrace("openwebui", "connect", "--email", EMAIL, **login)
    assert ended.returncode == 0, ended.stderr
    assert there.admin["ENABLE_API_KEYS"]
    assert f"MILLRACE_OPENWEBUI_API_KEY={there.api_key}" in ended.stdout
    made = there.api_key
    again = as_json("connect", "--email", EMAIL, **login)
    assert (again["changes"], again["api_key"]) == ([], made)

    wrong = millrace("openwebui", "connect", "--email", EMAIL, "--password", "no", **settings)
    assert (wrong.returncode, "incorrect" in wrong.stderr) == (1, True)


def test_a_master_that_open_webui_cannot_reach_is_a_clear_error(
    there: OpenWebuiDouble, settings: dict[str, str]
) -> None:
    there.served = []
    ended = millrace("openwebui", "connect", **settings)
    assert ended.returncode == 1
    assert "finds no model at http://127.0.0.1:8000/v1" in ended.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"MILLRACE_OPENWEBUI_URL": ""}, "MILLRACE_OPENWEBUI_URL is not set"),
        ({"MILLRACE_OPENWEBUI_URL": "here"}, "must begin with http"),
        ({"MILLRACE_OPENWEBUI_URL": "http://127.0.0.1:9"}, "cannot reach Open WebUI"),
        ({"MILLRACE_OPENWEBUI_API_KEY": ""}, "say who you are"),
        ({"MILLRACE_OPENWEBUI_API_KEY": "sk-wrong"}, "API key or the token of an administrator"),
        ({"MILLRACE_API_KEY": ""}, "needs a key"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    settings: dict[str, str], changes: dict[str, str], said: str
) -> None:
    ended = millrace("openwebui", "connect", **settings | changes)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


async def _answered(url: str) -> None:
    engine = create_engine(url)
    async with engine.begin() as connection:
        tenant = await tenants.ensure_tenant(connection, "acme")
        row = new_requests.NewRequest(
            uuid4(),
            tenant,
            "ann",
            "mill",
            "{}",
            "{}",
            seed=1,
            reply_to=None,
            deadline_seconds=600,
            asked=Asked(message=Message("m1", "ann", "c1", "q1")),
        )
        await new_requests.add(connection, row, [])
    await engine.dispose()


def test_pulling_by_hand_says_what_it_found(
    there: OpenWebuiDouble, settings: dict[str, str], migrated_url: str
) -> None:
    database = {**settings, "DATABASE_URL": migrated_url}
    nobody = millrace("openwebui", "pull", **database)
    assert (nobody.returncode, "there are 0 tenants" in nobody.stderr) == (1, True)
    asyncio.run(_answered(migrated_url))
    there.rate("m1", "ann", "c1", -1)
    there.rate("m1", "eve", "c1", -1)
    ended = millrace("openwebui", "pull", **database)
    assert ended.returncode == 0, ended.stderr
    assert "stored as judgements" in ended.stdout
    assert "openwebui.foreign" in ended.stderr
    again = millrace("openwebui", "pull", **database)
    assert "Nothing new." in again.stdout
    found = as_json("status", **database)
    assert found["ratings"]["outcomes"] == {"foreign": 1, "stored": 1}
    assert not found["open_webui"]["connected"]
    shown = millrace("openwebui", "status", **database)
    assert "none: run `millrace openwebui connect`" in shown.stdout
    there.status = 502
    away = millrace("openwebui", "pull", **database)
    assert (away.returncode, "it answered 502" in away.stderr) == (1, True)
