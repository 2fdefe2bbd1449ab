"""The process that parses: `python -m master.retrieval.parsing.child`, started by ParserProcess.

It reads documents from stdin and writes chunks to what was its stdout, until stdin ends.
"""

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from master.retrieval.chunking import Chunking, cut
from master.retrieval.parsing import frames
from master.retrieval.parsing.parse import parse
from master.retrieval.parsing.parsed import ParseError
from master.retrieval.parsing.portions import portions

if sys.platform != "win32":
    import resource

_STATM: Final = Path("/proc/self/statm")


def main() -> None:
    """Serve one document after the other."""
    stdin, answers = sys.stdin.buffer, _own_stdout()
    warnings.simplefilter("ignore")
    logging.disable()
    memory_bytes, cpu_seconds = (int(argument) for argument in sys.argv[1:3])
    _limit_memory(memory_bytes)
    while True:
        try:
            asked, length = frames.read_head(stdin)
        except EOFError:
            return
        frames.write(answers, {"taken": True})  # whatever happens now, the document did it
        _limit_cpu(cpu_seconds)
        for header, part in _frames(asked, frames.read_body(stdin, length)):
            frames.write(answers, header, part)


def _own_stdout() -> BinaryIO:
    """The pipe to the parent, moved to where no print of a library can reach it."""
    kept = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return os.fdopen(kept, "wb")


def _frames(asked: frames.Header, body: bytes) -> Iterator[frames.Frame]:
    """The answer; whatever goes wrong is its last frame."""
    try:
        yield from _pieces(asked, body)
    except ParseError as error:
        yield frames.of_error(error)
    except MemoryError:
        said = "the document needs more memory than it may have"
        yield frames.of_error(ParseError("parse_limit", said))
    except Exception as error:  # a bug of ours costs this document, and says so
        said = f"the parser failed: {type(error).__name__}: {error}"[:500]
        yield frames.of_error(ParseError("parse_failed", said))


def _pieces(asked: frames.Header, body: bytes) -> Iterator[frames.Frame]:
    media_type = asked["media_type"]
    chunking = Chunking.model_validate(asked["chunking"])
    parsed = parse(body, str(asked["name"]), str(media_type) if media_type else None)
    began = time.monotonic()
    for portion in portions(cut(parsed.blocks, chunking)):
        yield frames.of_drafts(portion)
    cut_ms = (time.monotonic() - began) * 1000
    yield frames.of_end(parsed.pages, parsed.flags, parsed.title, cut_ms)


def _limit_memory(allowed: int) -> None:
    if sys.platform == "win32" or not _STATM.exists():
        return
    used = int(_STATM.read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = used + allowed
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _limit_cpu(allowed: int) -> None:
    """From now on; the kernel counts since the process began."""
    if sys.platform == "win32":
        return
    spent = resource.getrusage(resource.RUSAGE_SELF)
    wanted = int(spent.ru_utime + spent.ru_stime) + 1 + allowed
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (most, hard))


if __name__ == "__main__":
    main()
