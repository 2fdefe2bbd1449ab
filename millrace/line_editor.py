"""Reading lines from a person, with the history of earlier ones where the platform has readline."""

import contextlib
import os
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Self

_readline: ModuleType | None
try:
    import readline as _readline
except ImportError:  # Windows
    _readline = None

_MOST_LINES = 1000


class LineEditor:
    """A prompt. As a context it keeps its history in a file that only its owner can read."""

    def __init__(self, history: Path) -> None:
        self._history = history

    def __enter__(self) -> Self:
        if _readline is not None:
            _readline.set_history_length(_MOST_LINES)
            with contextlib.suppress(OSError):
                _readline.read_history_file(self._history)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if _readline is None:
            return
        with contextlib.suppress(OSError):  # a chat without a home folder is a chat as well
            self._history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._history, os.O_CREAT | os.O_WRONLY, 0o600))
            self._history.chmod(0o600)
            _readline.write_history_file(self._history)
            self._history.chmod(0o600)

    def read(self, prompt: str) -> str | None:
        """The next line; None at the end (Ctrl-D)."""
        try:
            return input(prompt)
        except EOFError:
            return None
