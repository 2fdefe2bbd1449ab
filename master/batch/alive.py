"""A file that a Celery worker touches while it lives, for probes that can only look at files.

It lives when its main process turns, has its connection to the broker, and the clock's process, if
it has one, has not died.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from celery import Celery, bootsteps  # type: ignore[import-untyped]  # it ships no types
from celery.worker.consumer.tasks import Tasks  # type: ignore[import-untyped]  # as above

EVERY_SECONDS: Final = 10.0


def prepare(path: Path) -> None:
    """Make sure that it can be written, and take away an earlier life's. Raises OSError."""
    path.touch()
    path.unlink()


def add_alive_file(app: Celery, path: Path) -> None:
    """Have the application's workers touch this file."""

    class Alive(bootsteps.StartStopStep):  # type: ignore[misc]  # its base has no types
        requires = (Tasks,)

        def __init__(self, consumer: Any, **options: Any) -> None:
            super().__init__(consumer, **options)
            self._cancel: Callable[[], None] | None = None

        def start(self, consumer: Any) -> None:
            """Begin, whenever there is a connection again."""
            touch_if_alive(consumer, path)
            again = consumer.timer.call_repeatedly(EVERY_SECONDS, touch_if_alive, (consumer, path))
            self._cancel = again.cancel

        def stop(self, consumer: Any) -> None:
            """End with the connection."""
            if self._cancel is not None:
                self._cancel()
                self._cancel = None

    app.steps["consumer"].add(Alive)


def touch_if_alive(consumer: Any, path: Path) -> None:
    """Touch it, unless the connection or the clock is gone."""
    connection, clock = consumer.connection, consumer.controller.beat
    if connection and connection.connected and (clock is None or clock.is_alive()):
        path.touch()
