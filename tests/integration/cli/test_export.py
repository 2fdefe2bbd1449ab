"""`millrace export`: whole files or none, and only of those who said yes."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from db import tenants
from tests.integration.cli.command_line import millrace
from tests.integration.cli.ledger import Books, write
from tests.integration.db.answered_chats import answered, said

HOOKS = """
def shout(text): return text.upper()
def fail(text): raise ValueError("cannot")
"""


async def fill(books: Books) -> None:
    """Two rated answers to one question, of which one was corrected."""
    tenant = await tenants.ensure_tenant(books.connection, "acme")
    asked = [{"role": "user", "content": "Why, anna@example.org?"}]
    for answer, score, correction in (("Because.", 1.0, None), ("No.", 0.0, "Yes.")):
        request = await answered(
            books.connection, tenant, question={"messages": asked}, answer=answer
        )
        await said(books.connection, tenant, request, "a", score, correction=correction)


@pytest.fixture
def export(migrated_url: str, tmp_path: Path) -> Any:
    asyncio.run(write(migrated_url, fill))
    (tmp_path / "our_redaction.py").write_text(HOOKS)

    def run(*arguments: str, code: int = 0) -> Any:
        done = millrace("export", *arguments, cwd=tmp_path, DATABASE_URL=migrated_url)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done

    return run


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_chats_are_exported_in_every_format_once_their_tenant_said_yes(
    export: Any, tmp_path: Path
) -> None:
    assert export().stdout == ""
    assert export("consent").stdout == "off acme\n"
    assert "may be exported" in export("consent", "on", "--tenant", "acme").stdout

    sft = export("--redact", "basic")
    assert sft.stderr == "2 lines of 2 rated requests.\n"
    texts = [[m["content"] for m in line["messages"]] for line in lines(sft.stdout)]
    assert sorted(texts) == [["Why, [email]?", "Because."], ["Why, [email]?", "Yes."]]

    out = tmp_path / "pairs.jsonl"
    assert export("--format", "dpo", "--out", str(out)).stdout == ""
    pairs = {
        (line["chosen"][0]["content"], line["rejected"][0]["content"])
        for line in lines(out.read_text("utf-8"))
    }
    assert pairs == {("Yes.", "No."), ("Because.", "No.")}
    assert out.stat().st_mode & 0o777 == 0o600

    both = ("--redact", "basic", "--redact", "our_redaction:shout")
    [liked] = lines(export("--format", "jsonl", "--min-score", "1", *both).stdout)
    assert (liked["messages"][0]["content"], liked["answer"]) == ("WHY, [EMAIL]?", "BECAUSE.")
    assert (liked["score"], liked["judgements"][0]["rater"]) == (1.0, "person-1")
    assert export("--tenant", "nobody").stderr == "0 lines of 0 rated requests.\n"


def test_a_hook_that_fails_leaves_nothing_behind(export: Any, tmp_path: Path) -> None:
    export("consent", "on", "--tenant", "acme")
    out = tmp_path / "chats.jsonl"
    out.write_text("as it was")
    before = sorted(tmp_path.iterdir())
    failed = export("--redact", "our_redaction:fail", "--out", str(out), code=1)
    assert failed.stderr == (
        "millrace: --redact our_redaction:fail failed (ValueError: cannot). Nothing was written.\n"
    )
    there = [path for path in tmp_path.iterdir() if path.name != "__pycache__"]
    assert (out.read_text(), sorted(there)) == ("as it was", before)


NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"
REFUSED = (
    (["--format", "csv"], "'csv' is not one of"),
    (["--since", "long"], "no span of time"),
    (["--min-score", "2"], "less than or equal"),
    (["--redact", "all"], "basic or module:function"),
    (["--out", "nowhere/chats.jsonl"], "there is no folder nowhere"),
    (["consent", "on"], "--tenant NAME"),
    (["consent", "perhaps", "--tenant", "acme"], "on or off"),
)


def test_what_cannot_be_done_is_refused_in_one_line(export: Any) -> None:
    refusals = [(millrace("export", *a, DATABASE_URL=NOWHERE), why) for a, why in REFUSED]
    unknown = export("consent", "on", "--tenant", "nobody", code=1)
    for done, why in (*refusals, (unknown, "there is no tenant 'nobody'")):
        assert done.returncode in {1, 2}
        assert why in done.stderr
        assert len(done.stderr.splitlines()) == 1
