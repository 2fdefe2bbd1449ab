"""An event loop that does not wait: its time is what its timers say, however slow the machine."""

import asyncio
from typing import Any


def no_waiting(loop: asyncio.AbstractEventLoop) -> None:
    """From now on, time stands still while anything runs, and else jumps to the next timer.

    Only for what has no files or sockets and no threads: nobody would wait for their answers.
    """
    inner: Any = loop
    select = inner._selector.select
    now = loop.time()

    def look(timeout: float | None) -> Any:
        nonlocal now
        if timeout is None:  # there is no timer to jump to
            return select(None)
        now += timeout
        return select(0)

    inner._selector.select = look
    inner.time = lambda: now
