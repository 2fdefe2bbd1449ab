"""Parsing in child processes, so that a hostile document can at worst lose its own parse."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass
from typing import Final, Self

from master.retrieval.chunking import Chunking, Draft
from master.retrieval.parsing import frames
from master.retrieval.parsing.parsed import ParseError, Pieces
from master.retrieval.parsing.portions import Tally

_CHILD: Final = "master.retrieval.parsing.child"
_START_SECONDS: Final = 60
_END_SECONDS: Final = 5
_STARTS: Final = 3
# Not the whole environment: it holds the passwords of this process.
_PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH")

_Answer = tuple[frames.Header, list[Draft]]
"""How it ended, and the chunks before that."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one document may cost."""

    wall_seconds: float = 60
    cpu_seconds: int = 60
    memory_bytes: int = 1 << 30
    """Address space above what the child has at its start."""
    documents: int = 200
    """A child is replaced after so many."""


class ParserUnavailable(Exception):
    """The pool was closed, or no child starts: not the document's fault, so try it later."""


class ParserProcess:
    """A pool of warm children; each is started when first needed. Belongs to one event loop."""

    def __init__(self, limits: Limits | None = None, *, size: int = 1) -> None:
        self._limits = limits or Limits()
        self._turns = asyncio.Semaphore(size)
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        self._closed = False

    async def parse(
        self, body: bytes, name: str, chunking: Chunking, media_type: str | None = None
    ) -> Pieces:
        """Parse and cut in a child; raises ParseError: parse_limit when it had to be killed."""
        cutting = chunking.model_dump(mode="json")
        async with self._turns:
            asked = {"name": name, "media_type": media_type, "chunking": cutting}
            end, drafts = await self._answer(asked, body)
        return frames.pieces_of(end, drafts)

    async def aclose(self) -> None:
        """Kill the children, also those at work: their callers get ParserUnavailable."""
        self._closed = True
        children = [*self._idle, *self._busy]
        self._idle.clear()
        for child in children:
            await child.kill()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _answer(self, asked: frames.Header, body: bytes) -> _Answer:
        for _ in range(_STARTS):
            child = await self._ready_child()
            with contextlib.suppress(_NotTaken):
                return await self._from(child, asked, body)
        raise ParserUnavailable(f"{_STARTS} parsers in a row died at their start")

    async def _ready_child(self) -> "_Child":
        if self._closed:
            raise ParserUnavailable("the pool is closed")
        return self._idle.pop() if self._idle else await _start(self._limits)

    async def _from(self, child: "_Child", asked: frames.Header, body: bytes) -> _Answer:
        """One document by one child, which is kept only if it answered."""
        self._busy.add(child)
        try:
            answer = await child.ask(asked, body, self._limits)
        except BaseException:
            await child.kill()
            if self._closed:
                raise ParserUnavailable("the pool was closed") from None
            raise
        finally:
            self._busy.discard(child)
        if self._closed or child.parsed >= self._limits.documents:
            await child.kill()
        else:
            self._idle.append(child)
        return answer


class _NotTaken(Exception):
    """The child had died before it saw the document."""


class _Child:
    def __init__(self, process: Process) -> None:
        self._process = process
        assert process.stdin is not None  # noqa: S101 - asked for at the start, for the type only
        assert process.stdout is not None  # noqa: S101 - the same
        self._stdin, self._stdout = process.stdin, process.stdout
        self.parsed = 0

    async def ask(self, asked: frames.Header, body: bytes, limits: Limits) -> _Answer:
        """Send a document and wait for what it is; raises ParseError parse_limit, _NotTaken."""
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._hand_over(asked, body)
        except (EOFError, TimeoutError) as error:
            raise _NotTaken from error
        try:
            async with asyncio.timeout(limits.wall_seconds):
                answer = await self._read_answer()
        except TimeoutError as error:
            said = f"not read within {limits.wall_seconds} seconds"
            raise ParseError("parse_limit", said) from error
        except EOFError as error:
            raise ParseError("parse_limit", await self._last_words()) from error
        self.parsed += 1
        return answer

    async def kill(self) -> None:
        """End it now; afterwards it is gone from the process table too."""
        if self._process.returncode is None:
            self._process.kill()
        self._stdin.close()
        await asyncio.shield(self._process.wait())
        await self._stdout.read()  # its end closes the pipe

    async def _hand_over(self, asked: frames.Header, body: bytes) -> None:
        with contextlib.suppress(OSError):  # whether it died before or of it, reading tells
            self._stdin.write(frames.packed(asked, body))
            self._stdin.write(body)
            await self._stdin.drain()
        await self._read()

    async def _read_answer(self) -> _Answer:
        """Frame by frame, so that other tasks have their turn in between."""
        tally, drafts = Tally(), list[Draft]()
        while (more := frames.drafts_of(frame := await self._read())) is not None:
            tally.add(more)  # who sends on has read a hostile document
            drafts += more
        return frame[0], drafts

    async def _read(self) -> frames.Frame:
        head_length, body_length = frames.PREFIX.unpack(
            await self._stdout.readexactly(frames.PREFIX.size)
        )
        if head_length + body_length > frames.LONGEST:
            raise EOFError
        header = frames.header_of(await self._stdout.readexactly(head_length))
        return header, await self._stdout.readexactly(body_length)

    async def _last_words(self) -> str:
        # It is ending by itself. A signal now could take its status away from who waits for it.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), _END_SECONDS)
        code = self._process.returncode or 0
        if sys.platform != "win32" and code == -signal.SIGXCPU:
            return "more processor time than a document may take"
        return f"the parser died of it ({code})"


async def _start(limits: Limits) -> _Child:
    arguments = [str(limits.memory_bytes), str(limits.cpu_seconds)]
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # the folder we happen to be in holds no modules of ours
        "-m",
        _CHILD,
        *arguments,
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,  # libraries print there, and what they print quotes documents
        env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    return _Child(process)
