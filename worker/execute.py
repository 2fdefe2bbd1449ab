"""Execute: one delivery of a subtask becomes one Completed or one Failed.

It never retries and it never raises, except when it is cancelled because the connection to the
broker was lost; then somebody else has the subtask already.
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import structlog

from bus.tracing import Span
from queue_schemas.messages import (
    CANCELLED,
    Channel,
    Completed,
    ErrorKind,
    Failed,
    Started,
    SubtaskRequest,
    Usage,
)
from queue_schemas.registry import Model
from worker import logged, spans
from worker.plain_text import PlainText
from worker.providers.protocol import Delta, Finish, Provider, ProviderError
from worker.tokens import Send, TokenStream
from worker.usage import estimate_prompt, estimate_tokens

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Execution:
    """One delivery in the hands of this worker: what control messages act on."""

    subtask: SubtaskRequest
    started: Started
    stream: TokenStream
    cancelled: bool = False
    note_gap: Callable[[float], None] = lambda _: None
    """Told the seconds between two pieces of the engine's text."""
    _alarm: asyncio.Timeout | None = field(default=None)

    @property
    def id(self) -> UUID:
        """The execution's identity on the wire."""
        return self.started.execution

    def cancel(self) -> None:
        """Abort the generation now; the outcome is then Failed `cancelled`."""
        self.cancelled = True
        if self._alarm is not None and not self._alarm.expired():
            self._alarm.reschedule(asyncio.get_running_loop().time())

    def arm(self, alarm: asyncio.Timeout | None) -> None:
        """Tell what aborts the generation while it runs."""
        self._alarm = alarm


def begin(
    subtask: SubtaskRequest, delivery_count: int, worker: str, send: Send, window_seconds: float
) -> Execution:
    """A fresh execution. Started is on its way to the streamer when this returns."""
    started = Started(
        request=subtask.request,
        subtask=subtask.subtask,
        attempt=subtask.attempt,
        execution=uuid4(),
        delivery=delivery_count,
        worker=worker,
    )
    return Execution(subtask, started, TokenStream(subtask, started, send, window_seconds))


async def execute(execution: Execution, provider: Provider, model: Model) -> Completed | Failed:
    """Run the provider within the deadlines."""
    with spans.engine_call(execution.subtask, model) as call:
        outcome = await _outcome(_Run(execution, model, call), provider, execution)
        spans.tell(call, outcome)
        return outcome


async def _outcome(run: "_Run", provider: Provider, execution: Execution) -> Completed | Failed:
    try:
        return run.completed(await run.generate(provider))
    except ProviderError as error:
        return run.failed(error)
    except Exception:
        logged.bug(execution.subtask)
        said = "the worker has a bug; its log has the traceback"
        return run.failed(ProviderError(ErrorKind.PERMANENT, "internal_error", said))
    finally:
        run.tell_mended()


def _silences(model: Model) -> tuple[float, float]:
    """How long the provider may be silent before the text, and within it."""
    if model.fallbacks:
        return math.inf, math.inf  # the provider watches each engine, and has another to turn to
    return model.first_token_seconds, model.inter_token_seconds


