"""Files of log lines: bounded, and shared by processes that write to the same one."""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from threading import Lock

if sys.platform != "win32":
    import fcntl

SUFFIX = ".jsonl"
_OLD = ".old"
_CLOSED = -1
_NONE = -1
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)


class LogFile:
    """A file to append whole lines to; when it is full, it becomes the old one, of which one stays.

    Each line is one write at the end of the file, so lines of several processes do not mix.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        """Raises OSError where it cannot be written."""
        self._path = path
        self._most = most_bytes
        self._lock = Lock()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(path, _FLAGS, 0o600)

    def write(self, line: bytes) -> None:
        """Append a line. A full disk costs lines, and nothing else."""
        with self._lock, contextlib.suppress(OSError):
            if self._file == _CLOSED:
                self._file = os.open(self._path, _FLAGS, 0o600)
            elif os.fstat(self._file).st_size >= self._most:
                self._begin_anew()
            os.write(self._file, line + b"\n")

    def _begin_anew(self) -> None:
        # Another process may have done so already; then ours is the old one by now.
        with contextlib.suppress(FileNotFoundError), _alone(self._path.parent):
            ours = os.path.samestat(os.fstat(self._file), self._path.stat())
            # Not before it is closed: Windows renames nothing that is open.
            self._let_go()
            if ours:
                self._path.replace(old(self._path))
        self._let_go()
        self._file = os.open(self._path, _FLAGS, 0o600)

    def _let_go(self) -> None:
        # Forgotten before all else: its number may soon be a socket's.
        file, self._file = self._file, _CLOSED
        if file != _CLOSED:
            os.close(file)

    def close(self) -> None:
        """No more lines."""
        with self._lock, contextlib.suppress(OSError):
            self._let_go()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; or two could see the same full file, and rename the new one as well.

    Windows needs no lock: there nobody renames what another one has open.
    """
    if sys.platform == "win32":
        yield
        return
    held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def old(path: Path) -> Path:
    """Where the lines before those of a file are."""
    return path.with_name(path.name + _OLD)


def in_folder(folder: Path) -> list[Path]:
    """All that `LogFile` has written there, each old one before the one that follows it."""
    files = sorted(path for path in folder.glob(f"*{SUFFIX}") if path.is_file())
    return [each for path in files for each in (old(path), path) if each.is_file()]


def lines(path: Path, until: int) -> Iterator[str]:
    """The whole lines among the first so many bytes of a file. Raises OSError."""
    with path.open("rb") as file:
        for line in file:
            until -= len(line)
            if until < 0:
                return
            yield line.decode(errors="replace")


class Follower:
    """A file that grows, and that may be begun anew."""

    def __init__(self, path: Path, then: os.stat_result | None = None) -> None:
        """From where it ended then, or from its beginning."""
        self._path = path
        self._position, self._file = (then.st_size, then.st_ino) if then else (0, _NONE)

    def lines(self) -> list[str]:
        """What came since the last look, in whole lines."""
        with contextlib.suppress(OSError):
            if _identity(self._path) != self._file:
                # What the old one was given last is there still.
                before = self._read(old(self._path)) if self._file != _NONE else []
                self._file, self._position = _identity(self._path), 0
                return before + self._read(self._path)
            return self._read(self._path)
        return []

    def _read(self, path: Path) -> list[str]:
        if _identity(path) != self._file:
            return []
        with path.open("rb") as file:
            file.seek(self._position)
            whole, end, _ = file.read().rpartition(b"\n")
            self._position += len(whole) + len(end)
        return [line.decode(errors="replace") for line in whole.split(b"\n")] if end else []


class Tail:
    """What comes to several files, of which more may appear."""

    def __init__(self, then: Mapping[Path, os.stat_result]) -> None:
        """From where they ended then."""
        self._followed = {path: Follower(path, then[path]) for path in _growing(then)}

    def lines(self, paths: Iterable[Path]) -> Iterator[list[str]]:
        """What came to each of these since the last look."""
        for path in _growing(paths):
            yield self._followed.setdefault(path, Follower(path)).lines()


def _growing(paths: Iterable[Path]) -> list[Path]:
    """Without the old ones: to those nothing comes that their followers have not read."""
    every = list(paths)
    olds = {old(path) for path in every}
    return [path for path in every if path not in olds]


def _identity(path: Path) -> int:
    return path.stat().st_ino
