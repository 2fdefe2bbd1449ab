"""`millrace ingest` a second time, with an engine or a master that is away, and what it says."""

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from millrace.chaos.stack import until
from tests.forking import Forked
from tests.integration.cli.command_line import ROOT, Terminal, environment, millrace
from tests.integration.master.mill import Mill, a_script, installation

AWAY = {
    "name": "vectors",
    "provider": "embedder",
    "endpoint": "http://127.0.0.1:9",
    "capabilities": ["embedding"],
}


@pytest.fixture
async def mill(migrated_url: str) -> AsyncGenerator[Mill]:
    async with installation(migrated_url, a_script(), ingest_seconds=0.5) as made:
        yield made


@pytest.fixture
async def without_engine(migrated_url: str) -> AsyncGenerator[Mill]:
    """Its first collection wants vectors that nobody gives."""
    settings = {"ingest_seconds": 0.2, "ingest_max_attempts": 2, "ingest_retry_seconds": 600}
    async with installation(migrated_url, a_script(), AWAY, **settings) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "notes"
    (made / "deep").mkdir(parents=True)
    (made / "a.md").write_text("The wheel is old.")
    (made / "deep" / "a.md").write_text("The stone is old.")
    return made


def settings_of(mill: Mill) -> dict[str, str]:
    return {"MILLRACE_URL": mill.url, "MILLRACE_API_KEY": mill.key}


async def run(mill: Mill, *arguments: str, columns: int = 120) -> subprocess.CompletedProcess[str]:
    """In a thread, because the master is in this one."""
    settings: dict[str, Any] = settings_of(mill) | {"COLUMNS": str(columns)}
    return await asyncio.to_thread(millrace, *arguments, **settings)


@contextlib.contextmanager
def begun(mill: Mill, tmp_path: Path, *arguments: str) -> Iterator[tuple[Forked, Path, Path]]:
    """A command that runs, and the files that it writes to."""
    said = tmp_path / "stdout", tmp_path / "stderr"
    settings = environment(**settings_of(mill), COLUMNS="120")
    process = Forked(arguments, settings, (Path(os.devnull), *said), ROOT)
    try:
        yield process, *said
    finally:
        process.kill()
        process.wait()


async def until_said(file: Path, words: str) -> None:
    def there() -> bool:
        return file.exists() and words in file.read_text("utf-8")

    await until(lambda: asyncio.to_thread(there), 60)


async def try_again(mill: Mill) -> None:
    """Let the pauses of all documents be over, once all have one."""

    async def all_wait() -> bool:
        [row] = await mill.rows(
            "SELECT bool_and(state = 'waiting' AND error IS NOT NULL) FROM millrace.documents"
        )
        return bool(row[0])

    await until(all_wait, 60)
    async with mill.running.engine.begin() as connection:
        await connection.execute(text("UPDATE millrace.documents SET available_at = now()"))


async def found(mill: Mill) -> dict[str, str]:
    rows = await mill.rows(
        "SELECT d.name, c.text FROM millrace.chunks c"
        " JOIN millrace.documents d ON d.id = c.document_id"
    )
    return {row[0]: row[1] for row in rows}


async def test_a_changed_file_replaces_the_document_of_its_path(mill: Mill, folder: Path) -> None:
    assert (await run(mill, "ingest", str(folder))).returncode == 0
    assert set(await found(mill)) == {"a.md", "deep/a.md"}
    (folder / "a.md").write_text("The wheel is new.")
    again = await run(mill, "ingest", str(folder))
    assert "2 documents ready with 2 chunks, 1 of them there before." in again.stdout
    assert await found(mill) == {"a.md": "The wheel is new.", "deep/a.md": "The stone is old."}
    assert await mill.count("documents") == 2


async def test_with_keep_both_stay(mill: Mill, folder: Path) -> None:
    for content in ("one", "two"):
        (folder / "a.md").write_text(content)
        await run(mill, "ingest", str(folder / "a.md"), "--keep")
    assert await mill.count("documents") == 2


async def test_files_that_would_replace_each_other_are_not_sent(mill: Mill, folder: Path) -> None:
    pair = (str(folder / "a.md"), str(folder / "deep" / "a.md"))
    done = await run(mill, "ingest", *pair)
    assert done.returncode == 1
    assert "would both be 'a.md'" in done.stderr
    assert await mill.count("documents") == 0
    assert (await run(mill, "ingest", *pair, "--keep")).returncode == 0
    assert await mill.count("documents") == 2
    twice = await run(mill, "ingest", str(folder), str(folder / "a.md"))
    assert twice.returncode == 0, twice.stderr


