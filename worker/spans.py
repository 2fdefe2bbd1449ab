"""The spans of a worker, and what they say."""

from contextlib import AbstractContextManager

from bus import tracing
from bus.protocol import Delivery
from bus.tracing import Kind, Span
from queue_schemas.messages import CANCELLED, Completed, Failed, SubtaskRequest
from queue_schemas.registry import Model
from queue_schemas.topology import RESULTS


def execute(
    subtask: SubtaskRequest, delivery: Delivery, worker: str
) -> AbstractContextManager[Span]:
    """One delivery in the hands of a worker, until the broker has its result."""
    return tracing.span(
        "execute",
        Kind.CONSUMER,
        parent=tracing.sent_with(delivery),
        messaging="rabbitmq",
        sending="process",
        queue=delivery.queue,
        request=subtask.request,
        subtask=subtask.subtask,
        step=subtask.step,
        attempt=subtask.attempt,
        redelivered=delivery.delivery_count,
        model=subtask.model,
        worker=worker,
    )


def engine_call(subtask: SubtaskRequest, model: Model) -> AbstractContextManager[Span]:
    """The engine at work on it."""
    return tracing.span(
        "engine call",
        Kind.CLIENT,
        operation="chat",
        provider=model.provider,
        model=model.engine_model or model.name,
        subtask=subtask.subtask,
        attempt=subtask.attempt,
    )


def report(outcome: Completed | Failed) -> AbstractContextManager[Span]:
    """A result on its way to the masters, until the broker has confirmed it."""
    return tracing.span(
        "publish result",
        Kind.PRODUCER,
        messaging="rabbitmq",
        sending="send",
        queue=RESULTS.name,
        subtask=outcome.subtask,
        attempt=outcome.attempt,
        execution=outcome.execution,
        outcome=outcome.status,
    )


def tell(span: Span, outcome: Completed | Failed) -> None:
    """Put on a span how it came out. Whoever was told to stop has done nothing wrong."""
    usage = outcome.usage
    span.note(
        execution=outcome.execution,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        engine_seconds=usage.engine_seconds,
    )
    if isinstance(outcome, Completed):
        span.note(finish_reason=outcome.finish_reason)
    elif outcome.code == CANCELLED:
        span.note(cancelled=True)
    else:
        span.fail(outcome.code)
