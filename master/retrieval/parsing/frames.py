"""What the parser's two processes say to each other: a JSON header and a body, with lengths.

JSON, and nothing that can make objects: the child has read hostile documents.
"""

import json
import struct
from collections.abc import Mapping
from typing import BinaryIO, Final

from pydantic import TypeAdapter

from master.retrieval.chunking import Block
from master.retrieval.parsing.parsed import Parsed, ParseError

PREFIX: Final = struct.Struct(">IQ")
"""Length of the header, length of the body."""

_BLOCKS: Final = TypeAdapter(tuple[Block, ...])
_PARSED: Final = TypeAdapter(Parsed)
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


def of_parsed(parsed: Parsed) -> Frame:
    """A result as a frame."""
    header = {"pages": parsed.pages, "flags": parsed.flags, "title": parsed.title}
    return header, _BLOCKS.dump_json(parsed.blocks)


def of_error(error: ParseError) -> Header:
    """A refusal as a frame without a body."""
    return {"code": error.code, "message": error.message}


def parsed_of(header: Header, body: bytes) -> Parsed:
    """A result as it was; raises ParseError as it was, ValueError for anything else."""
    if "code" in header:
        raise ParseError(str(header["code"]), str(header["message"]))
    return _PARSED.validate_python({**header, "blocks": _BLOCKS.validate_json(body)})
