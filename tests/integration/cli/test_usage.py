import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli.command_line import millrace
from tests.integration.cli.ledger import Books, write

MODELS = """
currency: EUR
models:
- {name: mill, provider: scripted, price: {prompt: 0.1, completion: 0.3}}
- {name: big, provider: scripted, price: {prompt: 10, completion: 30}}
"""


async def spend(books: Books) -> None:
    """Counted work of two tenants and three days, and every way of spending for nothing."""
    request, subtask = await books.request("acme", "ann")
    for attempt, outcome, applied in (
        (1, "engine_busy", True),
        (2, "cancelled", False),
        (3, "completed", False),
        (4, "completed", True),
    ):
        await books.executed(
            request,
            subtask,
            attempt=attempt,
            outcome=outcome,
            applied=applied,
            prompt_tokens=3_000_000,
            completion_tokens=1_000_000,
        )
    for _ in range(7):
        request, subtask = await books.request("zeta", "bob", "big")
        await books.executed(request, subtask, age=timedelta(days=2))
    request, subtask = await books.request("acme")
    await books.executed(request, subtask, age=timedelta(days=40), prompt_tokens=5)


@pytest.fixture
def usage(migrated_url: str, tmp_path: Path) -> Any:
    asyncio.run(write(migrated_url, spend))
    (tmp_path / "models.yaml").write_text(MODELS)
    settings = {"DATABASE_URL": migrated_url, "MILLRACE_MODELS": str(tmp_path / "models.yaml")}

    def run(*arguments: str) -> Any:
        done = millrace("usage", *arguments, **settings)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    return run


def test_sums_are_exact_and_lost_work_is_shown_apart(usage: Any) -> None:
    bill = usage("--json")
    assert bill["currency"] == "EUR"
    acme, zeta = bill["lines"]
    assert acme["key"] == "acme"
    assert acme["counted"] == {
        "executions": 1,
        "prompt_tokens": 3_000_000,
        "completion_tokens": 1_000_000,
        "engine_seconds": 0.1,
        "cost": 0.6,
    }
    assert {fate: sums["executions"] for fate, sums in acme["fates"].items()} == {
        "answered": 1,
        "cancelled": 1,
        "failed": 1,
        "late": 1,
    }
    assert acme["not_counted"]["executions"] == 3
    assert acme["not_counted"]["prompt_tokens"] == 9_000_000
    assert acme["not_counted"]["engine_seconds"] == 0.3, "sums of floats would give 0.30…04"
    assert acme["not_counted"]["cost"] == 1.8
    assert zeta["counted"]["engine_seconds"] == 0.7
    assert zeta["counted"]["cost"] == 0.00091
    assert bill["total"]["counted"]["prompt_tokens"] == 3_000_070


def test_lines_are_by_tenant_model_user_or_day_and_of_the_time_asked_for(usage: Any) -> None:
    keys = {
        by: [line["key"] for line in usage("--by", by, "--since", "60d", "--json")["lines"]]
        for by in ("tenant", "model", "user", "day")
    }
    assert keys["tenant"] == ["acme", "zeta"]
    assert keys["model"] == ["big", "mill"]
    assert keys["user"] == ["", "ann", "bob"]
    assert len(keys["day"]) == 3
    assert keys["day"] == sorted(keys["day"])
    assert [line["key"] for line in usage("--since", "1d", "--json")["lines"]] == ["acme"]
    only = usage("--tenant", "zeta", "--by", "user", "--json")
    assert [line["key"] for line in only["lines"]] == ["bob"]


def test_the_table_fits_and_says_what_is_not_counted(usage: Any) -> None:
    table = usage("--by", "model", "--since", "60d")
    assert max(map(len, table.splitlines())) <= 80
    assert "Total" in table
    assert "12,000,000" in table
    text = " ".join(table.split())
    assert "9 answered, 1 cancelled, 1 failed, 1 late" in text
    assert usage("--tenant", "nobody") == "Nothing was spent in the last 7d.\n"
