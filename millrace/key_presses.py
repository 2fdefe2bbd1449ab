"""Single key presses of a terminal, without Enter and without showing them."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType

_termios: ModuleType | None
_tty: ModuleType | None
try:
    import termios as _termios
    import tty as _tty
except ImportError:  # Windows
    _termios = _tty = None


@contextlib.contextmanager
def key_presses() -> Iterator[asyncio.Queue[str]]:
    """A queue of what is pressed; nothing comes where standard input is no terminal."""
    pressed: asyncio.Queue[str] = asyncio.Queue()
    if _termios is None or _tty is None or not sys.stdin.isatty():
        yield pressed
        return
    number, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = _termios.tcgetattr(number)

    def read() -> None:
        if typed := os.read(number, 64):
            for character in typed.decode(errors="replace"):
                pressed.put_nowait(character)
        else:
            loop.remove_reader(number)  # the terminal is gone

    try:
        _tty.setcbreak(number)
        loop.add_reader(number, read)
        yield pressed
    finally:
        loop.remove_reader(number)
        _termios.tcsetattr(number, _termios.TCSADRAIN, before)
