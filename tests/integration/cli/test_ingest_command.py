"""`millrace ingest` and what belongs to it, against a real master."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.integration.cli.command_line import Terminal, millrace
from tests.integration.master.mill import Mill, a_script, installation

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def mill(migrated_url: str) -> AsyncGenerator[Mill]:
    async with installation(migrated_url, a_script(), ingest_seconds=0.5) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four files that are taken, one of them broken, and some that are not."""
    made = tmp_path / "letters"
    (made / "deep" / ".git").mkdir(parents=True)
    (made / "a.md").write_text("# Mill\n\nA mill has a wheel.")
    (made / "b.txt").write_text("A race leads water.")
    (made / "deep" / "c.html").write_text("<html><body><p>A stone grinds.</p></body></html>")
    (made / "deep" / "broken.json").write_text("{not json")
    (made / "deep" / ".git" / "d.txt").write_text("never")
    (made / ".hidden.txt").write_text("never")
    (made / "song.mp3").write_bytes(b"ID3")
    return made


async def run(mill: Mill, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a thread, because the master is in this one."""
    settings = {"MILLRACE_URL": mill.url, "MILLRACE_API_KEY": mill.key, "COLUMNS": "120"}
    return await asyncio.to_thread(millrace, *arguments, **settings)


async def test_a_folder_is_ingested_and_what_failed_is_said(mill: Mill, folder: Path) -> None:
    done = await run(mill, "ingest", str(folder), "--collection", "letters", "--metadata", "year=7")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "ready  a.md: 1 chunk\n" in done.stdout
    assert "3 documents ready with 3 chunks, 1 failed, 3 files skipped." in done.stdout
    assert "bad_json" in done.stdout
    assert f"skipped {folder / '.hidden.txt'}: hidden file" in done.stdout
    assert f"skipped {folder / 'song.mp3'}: unknown kind of file" in done.stdout
    assert f"skipped {folder / 'deep' / '.git'}: hidden folder" in done.stdout
    rows = await mill.rows("SELECT metadata FROM millrace.documents")
    assert {row[0]["year"] for row in rows} == {7}
    again = await run(mill, "ingest", str(folder / "a.md"), "--collection", "letters")
    assert again.returncode == 0
    assert "1 document ready with 1 chunk, 1 of them there before." in again.stdout


async def test_without_recursion_only_the_folder_itself_is_taken(mill: Mill, folder: Path) -> None:
    done = await run(mill, "ingest", str(folder), "--no-recursive", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sorted(each["name"] for each in found["documents"]) == ["a.md", "b.txt"]
    assert found["failures"] == []
    assert {Path(each["path"]).name for each in found["skipped"]} == {".hidden.txt", "song.mp3"}


async def test_refused_files_and_urls_are_failures_of_their_own(mill: Mill, tmp_path: Path) -> None:
    evil = tmp_path / "evil.pdf"
    evil.write_bytes(b"MZ\x90\x00" + bytes(100))
    done = await run(mill, "ingest", str(evil), "--url", "http://127.0.0.1/x", "--json")
    assert done.returncode == 1
    failures = {each["code"] for each in json.loads(done.stdout)["failures"]}
    assert failures == {"bad_media_type", "url_not_allowed"}


async def test_on_a_terminal_there_is_a_bar(mill: Mill, folder: Path) -> None:
    settings = {"MILLRACE_URL": mill.url, "MILLRACE_API_KEY": mill.key}
    terminal = Terminal("ingest", str(folder / "a.md"), str(folder / "b.txt"), **settings)
    code = await asyncio.to_thread(terminal.close)
    assert code == 0, terminal.output
    assert "2/2" in terminal.output
    assert "2 documents ready with 2 chunks." in terminal.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "there is nothing to ingest"),
        (("/nonexistent",), "there is no file or folder '/nonexistent'"),
        ((__file__, "--metadata", "year"), "write it as KEY=VALUE"),
        ((__file__, "--strategy", "guessing"), "strategy"),
    ],
)
async def test_what_cannot_work_is_one_line(
    mill: Mill, arguments: tuple[str, ...], says: str
) -> None:
    done = await run(mill, "ingest", *arguments)
    assert done.returncode != 0
    assert says in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
async def test_a_file_that_cannot_be_read_does_not_stop_the_others(
    mill: Mill, folder: Path
) -> None:
    (folder / "b.txt").chmod(0)
    done = await run(mill, "ingest", str(folder / "a.md"), str(folder / "b.txt"), "--json")
    found = json.loads(done.stdout)
    assert [each["code"] for each in found["failures"]] == ["unreadable"]
    assert [each["state"] for each in found["documents"]] == ["ready"]


async def test_documents_are_listed_shown_retried_and_deleted(mill: Mill, folder: Path) -> None:
    await run(mill, "ingest", str(folder))
    listed = json.loads((await run(mill, "documents", "list", "--json")).stdout)
    assert len(listed) == 4
    (failed,) = [each["id"] for each in listed if each["state"] == "failed"]
    table = await run(mill, "documents", "list", "--state", "failed")
    assert "broken.json" in table.stdout
    assert "a.md" not in table.stdout
    shown = (await run(mill, "documents", "show", failed)).stdout
    assert "error       bad_json" in shown
    assert (await run(mill, "documents", "retry", failed)).returncode == 0
    assert (await run(mill, "documents", "delete", failed)).returncode == 0
    gone = await run(mill, "documents", "show", failed)
    assert gone.returncode == 1
    assert "(not_found)" in gone.stderr
    refused = await run(mill, "documents", "retry", listed[0]["id"])
    assert (refused.returncode, "(not_f" in refused.stderr) == (1, True)


async def test_collections_are_listed_shown_reindexed_and_deleted(mill: Mill, folder: Path) -> None:
    assert "There is no collection yet" in (await run(mill, "collections", "list")).stdout
    files = [str(folder / name) for name in ("a.md", "b.txt")]
    await run(mill, "ingest", *files, "--collection", "letters", "--language", "german")
    assert "letters" in (await run(mill, "collections", "list")).stdout
    shown = json.loads((await run(mill, "collections", "show", "letters")).stdout)
    assert (shown["language"], shown["documents"]["ready"]) == ("german", 2)
    done = await run(mill, "reindex", "letters")
    assert (done.returncode, done.stdout) == (0, "2 documents ready, 0 failed.\n")
    assert (await run(mill, "reindex", "nobody")).returncode == 1
    assert (await run(mill, "collections", "delete", "letters")).returncode != 0
    assert (await run(mill, "collections", "delete", "letters", "--yes")).returncode == 0
    assert await mill.count("documents") == 0
