"""From the form of the documents page to what `POST /v1/documents` takes. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import JsonValue

from master.api import errors

_CHUNKING: Final = {"chunk_method": "method", "chunk_size": "size", "chunk_overlap": "overlap"}
_SETTINGS: Final = ("collection", "strategy", "embedding_model", "language")


def settings_of(texts: Mapping[str, str]) -> dict[str, JsonValue]:
    """What was filled in; what was left empty is as the collection has it. Raises 400."""
    given = {name: text.strip() for name, text in texts.items() if text.strip()}
    found: dict[str, JsonValue] = {name: given[name] for name in _SETTINGS if name in given}
    chunking: dict[str, Any] = {
        field: given[name] if field == "method" else _whole(given[name], field)
        for name, field in _CHUNKING.items()
        if name in given
    }
    if chunking:
        found["chunking"] = chunking
    if given.get("replace") == "true":
        found["replace"] = True
    return found


def url_of(texts: Mapping[str, str]) -> dict[str, JsonValue]:
    """The same for a URL to fetch."""
    names = {name: texts[name].strip() for name in ("url", "name") if texts.get(name, "").strip()}
    return {**settings_of(texts), **names}


def _whole(text: str, field: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 6):
        raise errors.invalid_value(f"chunking.{field} must be a whole number", f"chunking.{field}")
    return int(text)
