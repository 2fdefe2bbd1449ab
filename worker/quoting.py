"""What engines say of a failure may repeat what they were asked; a log must not."""

from collections.abc import Iterator

from queue_schemas.messages import SubtaskRequest
from worker.providers.prompt import text_of

_RUN = 16
"""Characters that are not the same by chance."""
_PIECE = _RUN // 2
"""Of any such run, one piece that begins at a multiple of this is whole."""
_SHORTEST = 6
IN_ITS_PLACE = "(it repeats what was asked, and is in the record of the request)"


def unquoted(said: str, subtask: SubtaskRequest) -> str:
    """The same, with other words for each line that repeats a piece of what was asked."""
    asked = [text for text in _texts(subtask) if len(text) >= _SHORTEST]
    lines = said.split("\n")
    repeated = _repeated({run for line in lines for run in _runs(line, _RUN)}, asked)
    short = {text for text in asked if len(text) < _RUN}
    return "\n".join(IN_ITS_PLACE if _quotes(line, repeated, short) else line for line in lines)


def _texts(subtask: SubtaskRequest) -> Iterator[str]:
    yield from (text_of(message.get("content")) for message in subtask.messages)
    yield from (passage.text for passage in subtask.passages)
    yield subtask.shown


def _repeated(runs: set[str], asked: list[str]) -> set[str]:
    """Those of the runs that are in a text; each text is gone through once, as it may be long."""
    pieces = {piece for run in runs for piece in _runs(run, _PIECE)}
    around = {
        text[max(0, start - _PIECE) : start + _RUN]
        for text in asked
        for start in range(0, len(text), _PIECE)
        if text[start : start + _PIECE] in pieces
    }
    return runs & {run for window in around for run in _runs(window, _RUN)}


def _quotes(line: str, repeated: set[str], short: set[str]) -> bool:
    return any(text in line for text in short) or any(run in repeated for run in _runs(line, _RUN))


def _runs(text: str, length: int) -> Iterator[str]:
    return (text[start : start + length] for start in range(len(text) - length + 1))
