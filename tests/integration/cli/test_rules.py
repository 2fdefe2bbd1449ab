"""`millrace rules` against a real master."""

import asyncio
import io
import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from millrace import cli
from tests.integration.cli.command_line import environment
from tests.integration.master.mill import Mill, a_script, installation

FILE = """
rules:
  - name: brief
    scope: {strategy: rag, topic: [tax, VAT]}
    change:
      kind: prompt
      text: |
        Be brief.
        Name the paragraph.
    note: Seven of nine said that it is too long.
  - name: big
    change: {kind: route, model: large}
"""


@pytest.fixture
async def mill(migrated_url: str) -> AsyncGenerator[Mill]:
    async with installation(migrated_url, a_script(), a_script(name="large")) as made:
        yield made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(FILE)
    return path


@dataclass(frozen=True)
class Done:
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def words(self) -> str:
        """What it said, without the layout."""
        return " ".join((self.stdout + self.stderr).split())


Run = Callable[..., Awaitable[Done]]


@pytest.fixture
def run(mill: Mill, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Carries a command out in this process, in a thread, because the master is here as well."""
    for name, value in environment(MILLRACE_URL=mill.url, MILLRACE_API_KEY=mill.key).items():
        monkeypatch.setenv(name, value)

    async def carry_out(*arguments: str, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()  # what the master logged
        code = await asyncio.to_thread(cli.run, ["rules", *arguments])
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return carry_out


async def said(run: Run, *arguments: str, stdin: str = "") -> str:
    done = await run(*arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.words


async def test_a_rule_goes_its_way(run: Run, file: Path) -> None:
    assert "There is no such rule" in await said(run, "list")
    proposed = await said(run, "propose", str(file))
    assert "brief@1 is proposed (" in proposed
    assert "big@1 is proposed (" in proposed
    assert "brief@1 is shadow." in await said(run, "try", "brief")
    assert "is canary for 20 % of what fits." in await said(run, "try", "brief@1", "--share", "20%")
    listed = await run("list")
    assert max(map(len, listed.stdout.splitlines())) <= 80
    assert "brief@1 canary 20 %" in listed.words
    assert "big@1 proposed everywhere route: model large" in listed.words
    assert "brief@1 is active." in await said(run, "approve", "brief", "--note", "people like it")
    again = FILE.replace("Be brief.", "Be very brief.")
    assert "brief@2 is proposed" in await said(run, "propose", "-", stdin=again)
    assert "brief@2 is active." in await said(run, "approve", "brief")
    page = await said(run, "show", "brief@1")
    for fact in (
        "state retired",
        "note people like it",
        "decided by key:tests (mr-",
        "proposed by key:tests (mr-",
        "text: | Be brief. Name the paragraph.",
        "brief@2 active rag, topic tax or VAT",
    ):
        assert fact in page, page
    assert await said(run, "rollback", "brief") == "brief@1 is active. brief@2 is retired."
    assert await said(run, "rollback", "brief", "--to", "0") == "brief@1 is retired."
    assert "big@1 is rejected." in await said(run, "reject", "big")


async def test_a_diff_shows_what_changed_line_by_line(run: Run, file: Path) -> None:
    await said(run, "propose", str(file))
    first = (await run("diff", "brief")).stdout.splitlines()
    assert first[:2] == ["--- nothing", "+++ brief version 1"]
    assert "+    Be brief." in first
    assert not [line for line in first[2:] if line.startswith("-")]
    changed = FILE.replace("Be brief.", "Be very brief.").replace("tax, VAT", "tax")
    await said(run, "propose", "-", stdin=changed)
    lines = (await run("diff", "brief")).stdout.splitlines()
    assert [line for line in lines if line[0] in "+-"] == [
        "--- brief version 1",
        "+++ brief version 2",
        "-  - VAT",
        "-    Be brief.",
        "+    Be very brief.",
    ]
    back = json.loads((await run("diff", "brief", "2", "1", "--json")).stdout)
    assert (back["name"], back["from"], back["to"]) == ("brief", 2, 1)
    assert "+    Be brief." in back["diff"]
    assert await said(run, "diff", "brief", "1", "1") == "They say the same."


async def test_json_is_what_the_master_said(run: Run, file: Path) -> None:
    proposed = json.loads((await run("propose", str(file), "--json")).stdout)
    assert [each["name"] for each in proposed] == ["brief", "big"]
    listed = json.loads((await run("list", "--name", "big", "--json")).stdout)
    assert [each["id"] for each in listed] == [proposed[1]["id"]]
    shown = json.loads((await run("show", proposed[0]["id"], "--json")).stdout)
    assert shown["history"] == [proposed[0]]
    moved = json.loads((await run("approve", "big", "--json")).stdout)
    assert moved["state"] == "active"
    [back] = json.loads((await run("rollback", "big", "--json")).stdout)
    assert back["state"] == "retired"


async def test_a_wrong_rule_in_a_file_is_named_and_those_before_it_stay(run: Run) -> None:
    broken = FILE.replace("model: large", "model: gone")
    done = await run("propose", "-", stdin=broken)
    assert done.returncode == 1
    assert done.stderr == (
        "millrace: -: rule 2 (big): change.model must be one of large, mill. "
        "1 before it are proposed.\n"
    )
    assert "brief@1 proposed" in await said(run, "list")


async def test_what_cannot_work_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    await said(run, "propose", "-", stdin=FILE)
    cases: list[tuple[tuple[str, ...], str]] = [
        (("show", "unknown"), "there is no rule 'unknown'"),
        (("show", "brief@7"), "there is no version 7; there are: 1"),
        (("show", "brief@new"), "'new' is no version: write brief@2"),
        (("show", "00000000-0000-4000-8000-000000000000"), "this rule does not exist"),
        (("list", "--state", "asleep"), "state"),
        (("try", "brief", "--share", "120%"), "is no share: write 20% or 0.2"),
        (("diff", "brief", "3"), "there is no version 3"),
        (("rollback", "brief"), "no version of brief is active"),
        (("propose", str(tmp_path / "none.yaml")), "none.yaml: no such file"),
        (("propose", str(tmp_path / "bytes.yaml")), "this is not UTF-8"),
    ]
    for arguments, says in cases:
        done = await run(*arguments)
        assert done.returncode != 0, arguments
        assert says in done.words, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
