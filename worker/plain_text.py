"""What an engine says as it can be sent and stored: no NUL, no half of a surrogate pair."""

import math
from collections.abc import Sequence
from typing import TypeVar

from pydantic import JsonValue

from queue_schemas.messages import Channel
from worker.providers.protocol import Delta

_REPLACEMENT = "\ufffd"
_IMPOSSIBLE = -9999.0
"""OpenAI's word for the logarithm of nothing."""

_Json = TypeVar("_Json", bound=JsonValue)


class PlainText:
    """Mends all that one execution says, and counts what was to be mended."""

    def __init__(self) -> None:
        self.mended = 0
        """Characters that were replaced, and numbers that are none in JSON."""
        self._halves = dict.fromkeys(Channel, "")

    def take(self, delta: Delta) -> str:
        """What may go on now of a piece of text; a first half waits for its second one."""
        half, piece = self._halves[delta.channel], delta.text
        if not half and piece.isascii():
            return self._mend(piece) if "\0" in piece else piece
        text, half = half + piece, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, half = text[:-1], text[-1]
        self._halves[delta.channel] = half
        return self._mend(text)

    def all(self, value: _Json) -> _Json:
        """The same value with plain text everywhere in it."""
        mended: JsonValue = value
        if isinstance(value, str):
            mended = self._mend(value)
        elif isinstance(value, dict):
            mended = {self._mend(key): self.all(item) for key, item in value.items()}
        elif isinstance(value, list):
            mended = [self.all(item) for item in value]
        elif isinstance(value, float) and not math.isfinite(value):
            self.mended += 1
            mended = _IMPOSSIBLE if value < 0 else None
        return mended  # type: ignore[return-value]

    def each(self, values: Sequence[dict[str, JsonValue]]) -> tuple[dict[str, JsonValue], ...]:
        """The same for several objects."""
        return tuple(self.all(value) for value in values)

    def _mend(self, text: str) -> str:
        if text.isascii():
            joined = text
        else:
            joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        plain = joined.replace("\0", _REPLACEMENT)
        if plain != text:
            self.mended += plain.count(_REPLACEMENT) - text.count(_REPLACEMENT)
        return plain