class _Run:
    """The clock and the bill of one execution."""

    def __init__(self, execution: Execution, model: Model, call: Span) -> None:
        self._execution = execution
        self._model = model
        self._call = call
        self._stream = execution.stream
        self._now = asyncio.get_running_loop().time
        self._began = self._now()
        self._total = min(execution.subtask.timeout_seconds, model.timeout_seconds)
        self._first_text: float | None = None
        self._last_text = self._began
        self._alive = False
        self._plain = PlainText()

    async def generate(self, provider: Provider) -> Finish:
        """Text goes to the stream; leaving, however it happens, closes the engine's connection."""
        end = self._began + self._total
        before, patience = _silences(self._model)
        first = min(end, self._began + before)
        try:
            async with asyncio.timeout_at(first) as alarm:
                self._execution.arm(alarm)
                if self._execution.cancelled:
                    self._execution.cancel()
                async with aclosing(provider.complete(self._execution.subtask)) as items:
                    async for item in items:
                        if isinstance(item, Finish):
                            self._execution.arm(None)
                            alarm.reschedule(None)
                            return item
                        self._take(item)
                        if not self._execution.cancelled:
                            alarm.reschedule(min(end, self._now() + patience))
                        # An engine that writes faster than it is read would keep the event loop
                        # to itself, and the first text could not leave before the last was read.
                        await asyncio.sleep(0)
        except TimeoutError as error:
            if not alarm.expired():
                raise
            raise self._gave_up() from error
        finally:
            self._execution.arm(None)
        raise ProviderError(
            ErrorKind.TRANSIENT, "upstream_truncated", "the engine ended without saying so"
        )

    def _take(self, delta: Delta) -> None:
        self._alive = True
        if text := self._plain.take(delta):
            now = self._now()
            if self._first_text is None:
                self._first_text = now
                self._call.event("first_token")
            else:
                self._execution.note_gap(now - self._last_text)
            self._last_text = now
            self._stream.add(text, delta.channel)

    def _gave_up(self) -> ProviderError:
        if self._execution.cancelled:
            return ProviderError(ErrorKind.PERMANENT, CANCELLED, "the request was cancelled")
        if self._now() >= self._began + self._total:
            code, seconds, what = "timeout", self._total, "the answer was not complete after"
        elif self._alive:
            seconds = self._model.inter_token_seconds
            code, what = "inter_token_timeout", "the engine fell silent for"
        else:
            seconds = self._model.first_token_seconds
            code, what = "first_token_timeout", "the engine said nothing for"
        return ProviderError(ErrorKind.TRANSIENT, code, f"{what} {seconds:g} s")

    def completed(self, finish: Finish) -> Completed:
        """The result of a generation that came to its end."""
        subtask = self._execution.subtask
        return Completed(
            request=subtask.request,
            subtask=subtask.subtask,
            attempt=subtask.attempt,
            execution=self._execution.id,
            delivery=self._execution.started.delivery,
            worker=self._execution.started.worker,
            usage=self._usage(finish, prompt_was_read=True),
            seams=finish.seams,
            text=self._stream.text(),
            reasoning=self._stream.text(Channel.REASONING),
            tool_calls=self._plain.each(finish.tool_calls),
            logprobs=self._plain.all(finish.logprobs),
            finish_reason=finish.finish_reason,
        )

    def failed(self, error: ProviderError) -> Failed:
        """The result of a generation that did not."""
        subtask = self._execution.subtask
        held = self._alive or error.code in {CANCELLED, "timeout", "first_token_timeout"}
        return Failed(
            request=subtask.request,
            subtask=subtask.subtask,
            attempt=subtask.attempt,
            execution=self._execution.id,
            delivery=self._execution.started.delivery,
            worker=self._execution.started.worker,
            usage=self._usage(None, prompt_was_read=held),
            seams=error.seams,
            kind=error.kind,
            code=error.code,
            message=self._plain.all(error.message),
            text=self._stream.text(),
            retry_after_seconds=error.retry_after_seconds,
        )

    def tell_mended(self) -> None:
        """Say so in the log when the engine said what cannot be stored."""
        if self._plain.mended:
            _log.warning("execute.mended", characters=self._plain.mended)

    def _usage(self, finish: Finish | None, *, prompt_was_read: bool) -> Usage:
        """The engine's counts where it gave them. A refused prompt costs nothing."""
        prompt = finish.prompt_tokens if finish else None
        completion = finish.completion_tokens if finish else None
        counted = prompt is None or completion is None
        if prompt is None:
            prompt = estimate_prompt(self._execution.subtask) if prompt_was_read else 0
        if completion is None:
            completion = self._generated_tokens()
        first = self._first_text
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            estimated=(counted or (finish is not None and finish.estimated))
            and prompt + completion > 0,
            engine_seconds=self._now() - self._began,
            load_seconds=finish.load_seconds if finish else 0.0,
            first_token_seconds=None if first is None else first - self._began,
        )

    def _generated_tokens(self) -> int:
        content = self._stream.text()[len(self._execution.subtask.shown) :]
        return estimate_tokens(content) + estimate_tokens(self._stream.text(Channel.REASONING))
