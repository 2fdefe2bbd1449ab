"""The spans of a master's work with the queue, and what they say."""

from collections.abc import Container, Sequence
from contextlib import AbstractContextManager
from uuid import UUID

from bus import tracing
from bus.tracing import Kind, Span
from master.facts import Fact, Received
from queue_schemas.messages import Completed, Failed, Heartbeat, SubtaskRequest
from queue_schemas.topology import RESULTS


def publish(
    call: SubtaskRequest, queue: str, tries: int, trace: str | None
) -> AbstractContextManager[Span]:
    """An attempt on its way to its queue, until the broker has confirmed it."""
    return tracing.span(
        "publish",
        Kind.PRODUCER,
        parent=trace,
        messaging="rabbitmq",
        sending="send",
        queue=queue,
        request=call.request,
        subtask=call.subtask,
        step=call.step,
        attempt=call.attempt,
        tries=tries,
        model=call.model,
    )


def traces(facts: Sequence[Fact]) -> dict[UUID, str]:
    """The trace of each request that these are of, as far as their senders named it."""
    if not tracing.is_on():
        return {}
    return {
        fact.message.request: trace
        for fact in facts
        if isinstance(fact, Received) and not isinstance(fact.message, Heartbeat)
        if (trace := tracing.trace_id_of(fact.delivery))
    }


def collected(facts: Sequence[Fact], counted: Container[UUID]) -> None:
    """Results that have just been stored: each from its arrival to the commit."""
    if not tracing.is_on():
        return
    for fact in facts:
        if isinstance(fact, Received) and isinstance(fact.message, Completed | Failed):
            result, parent = fact.message, tracing.sent_with(fact.delivery)
            if not parent:
                continue  # its worker traces nothing
            tracing.record(
                "collect",
                Kind.CONSUMER,
                parent=parent,
                began=fact.at,
                messaging="rabbitmq",
                sending="process",
                queue=RESULTS.name,
                request=result.request,
                subtask=result.subtask,
                attempt=result.attempt,
                execution=result.execution,
                outcome=result.status,
                counted=result.execution in counted,
            )
