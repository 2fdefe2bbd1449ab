"""What a worker logs of its executions; prompts and answers only where somebody asked for it."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import structlog

from queue_schemas.messages import Completed, Failed, SubtaskRequest
from worker.providers.prompt import text_of
from worker.quoting import unquoted

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_LONGEST = 4000
"""Characters of a prompt or an answer."""


@contextmanager
def delivery(subtask: SubtaskRequest, worker: str) -> Iterator[None]:
    """Whatever is logged inside names the subtask; a delivery has a task of its own."""
    with structlog.contextvars.bound_contextvars(
        request=str(subtask.request),
        subtask=str(subtask.subtask),
        attempt=subtask.attempt,
        model=subtask.model,
        worker=worker,
    ):
        yield


def started(subtask: SubtaskRequest, execution: UUID, count: int, *, prompts: bool) -> None:
    """The engine is about to be asked; from here on lines name the execution too."""
    structlog.contextvars.bind_contextvars(execution=str(execution))
    _log.debug("execute.started", step=subtask.step, delivery=count)
    if prompts:
        said = "\n".join(text_of(message.get("content")) for message in subtask.messages)
        _log.info("execute.prompt", prompt=said[:_LONGEST], characters=len(said))


def ended(subtask: SubtaskRequest, outcome: Completed | Failed, *, prompts: bool) -> None:
    """The broker has the result."""
    usage = outcome.usage
    spent = {
        "execution": str(outcome.execution),
        "seconds": round(usage.engine_seconds, 3),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
    }
    if isinstance(outcome, Completed):
        _log.debug("execute.ended", finish_reason=outcome.finish_reason, **spent)
    else:
        why = unquoted(outcome.message, subtask)
        kind, code = outcome.kind.value, outcome.code
        _log.info("execute.failed", kind=kind, code=code, reason=why, **spent)
    if prompts:
        _log.info("execute.answer", answer=outcome.text[:_LONGEST], characters=len(outcome.text))


def bug(subtask: SubtaskRequest) -> None:
    """The exception in hand is one that no provider may raise."""
    _log.error("execute.bug", exception=unquoted(traceback.format_exc(), subtask))
