"""What becomes of a subtask whose attempt failed. Pure: the caller writes what this decides."""

import random
from collections.abc import MutableMapping
from dataclasses import dataclass

from master.planning.assign import expected_wait
from master.planning.question import Fleet
from queue_schemas.messages import ErrorKind
from queue_schemas.registry import Capability, Model, ProviderName
from queue_schemas.states import SubtaskState

FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 180.0
"""No engine may ask for more: four such waits, between five attempts, leave time for an answer in a
request's fifteen minutes, while an hour would only let the request expire untried."""
ELSEWHERE_ATTEMPTS = 2
"""So many last attempts may go to another model."""
POISON_ATTEMPTS = 2
MODEL_FAULTS = frozenset(
    {
        "model_not_found",
        "model_unavailable",
        "engine_misconfigured",
        "engine_unauthorized",
        "unsupported_by_model",
    }
)
"""Permanent failures of the model, not of the question: another model may well answer."""


@dataclass(frozen=True)
class Again:
    """Try again after so many seconds."""

    delay_seconds: float


@dataclass(frozen=True)
class GiveUp:
    """End the subtask in this state."""

    state: SubtaskState


def decide(
    kind: ErrorKind,
    attempt: int,
    *,
    max_attempts: int,
    retry_after_seconds: float | None = None,
    chance: float | None = None,
) -> Again | GiveUp:
    """Decide on a failure that a worker reported.

    `chance` in 0…1 takes the place of the jitter's dice. Waits grow as 1, 2, 4 … 60 seconds with
    full jitter; an engine's own Retry-After is the lower bound, up to a limit.
    """
    if kind is ErrorKind.PERMANENT:
        return GiveUp(SubtaskState.FAILED)
    if attempt >= max_attempts:
        return GiveUp(SubtaskState.DEAD)
    if kind is ErrorKind.POISON and attempt >= POISON_ATTEMPTS:
        return GiveUp(SubtaskState.DEAD)
    longest = min(FIRST_DELAY_SECONDS * 2 ** (attempt - 1), LONGEST_DELAY_SECONDS)
    wait = longest * (random.random() if chance is None else chance)
    return Again(max(wait, min(retry_after_seconds or 0.0, LONGEST_RETRY_AFTER_SECONDS)))


def decide_on_loss(
    attempt: int, losses: int, *, max_attempts: int, max_losses: int
) -> Again | GiveUp:
    """Decide on a worker that fell silent; `losses` counts the earlier ones."""
    if losses + 1 >= max_losses or attempt >= max_attempts:
        return GiveUp(SubtaskState.DEAD)
    return Again(0.0)


# --- the budget ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bucket:
    """What a model may still retry: `left` at the time `at`. Below zero, retries are waiting."""

    left: float
    at: float


RetryBudget = MutableMapping[str, Bucket]
"""A bucket for each model."""


def spend(bucket: Bucket | None, now: float, per_minute: float) -> tuple[Bucket, float]:
    """Take one retry; returns the bucket after it and how long the retry has to wait.

    A minute's worth may be taken at once. Beyond that retries come at the steady rate and never
    faster, so that an outage does not multiply the load; none is refused.
    """
    before = bucket or Bucket(per_minute, now)
    refilled = before.left + max(0.0, now - before.at) * per_minute / 60
    left = min(per_minute, refilled) - 1
    return Bucket(left, max(now, before.at)), max(0.0, -left * 60 / per_minute)


# --- another model -------------------------------------------------------------------------------


def goes_elsewhere(kind: ErrorKind, code: str, attempt: int, max_attempts: int) -> bool:
    """Whether the attempt after this one may go to another model than was planned."""
    if kind is ErrorKind.PERMANENT:
        return code in MODEL_FAULTS and attempt < max_attempts
    most = min(POISON_ATTEMPTS, max_attempts) if kind is ErrorKind.POISON else max_attempts
    return most - ELSEWHERE_ATTEMPTS <= attempt < most


def goes_elsewhere_on_loss(
    attempt: int, losses: int, *, max_attempts: int, max_losses: int
) -> bool:
    """The same after a worker fell silent."""
    few_left = losses + 1 >= max_losses - 1 or attempt >= max_attempts - ELSEWHERE_ATTEMPTS
    return few_left and attempt < max_attempts


def another_model(planned: str, current: str, tokens: int, fleet: Fleet) -> Model | None:
    """A live model that can do all that the planned one can, with room for so many tokens.

    Of several the one with the shortest wait, then the cheapest. None: there is no other.
    Of a planned one that left the registry nothing is known but that it wrote.
    """
    wanted = fleet.registry.get(planned)
    capabilities = wanted.capabilities if wanted else frozenset({Capability.CHAT})
    quotes = wanted is not None and wanted.provider is ProviderName.EXTRACTIVE
    able = [
        model
        for model in fleet.registry.chat_models()
        if model.name not in {planned, current}
        and model.name in fleet.free_slots
        and model.capabilities >= capabilities
        and model.context_length >= (min(tokens, wanted.context_length) if wanted else tokens)
        # One that quotes cannot stand in for one that writes, nor the other way round.
        and (model.provider is ProviderName.EXTRACTIVE) == quotes
    ]
    return min(
        able,
        key=lambda m: (round(expected_wait(m, fleet), 3), m.price.prompt + m.price.completion),
        default=None,
    )
