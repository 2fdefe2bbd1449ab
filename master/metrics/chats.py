"""Metrics of requests and subtasks: counters and times, each beside what it counts.

Who counts in a transaction's name does so after its commit.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from prometheus_client import Counter, Histogram

from master.metrics.exposition import (
    LATENCY_BUCKETS,
    LONG_BUCKETS,
    QUEUE_BUCKETS,
    STOP_BUCKETS,
    exemplar,
    registry,
)
from master.metrics.labels import know, model_label, strategy_label
from master.planning.strategies import STRATEGIES
from queue_schemas.messages import CANCELLED, Completed, Failed
from queue_schemas.registry import Registry
from queue_schemas.states import REQUEST_TERMINAL, RequestState, SubtaskState


class Cause(StrEnum):
    """Why a request was ended early."""

    CLIENT = "client"
    """Somebody said so."""
    LEFT = "left"
    """Its client went away."""
    DEADLINE = "deadline"


class RetryReason(StrEnum):
    """Why a subtask is tried again. Those of an engine's failure are `ErrorKind`."""

    TRANSIENT = "transient"
    POISON = "poison"
    PERMANENT = "permanent"
    """The fault was the model's, and another one takes over."""
    LOST = "lost"
    """Its worker fell silent."""
    DIVERGED = "diverged"
    """It was answered anew, and otherwise than what was shown."""


requests_total = Counter(
    "millrace_requests",
    "Requests that were accepted, also to be done again; not those of `millrace dead retry`.",
    ["strategy"],
    registry=registry,
)
endings_total = Counter(
    "millrace_request_endings",
    "Requests that ended, by strategy and state.",
    ["strategy", "state"],
    registry=registry,
)
request_seconds = Histogram(
    "millrace_request_seconds",
    "From accepting a request to its end.",
    ["strategy"],
    buckets=LONG_BUCKETS,
    registry=registry,
)
first_text_seconds = Histogram(
    "millrace_first_text_seconds",
    "From accepting a streamed request to its first text.",
    ["strategy"],
    buckets=LATENCY_BUCKETS,
    registry=registry,
)
subtask_endings_total = Counter(
    "millrace_subtask_endings",
    "Subtasks that ended, by model, strategy of their request, and state.",
    ["model", "strategy", "state"],
    registry=registry,
)
queue_seconds = Histogram(
    "millrace_queue_seconds",
    "How long subtasks waited, in the database and on their queue, until a worker began.",
    ["model"],
    buckets=QUEUE_BUCKETS,
    registry=registry,
)
stop_seconds = Histogram(
    "millrace_stop_seconds",
    "From ending a request early until it was known that an execution of it had stopped.",
    ["model"],
    buckets=STOP_BUCKETS,
    registry=registry,
)
results_total = Counter(
    "millrace_results",
    "Results that were collected; late ones did not count, cancelled ones are only a bill.",
    ["model", "outcome"],
    registry=registry,
)
tokens_total = Counter(
    "millrace_tokens", "Tokens that engines counted.", ["model", "kind"], registry=registry
)
engine_seconds_total = Counter(
    "millrace_engine_seconds", "Time that engines were held.", ["model"], registry=registry
)
retries_total = Counter(
    "millrace_retries",
    "Subtasks that are tried again, by the model that failed and why.",
    ["model", "reason"],
    registry=registry,
)
redeliveries_total = Counter(
    "millrace_redeliveries",
    "Executions of messages that the broker had handed out before.",
    ["model"],
    registry=registry,
)
cancels_total = Counter(
    "millrace_cancels", "Requests that were ended early, by cause.", ["cause"], registry=registry
)
dead_total = Counter(
    "millrace_dead", "Subtasks whose attempts are exhausted.", ["model"], registry=registry
)
slow_consumers_total = Counter(
    "millrace_slow_consumers",
    "Streams that were cut because their client took nothing for too long.",
    registry=registry,
)
takeovers_total = Counter(
    "millrace_takeovers",
    "Open requests whose stream went on here after another replica had it.",
    registry=registry,
)
resends_total = Counter(
    "millrace_resends", "Gaps in streams for which workers had to send again.", registry=registry
)

