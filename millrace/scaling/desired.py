"""How many workers a model should have: the rule of Kubernetes' HorizontalPodAutoscaler.

It is given what KEDA gives it: an external metric with a target per pod, here the messages of the
model's queue, those in workers' hands included. Up in one step; down by the highest
recommendation of a window, and only so many in a period. Nothing here looks at a clock.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Of one model, as `models.yaml` has them."""

    minimum: int
    maximum: int


@dataclass(frozen=True)
class Rule:
    """What is the same for all models; seconds."""

    target: int = 1
    """Messages per worker."""
    tolerance: float = 0.1
    """A change of the load that is no larger is no reason to change anything."""
    down_window_seconds: float = 300.0
    """A worker goes when it was wanted at no time in it."""
    down_workers: int = 1
    """So many go at most within `down_period_seconds`."""
    down_period_seconds: float = 60.0


@dataclass(frozen=True)
class History:
    """What the next decision has to know of the earlier ones: (when, how many)."""

    recommended: tuple[tuple[float, int], ...] = ()
    removed: tuple[tuple[float, int], ...] = ()


def recommended(messages: int, current: int, rule: Rule) -> int:
    """For this load alone: no limits, no memory.

    The tolerance counts from the workers there are: with ten of them one message less changes
    nothing, and neither does one more; with nine of them it does.
    """
    if current:
        ratio = messages / (rule.target * current)
        # Not abs(1 - ratio): at exactly 10 % the two differ by a rounding error, and this is how
        # Kubernetes 1.33 and newer compare.
        if 1.0 - rule.tolerance <= ratio <= 1.0 + rule.tolerance:
            return current
    return math.ceil(messages / rule.target)


def desired(
    messages: int, current: int, limits: Limits, rule: Rule, history: History, now: float
) -> tuple[int, History]:
    """How many workers there should be now, and the history that includes this decision.

    Limits that were changed count at once, whatever window and period say.
    """
    if not limits.minimum <= current <= limits.maximum:
        return min(max(current, limits.minimum), limits.maximum), history
    advice = recommended(messages, current, rule)
    kept = _since(now - rule.down_window_seconds, history.recommended)
    removed = _since(now - rule.down_period_seconds, history.removed)
    wanted = advice
    if advice < current:
        calmest = max((advice, *(replicas for _, replicas in kept)))
        allowed = max(0, rule.down_workers - sum(number for _, number in removed))
        wanted = max(min(calmest, current), current - allowed)
    wanted = min(max(wanted, limits.minimum), limits.maximum)
    if wanted < current:
        removed = (*removed, (now, current - wanted))
    return wanted, History((*kept, (now, advice)), removed)


def _since(start: float, events: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
    return tuple(event for event in events if event[0] > start)
