import asyncio
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from master.retrieval.chunking import Chunking, Draft, Method
from master.retrieval.parsing import frames, parser_process, portions
from master.retrieval.parsing.parsed import ParseError, Pieces
from master.retrieval.parsing.parser_process import Limits, ParserProcess, ParserUnavailable
from tests.doubles import evil_files

SLOW = b"<p>x" * 1_500_000  # half a minute of work, or more
MEGABYTE = 1_000_000
WHOLE = Chunking()
LARGE_TEXT = b"word " * (40 * MEGABYTE // 5)


def of_limits(**limits: float) -> ParserProcess:
    return ParserProcess(Limits(**limits))  # type: ignore[arg-type]  # ints are given where due


async def ask(parser: ParserProcess, word: str = "hello") -> None:
    assert (await parser.parse(word.encode(), "a.txt", WHOLE)).drafts == (Draft(0, word, (), None),)


async def code_of(parser: ParserProcess, body: bytes, name: str) -> str:
    with pytest.raises(ParseError) as caught:
        await parser.parse(body, name, WHOLE)
    return caught.value.code


def idle_pid(parser: ParserProcess) -> int:
    [child] = parser._idle
    return child._process.pid


async def busy_pid(parser: ParserProcess) -> int:
    while not parser._busy:  # noqa: ASYNC110 - the pool has no event for it, only tests would wait
        await asyncio.sleep(0.01)
    [child] = parser._busy
    return child._process.pid


def is_gone(pid: int) -> bool:
    """Not even a zombie is left."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
async def parser() -> AsyncGenerator[ParserProcess, None]:
    async with ParserProcess() as pool:
        yield pool


async def test_everything_a_parser_says_comes_back(parser: ParserProcess) -> None:
    by_heading = Chunking(method=Method.HEADINGS)
    pieces = await parser.parse(evil_files.docx(), "Handbook.docx", by_heading)
    assert replace(pieces, cut_ms=0.0) == Pieces(
        drafts=(
            Draft(0, "Pumps\n\nCheck the seal.", ("Pumps",), None),
            Draft(1, "Valves\n\npart | code\nvalve | V-17", ("Pumps", "Valves"), None),
        ),
        flags={"hidden_text_characters": 25},
        title="Handbook",
    )
    assert pieces.cut_ms > 0


async def test_chunks_of_many_frames_come_back_in_order(parser: ParserProcess) -> None:
    words = [f"word{number}" for number in range(200_000)]
    pieces = await parser.parse(" ".join(words).encode(), "a.txt", Chunking(size=100, overlap=0))
    assert [draft.position for draft in pieces.drafts] == list(range(2000))
    assert " ".join(draft.text for draft in pieces.drafts).split() == words


async def test_a_document_of_too_many_chunks_is_refused_and_the_child_stays(
    parser: ParserProcess,
) -> None:
    await ask(parser)
    before = idle_pid(parser)
    with pytest.raises(ParseError) as caught:
        await parser.parse(b"a " * (portions.MOST_CHUNKS + 1), "a.txt", Chunking(size=1, overlap=0))
    assert (caught.value.code, caught.value.status) == ("too_many_chunks", 422)
    await ask(parser)
    assert idle_pid(parser) == before


async def test_a_child_that_sends_without_end_is_stopped(
    parser: ParserProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(parser)
    before = idle_pid(parser)
    monkeypatch.setattr(portions, "MOST_CHUNKS", 10)  # here; the child allows more
    with pytest.raises(ParseError, match="too_many_chunks"):
        await parser.parse(b"a " * 20, "a.txt", Chunking(size=1, overlap=0))
    assert is_gone(before)
    monkeypatch.setattr(frames, "LONGEST", 1000)
    assert await code_of(parser, b"a " * 600, "a.txt") == "parse_limit"
    await ask(parser)


async def test_a_refusal_comes_back_and_the_child_stays(parser: ParserProcess) -> None:
    await ask(parser)
    before = idle_pid(parser)
    assert await code_of(parser, evil_files.encrypted_pdf(), "a.pdf") == "pdf_encrypted"
    assert await code_of(parser, b"MZ\x00", "a.pdf") == "bad_media_type"
    await ask(parser)
    assert idle_pid(parser) == before


async def test_a_document_over_its_wall_clock_is_killed_and_the_next_is_read() -> None:
    async with of_limits() as parser:
        await ask(parser)
        before = idle_pid(parser)
        parser._limits = Limits(wall_seconds=3)  # of this one alone: any may stand still so long
        assert await code_of(parser, SLOW, "a.html") == "parse_limit"
        assert is_gone(before)
        parser._limits = Limits()
        await ask(parser)


async def test_a_document_over_its_processor_time_is_killed_and_the_next_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parser_process, "_END_SECONDS", 60)
    async with of_limits(cpu_seconds=1) as parser:
        with pytest.raises(ParseError, match="parse_limit: more processor time"):
            await parser.parse(SLOW, "a.html", WHOLE)
        await ask(parser)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
@pytest.mark.parametrize("memory", [60 * MEGABYTE, 10 * MEGABYTE])
async def test_a_document_over_its_memory_is_refused_and_the_next_is_read(memory: int) -> None:
    async with of_limits(memory_bytes=memory) as parser:
        assert await code_of(parser, LARGE_TEXT, "a.txt") == "parse_limit"
        await ask(parser)


async def test_a_child_that_died_idle_costs_nobody_anything(parser: ParserProcess) -> None:
    await ask(parser)
    before = idle_pid(parser)
    os.kill(before, signal.SIGKILL)
    await ask(parser)
    assert is_gone(before)


async def test_a_child_that_dies_at_work_costs_that_document_only(
    parser: ParserProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = asyncio.Event()
    read_answer = parser_process._Child._read_answer

    async def noted(child: parser_process._Child) -> parser_process._Answer:
        taken.set()
        return await read_answer(child)

    monkeypatch.setattr(parser_process._Child, "_read_answer", noted)
    asking = asyncio.create_task(code_of(parser, SLOW, "a.html"))
    await taken.wait()  # before, another child would take the document
    os.kill(await busy_pid(parser), signal.SIGKILL)
    assert await asking == "parse_limit"
    await ask(parser)


async def test_a_cancelled_caller_leaves_no_child_at_work(parser: ParserProcess) -> None:
    asking = asyncio.create_task(parser.parse(SLOW, "a.html", WHOLE))
    pid = await busy_pid(parser)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert is_gone(pid)
    await ask(parser)


async def test_children_are_replaced_after_so_many_documents() -> None:
    async with of_limits(documents=2) as parser:
        await ask(parser)
        first = idle_pid(parser)
        await ask(parser)
        assert is_gone(first)
        await ask(parser)
        assert idle_pid(parser) != first


@pytest.mark.parametrize("size", [1, 3])
async def test_callers_at_once_get_their_own_answers(size: int) -> None:
    async with ParserProcess(size=size) as parser:
        await asyncio.gather(*(ask(parser, f"word {number}") for number in range(20)))
        assert len(parser._idle) <= size


async def test_closing_ends_children_idle_and_at_work() -> None:
    parser = ParserProcess(size=2)
    await asyncio.gather(ask(parser), ask(parser))
    idle = [child._process.pid for child in parser._idle]
    asking = asyncio.create_task(parser.parse(SLOW, "a.html", WHOLE))
    await busy_pid(parser)
    await parser.aclose()
    with pytest.raises(ParserUnavailable):
        await asking
    assert all(is_gone(pid) for pid in idle)
    with pytest.raises(ParserUnavailable):
        await ask(parser)


async def test_a_parser_that_cannot_start_is_not_the_documents_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("master.retrieval.parsing.parser_process._CHILD", "no.such.module")
    async with ParserProcess() as parser:
        with pytest.raises(ParserUnavailable):
            await ask(parser)


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows an environment as a file")
async def test_the_child_does_not_know_our_secrets(
    parser: ParserProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:secret@db/x")
    await ask(parser)
    environment = environment_of(idle_pid(parser))
    assert b"PYTHONPATH" in environment
    assert b"secret" not in environment


def answers_of(body: bytes, program: str) -> list[frames.Frame]:
    """The frames of a child for one document, without the first, which says that it is taken."""
    asked = {"name": "a.txt", "media_type": None, "chunking": WHOLE.model_dump(mode="json")}
    command = [sys.executable, "-c", program, str(1 << 30), "10"]
    told = frames.packed(asked, body) + body
    answered = subprocess.run(command, input=told, capture_output=True, check=True, timeout=60)
    answers, found = io.BytesIO(answered.stdout), []
    assert frames.read_head(answers) == ({"taken": True}, 0)
    while answers.tell() < len(answered.stdout):
        header, length = frames.read_head(answers)
        found.append((header, frames.read_body(answers, length)))
    return found


def test_prints_of_libraries_do_not_disturb_the_answers() -> None:
    program = """
import os
from master.retrieval.chunking import Block
from master.retrieval.parsing import child
from master.retrieval.parsing.parsed import Parsed
def noisy(*_):
    print("noise", flush=True)
    os.write(1, b"noise")
    return Parsed((Block("text"),))
child.parse = noisy
child.main()
"""
    drafts, (end, _) = answers_of(b"x", program)
    assert frames.drafts_of(drafts) == [Draft(0, "text", (), None)]
    assert end.keys() == {"pages", "flags", "title", "cut_ms"}


def test_no_frame_of_a_large_document_takes_long_to_read() -> None:
    program = "from master.retrieval.parsing import child; child.main()"
    *drafts, end = answers_of(b"weir " * 800_000, program)
    assert len(drafts) > 10
    assert all(len(body) < 300_000 for _, body in drafts)
    assert frames.drafts_of(end) is None


async def one_document() -> None:
    async with ParserProcess() as parser:
        await ask(parser)
        assert await code_of(parser, b"", "a.pdf") == "pdf_empty"


def test_it_works_under_uvloop() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(one_document())


def in_thread(main: Callable[[], Coroutine[None, None, None]]) -> bool:
    done: list[bool] = []

    def run() -> None:
        asyncio.run(main())
        done.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return bool(done)


def test_it_works_in_a_loop_of_a_thread() -> None:
    assert in_thread(one_document)


def _daemon() -> None:
    asyncio.run(one_document())


def test_it_works_in_a_forked_daemon_as_celery_has_them() -> None:
    process = multiprocessing.get_context("fork").Process(target=_daemon, daemon=True)
    process.start()
    process.join()
    assert process.exitcode == 0
