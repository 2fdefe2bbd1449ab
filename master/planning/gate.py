"""Does splitting pay? Before: an estimate. Afterwards: what it came to.

The estimate plays the plan through on the slots that are free: each part takes the next slot of
its model once its inputs are there. It assumes `DEFAULT_TOKENS_PER_SECOND` for models whose rate
was not measured, and that prompts are read ten times as fast as answers are written.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from master.planning.assign import expected_wait, free_slots, rate
from master.planning.plan import Gate
from master.planning.question import Fleet
from queue_schemas.registry import Model

LEAST_SPEEDUP = 1.3
MOST_EXTRA_TOKENS = 2.0
"""How many times the tokens of the unsplit answer may be spent on top."""
LEAST_SECONDS = 3.0
"""An answer that comes this soon is not worth splitting."""
_PROMPT_SPEED = 10
_SECONDS_PER_SUBTASK = 0.05


@dataclass(frozen=True)
class Load:
    """A model call as the gate sees it."""

    model: Model
    prompt_tokens: int
    output_tokens: int
    depends_on: tuple[int, ...] = ()
    """Places of the loads before it whose results it needs."""


def decide(whole: Load, loads: Sequence[Load], fleet: Fleet) -> Gate:
    """Whether to split; `loads` are the parts in order, with the synthesis at the end if any."""
    before = makespan((whole,), fleet)
    after = makespan(loads, fleet)
    speedup = before / after
    extra = _tokens(loads) - _tokens((whole,))
    split, verdict = _verdict(whole, speedup, before, extra)
    slots = sum(
        free_slots(model, fleet)
        for model in {load.model.name: load.model for load in loads}.values()
    )
    numbers = (
        f"{len(loads)} subtasks should take about {_seconds(after)} instead of {_seconds(before)}"
        f" ({speedup:.1f} times as fast, {slots} free slots) and cost {extra:+d} tokens"
    )
    return Gate(
        split=split,
        reason=f"{verdict}: {numbers}.",
        expected_speedup=round(speedup, 2),
        expected_extra_tokens=extra,
    )


def makespan(loads: Sequence[Load], fleet: Fleet) -> float:
    """Seconds until the last of the loads has ended."""
    slots: dict[str, list[float]] = {}
    ends: list[float] = []
    for load in loads:
        free = slots.setdefault(load.model.name, _slots(load.model, fleet))
        ready = max((ends[need] for need in load.depends_on), default=0.0)
        first = min(range(len(free)), key=free.__getitem__)
        free[first] = max(ready, free[first]) + _duration(load, fleet)
        ends.append(free[first])
    return max(ends)


def measured_speedup(spans: Sequence[tuple[float, float]]) -> float | None:
    """How many times as fast as one after the other: (start, end) in seconds of each subtask."""
    if not spans:
        return None
    wall = max(end for _, end in spans) - min(start for start, _ in spans)
    return sum(end - start for start, end in spans) / wall if wall > 0 else None


def measured_extra_tokens(prompt_tokens: Sequence[int], unsplit_prompt_tokens: int) -> int:
    """Prompt tokens that splitting cost on top of those of the one question."""
    return sum(prompt_tokens) - unsplit_prompt_tokens


def _verdict(whole: Load, speedup: float, before: float, extra: int) -> tuple[bool, str]:
    if whole.prompt_tokens + whole.output_tokens > whole.model.context_length:
        return True, f"Split, because the whole does not fit the context of {whole.model.name}"
    if before < LEAST_SECONDS:
        return False, "Not split, because one answer comes soon enough"
    if speedup < LEAST_SPEEDUP:
        return False, "Not split, because it would hardly be faster"
    if extra > MOST_EXTRA_TOKENS * _tokens((whole,)):
        return False, "Not split, because it would cost too many tokens"
    return True, "Split, because it pays"


def _slots(model: Model, fleet: Fleet) -> list[float]:
    """When each slot can begin. With none free, one is waited for."""
    return [0.0] * free_slots(model, fleet) or [expected_wait(model, fleet)]


def _duration(load: Load, fleet: Fleet) -> float:
    tokens = load.prompt_tokens / _PROMPT_SPEED + load.output_tokens
    return _SECONDS_PER_SUBTASK + tokens / rate(load.model, fleet)


def _tokens(loads: Sequence[Load]) -> int:
    return sum(load.prompt_tokens + load.output_tokens for load in loads)


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
