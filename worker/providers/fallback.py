"""Several engines for one model: the first that is well answers, and others go on where it breaks.

Nothing is told of an engine that fails before its first word, except to the log. After it, the
next engine is given the text that was said, as for any continuation, and the seam is recorded.
"""

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Final

import structlog

from queue_schemas.messages import ErrorKind, SubtaskRequest
from queue_schemas.registry import Model
from worker.providers import breaker as breakers
from worker.providers.breaker import Breaker, State
from worker.providers.diagnosis import MISCONFIGURED, NO_MODEL, UNAUTHORIZED, UNREACHABLE
from worker.providers.patience import next_item
from worker.providers.protocol import Delta, Finish, Provider, ProviderError
from worker.providers.told import Told
from worker.quoting import unquoted

_log = structlog.get_logger(__name__)

USELESS: Final = frozenset(
    {
        MISCONFIGURED[1],
        NO_MODEL[1],
        UNAUTHORIZED[1],
        UNREACHABLE[1],
        "engine_quota_exceeded",
        "stream_options_unsupported",
    }
)
"""The engine as such is of no use at the moment, whatever it is asked."""
_OTHER_MAY: Final = USELESS | {"unsupported_by_model"}
"""Permanent failures of the engine. Any other is the request's own fault, and is so anywhere."""
_PROMPT_READ: Final = frozenset({"first_token_timeout"})


@dataclass(eq=False)
class Engine:
    """One of the engines, and how it has been. `name` is for the log and for seams."""

    name: str
    model: Model
    provider: Provider
    breaker: Breaker = field(default_factory=Breaker)
    error: ProviderError | None = None
    """Its last failure."""


class FallbackProvider:
    """Engines in the order to try them. `now` gives seconds of a clock that only goes forward."""

    def __init__(
        self, engines: Sequence[Engine], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._engines = tuple(engines)
        self._now = now

    async def complete(self, subtask: SubtaskRequest) -> AsyncGenerator[Delta | Finish, None]:
        """Yield one answer, whoever says which part of it."""
        told, errors = Told(subtask), list[ProviderError]()
        for engine in self._engines:
            if not engine.breaker.allows(self._now()):
                errors[:0] = [engine.error] if engine.error else []  # what is new counts more
                continue
            try:
                async with aclosing(self._part(engine, told)) as items:
                    async for item in items:
                        yield item
                    return
            except ProviderError as error:
                if not _goes_on(error):
                    error.seams = told.seams
                    raise
                read = told.alive or error.code in _PROMPT_READ
                told.broke_off(error.code, prompt_was_read=read)
                errors.append(error)
        raise self._failure(told, errors)

    async def _part(self, engine: Engine, told: Told) -> AsyncGenerator[Delta | Finish, None]:
        """What one engine says; its breaker learns how that ended."""
        is_probe = engine.breaker.state(self._now()) is State.HALF_OPEN
        engine.breaker = breakers.begun(engine.breaker, self._now())
        told.speaks(engine.name)
        try:
            async with aclosing(engine.provider.complete(told.subtask)) as items:
                while True:
                    item = await next_item(items, engine.model, alive=told.alive)
                    if isinstance(item, Finish):
                        is_probe = False
                        self._well(engine)
                        yield told.finish(item)
                        return
                    yield told.take(item)
        except ProviderError as error:
            if _tells_of_engine(error):
                is_probe = False
                self._ill(engine, error, unquoted(error.message, told.subtask))
            raise
        finally:
            if is_probe:
                engine.breaker = breakers.after_nothing(engine.breaker)

    def _well(self, engine: Engine) -> None:
        if engine.breaker.open_until is not None:
            _log.info("fallback.closed", engine=engine.name, model=engine.model.name)
        engine.breaker = breakers.after_success(engine.breaker)
        engine.error = None

    def _ill(
        self, engine: Engine, error: ProviderError, reason: str, *, at_once: bool = False
    ) -> None:
        now = self._now()
        at_once = at_once or error.code in USELESS
        engine.breaker = breakers.after_failure(engine.breaker, now, at_once=at_once)
        engine.error = error
        _log.warning(
            "fallback.failed",
            engine=engine.name,
            model=engine.model.name,
            endpoint=engine.model.endpoint,
            code=error.code,
            reason=reason,
            left_alone_seconds=engine.breaker.wait_seconds(now),
        )

    def _failure(self, told: Told, errors: Sequence[ProviderError]) -> ProviderError:
        """No engine is left, now or until the first of the pauses is over."""
        chosen = _telling(errors)
        now = self._now()
        waits = [engine.breaker.wait_seconds(now) for engine in self._engines]
        wait = max(min(waits), chosen.retry_after_seconds or 0.0)
        return ProviderError(chosen.kind, chosen.code, chosen.message, wait or None, told.seams)

    async def check(self) -> None:
        """Find an engine that is ready. Those after it are left as they are."""
        errors = []
        for engine in self._engines:
            try:
                await engine.provider.check()
            except ProviderError as error:
                self._ill(engine, error, error.message, at_once=True)
                errors.append(error)
            else:
                engine.breaker = breakers.after_check(engine.breaker, self._now())
                return
        chosen = _telling(errors)
        said = "; ".join(error.message for error in errors)
        raise ProviderError(chosen.kind, chosen.code, said, chosen.retry_after_seconds)

    async def aclose(self) -> None:
        """Close the connections of all, also when one of them fails to."""
        async with AsyncExitStack() as stack:
            for engine in self._engines:
                stack.push_async_callback(engine.provider.aclose)


def _goes_on(error: ProviderError) -> bool:
    return error.kind is not ErrorKind.PERMANENT or error.code in _OTHER_MAY


def _tells_of_engine(error: ProviderError) -> bool:
    return error.kind is not ErrorKind.PERMANENT or error.code in USELESS


def _telling(errors: Sequence[ProviderError]) -> ProviderError:
    """The last of them that another try may mend, else the last."""
    hopeful = [error for error in errors if error.kind is ErrorKind.TRANSIENT]
    return (hopeful or list(errors))[-1]
