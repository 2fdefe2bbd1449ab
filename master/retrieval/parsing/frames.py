"""What the parser's two processes say to each other: a JSON header and a body, with lengths.

JSON, and nothing that can make objects: the child has read hostile documents.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import BinaryIO, Final

from pydantic import TypeAdapter

from master.retrieval.chunking import Draft
from master.retrieval.parsing.parsed import ParseError, Pieces

PREFIX: Final = struct.Struct(">IQ")
"""Length of the header, length of the body."""

LONGEST: Final = 32_000_000
"""Bytes of an answer's frame: the longest chunk fits. Most are of a portion, see portions.py."""

_DRAFTS: Final = TypeAdapter(list[Draft])
_PIECES: Final = TypeAdapter(Pieces)
_MORE: Final = "more"
Header = Mapping[str, object]
Frame = tuple[Header, bytes]


def packed(header: Header, body: bytes = b"") -> bytes:
    """The beginning of a frame; the body is to follow."""
    head = json.dumps(header).encode()
    return PREFIX.pack(len(head), len(body)) + head


def read_head(stream: BinaryIO) -> tuple[Header, int]:
    """The next frame without its body, whose length is told; raises EOFError."""
    head_length, body_length = PREFIX.unpack(read_body(stream, PREFIX.size))
    return header_of(read_body(stream, head_length)), body_length


def read_body(stream: BinaryIO, length: int) -> bytes:
    """So many bytes; raises EOFError."""
    found = stream.read(length)
    if len(found) < length:
        raise EOFError
    return found


def header_of(head: bytes) -> Header:
    """A frame's header."""
    header: dict[str, object] = json.loads(head)
    return header


def write(stream: BinaryIO, header: Header, body: bytes = b"") -> None:
    """Send a frame."""
    stream.write(packed(header, body))
    stream.write(body)
    stream.flush()


def of_drafts(drafts: list[Draft]) -> Frame:
    """Some chunks as a frame; others follow, or the end."""
    return {_MORE: True}, _DRAFTS.dump_json(drafts)


def of_end(pages: int | None, flags: Mapping[str, int], title: str | None, ms: float) -> Frame:
    """The frame after the last chunk: what is true of all of it."""
    return {"pages": pages, "flags": dict(flags), "title": title, "cut_ms": ms}, b""


def of_error(error: ParseError) -> Frame:
    """A refusal, which ends an answer as well."""
    return {"code": error.code, "message": error.message}, b""


def drafts_of(frame: Frame) -> list[Draft] | None:
    """The chunks in a frame, or None for an end. Raises ValueError."""
    header, body = frame
    return _DRAFTS.validate_json(body) if header.get(_MORE) else None


def pieces_of(end: Header, drafts: Sequence[Draft]) -> Pieces:
    """A result as it was; raises ParseError as it was, ValueError for anything else."""
    if "code" in end:
        raise ParseError(str(end["code"]), str(end["message"]))
    return _PIECES.validate_python({**end, "drafts": tuple(drafts)})
