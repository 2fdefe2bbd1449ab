"""The loop that keeps every model's workers as many as its backlog asks for."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping

import structlog

from db.depths import Depth
from millrace.problems import reason
from millrace.scaling.pool import Launch, Pool
from millrace.scaling.settings import ScalingSettings
from queue_schemas.registry import Model, Registry

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 5.0
_ENDING_SECONDS = 0.05
"""Between two looks at processes that end."""

Look = Callable[[], Awaitable[Mapping[str, Depth]]]


class Autoscaler:
    """One pool for each chat model of the registry, which is asked for anew each time."""

    def __init__(
        self,
        registry: Callable[[], Registry],
        look: Look,
        launch: Launch,
        settings: ScalingSettings,
    ) -> None:
        self.pools: dict[str, Pool] = {}
        self._registry = registry
        self._look = look
        self._launch = launch
        self._settings = settings
        self._blind = False

    async def run(self) -> None:
        """Until cancelled. Workers stay as they are; `close` ends them."""
        while True:
            seen = await self._seen()
            with _surviving():
                self.step(seen, time.monotonic())
            await asyncio.sleep(self._settings.seconds)

    def step(self, seen: Mapping[str, Depth] | None, now: float) -> None:
        """Decide and act once. None: nobody knows the load, so nobody comes and nobody goes."""
        models = {model.name: model for model in self._registry().chat_models()}
        for name, model in models.items():
            with _surviving(model=name):
                self._serve(model, seen, now)
        for name in self.pools.keys() - models.keys():
            with _surviving(model=name):
                self._retire(name, now)

    def _serve(self, model: Model, seen: Mapping[str, Depth] | None, now: float) -> None:
        pool = self._pool(model.name, model)
        pool.follow(model)
        depth = (seen or {}).get(model.name, Depth())
        if seen is not None:
            pool.scale(depth.messages, now)
        pool.tend(depth.running, now)

    def _pool(self, name: str, model: Model) -> Pool:
        if name not in self.pools:
            self.pools[name] = Pool(model, self._settings.rule, self._launch)
        return self.pools[name]

    def _retire(self, name: str, now: float) -> None:
        pool = self.pools[name]
        pool.retire()
        pool.tend({}, now)
        if not pool.workers:
            del self.pools[name]

    async def _seen(self) -> Mapping[str, Depth] | None:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                seen = await self._look()
        except Exception as error:  # whatever it is: an unknown load must not end a worker
            if not self._blind:
                _log.warning("scaling.blind", reason=reason(error))
            self._blind = True
            return None
        self._blind = False
        return seen

    async def close(self) -> None:
        """Drain all workers and wait for their ends. Cancelled, it lets go: they end at once."""
        for pool in self.pools.values():
            pool.retire()
        workers = [worker for pool in self.pools.values() for worker in pool.workers]
        try:
            while any(  # noqa: ASYNC110  the end of a process is no event of this loop
                worker.process.poll() is None for worker in workers
            ):
                await asyncio.sleep(_ENDING_SECONDS)
        except (asyncio.CancelledError, KeyboardInterrupt):
            for worker in workers:
                worker.process.send_signal(signal.SIGTERM)
            raise


@contextlib.contextmanager
def _surviving(**whose: str) -> Generator[None, None, None]:
    """A bug with one model must not cost the others their workers."""
    try:
        yield
    except Exception as error:
        _log.error("scaling.failed", exc_info=error, **whose)


@contextlib.asynccontextmanager
async def running(autoscaler: Autoscaler) -> AsyncGenerator[None, None]:
    """The loop and its workers for as long as the block runs."""
    loop = asyncio.create_task(autoscaler.run(), name="scaling")
    try:
        yield
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        await autoscaler.close()
