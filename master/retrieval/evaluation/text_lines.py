"""Lines of a UTF-8 file with their numbers."""

from collections.abc import Iterator
from pathlib import Path

from master.retrieval.evaluation.sets import SetError


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, counted from 1. Raises SetError."""
    number = 0
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        raise SetError(path, number, "is not UTF-8") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SetError(path, None, f"cannot be read: {reason}") from error
