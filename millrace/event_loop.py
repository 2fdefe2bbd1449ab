"""Running a server process: the fastest event loop there is, and an orderly end on SIGTERM."""

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

_new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    import uvloop

    _new_event_loop = uvloop.new_event_loop
except ImportError:  # Windows, or an image without it
    _new_event_loop = asyncio.new_event_loop


def run(main: Coroutine[Any, Any, None]) -> int:
    """Run until it ends. SIGTERM cancels it, so that everything is closed; that is a success."""
    _collect_garbage_less_often()
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        return runner.run(_until_terminated(main))


def _collect_garbage_less_often() -> None:
    """Looking for cycles every 700 objects was a fifth of a busy master's CPU time.

    Nearly nothing here is in a cycle. What was imported stays, and is not looked at again.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


async def _until_terminated(main: Coroutine[Any, Any, None]) -> int:
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(main)
    terminated = asyncio.Event()

    def terminate(*_: object) -> None:
        terminated.set()
        loop.call_soon_threadsafe(task.cancel)

    # Not loop.add_signal_handler: uvicorn puts its own handler over this one while it serves, and
    # raises the signal again when it has finished.
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        await task
    except asyncio.CancelledError:
        if not terminated.is_set():
            raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def stop_on_signals() -> tuple[asyncio.Event, list[int]]:
    """An event that the first SIGTERM or SIGINT sets, and which it was. The second one kills."""
    stop, seen = asyncio.Event(), list[int]()
    if sys.platform == "win32":  # no signal handlers in its event loop: Ctrl-C cancels
        return stop, seen
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def on_signal(number: int) -> None:
        seen.append(number)
        stop.set()
        for each in numbers:
            loop.remove_signal_handler(each)

    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    return stop, seen