# Looking a label up takes the library three times as long as counting. Bounded as the labels are.
_accepted = cache(requests_total.labels)
_ended = cache(endings_total.labels)
_took = cache(request_seconds.labels)
_first_text = cache(first_text_seconds.labels)
_subtask_ended = cache(subtask_endings_total.labels)
_waited = cache(queue_seconds.labels)
_stopped = cache(stop_seconds.labels)
_result = cache(results_total.labels)
_tokens = cache(tokens_total.labels)
_engine = cache(engine_seconds_total.labels)


@dataclass(frozen=True)
class SubtaskEnding:
    """A subtask that reached a terminal state."""

    model: str
    strategy: str | None
    state: SubtaskState


def know_models(known: Registry) -> None:
    """Take the models of the registry for labels, and show what never happened as 0.

    Prometheus sees no increase in what begins with 1.
    """
    for model in know(known):
        for counter in (dead_total, redeliveries_total):
            counter.labels(model)
        for times in (_waited, _stopped, _engine):
            times(model)
        for kind in ("prompt", "completion"):
            _tokens(model, kind)
        for outcome in ("completed", "failed", "late", CANCELLED):
            _result(model, outcome)
        for reason in RetryReason:
            retries_total.labels(model, reason.value)


for _cause in Cause:
    cancels_total.labels(_cause.value)
for _strategy in STRATEGIES:
    for _of_strategy in (_accepted, _first_text):
        _of_strategy(_strategy)
    for _state in REQUEST_TERMINAL:
        _ended(_strategy, _state.value)


def count_accepted(strategy: str) -> None:
    """Count a request that was accepted."""
    _accepted(strategy_label(strategy)).inc()


def count_ending(
    strategy: str | None, state: RequestState, seconds: float, trace: str | None = None
) -> None:
    """Count a request that ended so long after it was accepted."""
    name = strategy_label(strategy)
    _ended(name, state.value).inc()
    _took(name).observe(max(0.0, seconds), exemplar(trace))


def note_first_text(strategy: str, seconds: float) -> None:
    """Note when the first text of a stream came."""
    _first_text(strategy_label(strategy)).observe(seconds, exemplar())


def count_subtask_endings(endings: Iterable[SubtaskEnding]) -> None:
    """Count subtasks that ended; the dead ones once more."""
    for ending in endings:
        model = model_label(ending.model)
        strategy = strategy_label(ending.strategy)
        _subtask_ended(model, strategy, ending.state.value).inc()
        if ending.state is SubtaskState.DEAD:
            dead_total.labels(model).inc()


def count_start(model: str, waited_seconds: float, delivery: int, trace: str | None = None) -> None:
    """Note how long a subtask waited for its worker, or that its message was handed out again."""
    name = model_label(model)
    if delivery > 0:
        redeliveries_total.labels(name).inc()
    else:
        _waited(name).observe(max(0.0, waited_seconds), exemplar(trace))


def count_result(model: str, result: Completed | Failed, *, counted: bool) -> None:
    """Count one collected result with its bill."""
    name = model_label(model)
    _result(name, _outcome(result, counted)).inc()
    _tokens(name, "prompt").inc(result.usage.prompt_tokens)
    _tokens(name, "completion").inc(result.usage.completion_tokens)
    _engine(name).inc(result.usage.engine_seconds)


def _outcome(result: Completed | Failed, counted: bool) -> str:
    if isinstance(result, Failed) and result.code == CANCELLED:
        return CANCELLED
    return result.status if counted else "late"


def note_stop(model: str, seconds: float, trace: str | None = None) -> None:
    """Note how long an execution that was at work took to stop."""
    _stopped(model_label(model)).observe(max(0.0, seconds), exemplar(trace))


def count_retry(model: str, reason: RetryReason) -> None:
    """Count a subtask that gets another attempt."""
    retries_total.labels(model_label(model), reason.value).inc()


def count_cancel(cause: Cause) -> None:
    """Count a request that was ended early."""
    cancels_total.labels(cause.value).inc()
