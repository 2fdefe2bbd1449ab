"""What a master logs of requests: two lines for each, and at debug the way of each subtask."""

from collections.abc import Container, Mapping, Sequence
from uuid import UUID

import structlog

from db.requests import LockedRequest
from master.attempts import Setback
from master.ending import Ending
from master.planning.plan import Plan
from master.retry import Again
from queue_schemas.messages import Completed, Failed, SubtaskRequest

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def accepted(
    request: UUID, model: str, plan: Plan, *, at_once: bool, redriven_from: UUID | None = None
) -> None:
    """A request has been stored."""
    again = {} if redriven_from is None else {"redriven_from": str(redriven_from)}
    _log.info(
        "request.accepted",
        request=str(request),
        model=model,
        strategy=plan.strategy,
        subtasks=len(plan.steps),
        waits=not at_once,
        **again,
    )


def published(call: SubtaskRequest) -> None:
    """The broker has an attempt."""
    _log.debug(
        "subtask.published",
        request=str(call.request),
        subtask=str(call.subtask),
        attempt=call.attempt,
        model=call.model,
        step=call.step,
    )


def collected(
    results: Sequence[Completed | Failed], counted: Container[UUID], traces: Mapping[UUID, str]
) -> None:
    """Results have been stored; those that came too late are in the ledger only."""
    for result in results:
        _log.debug(
            "collect.applied" if result.execution in counted else "collect.late",
            request=str(result.request),
            subtask=str(result.subtask),
            attempt=result.attempt,
            execution=str(result.execution),
            outcome=result.status if isinstance(result, Completed) else result.code,
            **_of(traces.get(result.request)),
        )


def setbacks(met: Sequence[Setback], traces: Mapping[UUID, str]) -> None:
    """Attempts that failed, each with what follows."""
    for setback in met:
        failed, decision = setback.failed, setback.following.decision
        about = {
            "request": str(failed.request),
            "subtask": str(failed.subtask),
            "attempt": failed.attempt,
            "execution": str(failed.execution),
            "code": failed.code,
            **_of(traces.get(failed.request)),
        }
        if isinstance(decision, Again):
            elsewhere, after = setback.following.model, round(decision.delay_seconds, 3)
            _log.info("subtask.retried", after_seconds=after, elsewhere=elsewhere, **about)
        else:
            _log.warning(f"subtask.{decision.state}", **about)


def ended(request: LockedRequest, ending: Ending, trace: str | None = None) -> None:
    """A request has its terminal state."""
    _log.info(
        "request.ended",
        request=str(request.id),
        state=ending.state.value,
        seconds=round(request.seconds, 3),
        code=(ending.error or {}).get("code"),
        prompt_tokens=ending.prompt_tokens,
        completion_tokens=ending.completion_tokens,
        **_of(trace),
    )


def _of(trace: str | None) -> dict[str, str]:
    return {} if trace is None else {"trace": trace}
