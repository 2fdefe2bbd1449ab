"""JSON and JSON lines: lines of `path: value`, one block for each record."""

import json
from collections.abc import Iterator
from typing import Final

from pydantic import JsonValue

from master.retrieval.chunking import Block
from master.retrieval.parsing.parsed import Parsed, ParseError
from master.retrieval.parsing.plain import decode

_DEEPEST: Final = 200


def parse(body: bytes, media_type: str | None = None) -> Parsed:
    """One JSON value; raises bad_json."""
    text, wrong = decode(body, media_type)
    blocks = tuple(_blocks(_loaded(text)))
    return Parsed(blocks, flags={"cleaned_characters": wrong})


def parse_lines(body: bytes, media_type: str | None = None) -> Parsed:
    """A JSON value on each line that is not empty; raises bad_json."""
    text, wrong = decode(body, media_type)
    blocks: list[Block] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            blocks += _blocks(_loaded(line, f"line {number}: "))
    return Parsed(tuple(blocks), flags={"cleaned_characters": wrong})


def _loaded(text: str, where: str = "") -> JsonValue:
    try:
        # Numbers stay as they were written: 1.10 is a version somewhere, and long ones cost time.
        value: JsonValue = json.loads(text, parse_int=str, parse_float=str, strict=False)
    except RecursionError:
        raise ParseError("bad_json", f"{where}nested too deeply") from None
    except ValueError as error:
        raise ParseError("bad_json", f"{where}{error}") from error
    return value


def _blocks(value: JsonValue) -> Iterator[Block]:
    """Lists of records give a block per record; the rest goes together."""
    lines: list[str] = []
    for path, found, is_record in _parts("", value, 0):
        if is_record:
            record = "\n".join(_lines(path, found, 0))
            if record:
                yield Block(record)
        else:
            lines += _lines(path, found, 0)
    if lines:
        yield Block("\n".join(lines))


def _parts(path: str, value: JsonValue, depth: int) -> Iterator[tuple[str, JsonValue, bool]]:
    """Records in top-level lists (also those one object down), and everything else."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield (f"{path}[{number}]" if path else ""), item, True
    elif isinstance(value, dict) and depth == 0:
        for key, item in value.items():
            yield from _parts(key, item, 1)
    else:
        yield path, value, False


def _lines(path: str, value: JsonValue, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ParseError("bad_json", "nested too deeply")
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _lines(f"{path}.{key}" if path else key, item, depth + 1)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _lines(f"{path}[{number}]", item, depth + 1)
    elif value is not None and value != "":
        said = str(value).lower() if isinstance(value, bool) else str(value)
        yield f"{path}: {said}" if path else said