async def test_a_refusal_is_said_once_and_whole(mill: Mill, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    done = await run(mill, "ingest", str(empty), columns=80)
    assert "refused  empty.txt: the document has no content (empty_document)\n" in done.stdout
    evil = tmp_path / "evil.pdf"
    evil.write_bytes(b"MZ\x90\x00" + bytes(100))
    shown = await run(mill, "ingest", str(evil), columns=60)
    listed = await run(mill, "ingest", str(evil), "--json")
    (failure,) = json.loads(listed.stdout)["failures"]
    assert failure["name"] == "evil.pdf"
    table = " ".join(shown.stdout.split("failed.")[1].split())
    assert "…" not in table
    assert set(failure["message"].split()) <= set(table.split())


async def test_an_empty_folder_is_said_to_be_one(mill: Mill, tmp_path: Path) -> None:
    done = await run(mill, "ingest", str(tmp_path))
    assert done.returncode == 1
    assert f"there is nothing to ingest in {tmp_path} (0 files skipped)." in done.stderr
    (tmp_path / "song.mp3").write_bytes(b"ID3")
    done = await run(mill, "ingest", str(tmp_path))
    assert done.returncode == 1
    assert f"there is nothing to ingest in {tmp_path} (1 file skipped)." in done.stderr
    assert f"skipped {tmp_path / 'song.mp3'}: unknown kind of file\n" in done.stdout
    for name in ("b.mp3", "a.PNG", "Makefile"):
        (tmp_path / name).write_bytes(b"ID3")
    done = await run(mill, "ingest", str(tmp_path))
    assert "skipped 2 .mp3, 1 Makefile, 1 .png: unknown kind of file\n" in done.stdout


async def test_documents_are_named_by_name_or_short_id(mill: Mill, folder: Path) -> None:
    await run(mill, "ingest", str(folder))
    shown = await run(mill, "documents", "show", "deep/a.md")
    assert (shown.returncode, shown.stdout.splitlines()[0]) == (0, "deep/a.md"), shown.stderr
    (identity,) = [line.split()[1] for line in shown.stdout.splitlines() if line[:3] == "id "]
    assert (await run(mill, "documents", "show", identity[:8])).stdout == shown.stdout
    unknown = await run(mill, "documents", "show", "nothing.md")
    assert (unknown.returncode, "no document is called 'nothing.md'" in unknown.stderr) == (1, True)
    refused = await run(mill, "documents", "retry", "deep/a.md")
    assert (refused.returncode, "(not_failed)" in refused.stderr) == (1, True)
    gone = await run(mill, "documents", "delete", "deep/a.md")
    assert gone.stdout == f"deep/a.md ({identity}) is deleted.\n"
    await run(mill, "ingest", str(folder / "a.md"), "--collection", "other")
    several = await run(mill, "documents", "delete", "a.md")
    assert several.returncode == 1
    assert "a.md (default, ready)" in several.stderr
    assert "a.md (other, ready)" in several.stderr
    assert "'a.md' may be 2 documents. Give an id." in several.stderr
    assert await mill.count("documents") == 2


async def test_an_engine_that_is_away_is_said_once(
    without_engine: Mill, folder: Path, tmp_path: Path
) -> None:
    with begun(without_engine, tmp_path, "ingest", str(folder)) as (process, stdout, _):
        await until_said(stdout, "it is tried again")
        await try_again(without_engine)
        assert await asyncio.to_thread(process.wait, 60) == 1
    said = stdout.read_text("utf-8")
    waits = [line for line in said.splitlines() if line.startswith("waiting  ")]
    assert len(waits) == 1, said
    assert waits[0].endswith("(embedding_unavailable); it is tried again")


async def test_an_engine_that_is_away_is_said_above_the_bar(
    without_engine: Mill, folder: Path
) -> None:
    settings = settings_of(without_engine)
    terminal = Terminal("ingest", str(folder), columns=200, **settings)
    await asyncio.to_thread(terminal.wait_for, "it is tried again")
    await try_again(without_engine)
    await asyncio.to_thread(terminal.close)
    assert terminal.output.count("it is tried again") == 1


async def test_a_master_that_is_lost_is_said_to_go_on(
    migrated_url: str, folder: Path, tmp_path: Path
) -> None:
    settings = {"ingest_seconds": 0.2, "ingest_retry_seconds": 600}
    async with contextlib.AsyncExitStack() as stack:
        mill = await stack.enter_async_context(
            installation(migrated_url, a_script(), AWAY, **settings)
        )
        ingest = begun(mill, tmp_path, "ingest", str(folder))
        with ingest as (process, stdout, stderr):
            await until_said(stdout, "it is tried again")  # it knows that something was taken
            await stack.aclose()
            assert await asyncio.to_thread(process.wait, 60) == 1
    said = stderr.read_text("utf-8")
    assert "What was sent goes on by itself" in said
    assert "run the same command again" in said
    assert len(said.splitlines()) == 1
