"""Which rules in force fit a question, and what becomes of each for one request.

The arm is drawn by request: each request of a conversation draws anew. That gives a trial the most
samples, and a person who dislikes an answer may get the other one by asking again.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from uuid import UUID

from master.rules.rule import (
    Arm,
    Change,
    RouteChange,
    Scope,
    SplitChange,
    UsedRule,
)
from queue_schemas.states import RuleState

DIRECT = "direct"
AUTO = "auto"
CONTROL_SHARE = 0.1
"""Of the questions that fit a rule which a measured lift made active."""
_SPLITTING = frozenset({AUTO, "split", "rag"})
_LONGEST_READ = 20_000
"""Characters of a question where topics are looked for: half at its beginning, half at its end."""
# Where no spaces stand between words, each character is one.
_WORD = re.compile(r"[^\W\u2e80-\U0010ffff]+|\S")
_DICE_BITS = 53
"""As many as a float holds exactly, so that none rounds up to 1."""


@dataclass(frozen=True)
class RuleInForce:
    """A version that is looked at when a question comes."""

    id: UUID
    name: str
    version: int
    scope: Scope
    change: Change
    state: RuleState
    """shadow | canary | active"""
    share: float | None = None
    """Of a canary: of the questions that fit, 0 to 1."""
    measured: bool = False
    """A measured lift made it active; it keeps a control group."""

    @cached_property
    def topics(self) -> tuple[str, ...]:
        """The words of its scope as they are compared with a question's."""
        return tuple(map(_spaced, self.scope.topic))


@dataclass(frozen=True)
class Asked:
    """A question as rules see it."""

    strategy: str
    """As asked for; `direct` for a model's own name."""
    model: str | None = None
    """The model that the client named, if it named one."""
    text: str = field(default="", repr=False)
    """What the user said last."""

    @cached_property
    def words(self) -> str:
        """The text as topics are compared with it."""
        half = _LONGEST_READ // 2
        cut = len(self.text) > _LONGEST_READ
        return _spaced(f"{self.text[:half]} {self.text[-half:]}" if cut else self.text)


def choose(rules: Iterable[RuleInForce], asked: Asked, request: UUID) -> tuple[UsedRule, ...]:
    """The rules that fit, each with its arm: those on trial first, then the narrowest, by name.

    A canary of a name takes the place of the active version for the requests that it gets; for all
    others it is recorded as control beside the active one.
    """
    fitting = sorted((rule for rule in rules if fits(rule, asked)), key=lambda rule: rule.name)
    used: list[tuple[RuleInForce, Arm]] = []
    for _, versions in groupby(fitting, key=lambda rule: rule.name):
        used += _arms(list(versions), request)
    used.sort(key=lambda pair: (pair[1] is not Arm.CANARY, -_narrowness(pair[0].scope)))
    return tuple(_used(rule, arm) for rule, arm in used)


def fits(rule: RuleInForce, asked: Asked) -> bool:
    """Whether a rule holds for a question and could change anything about its answer."""
    scope = rule.scope
    return (
        scope.strategy in {None, asked.strategy}
        and (asked.model is None or scope.model in {None, asked.model})
        and _can_act(rule.change, asked)
        and (not scope.topic or any(topic in asked.words for topic in rule.topics))
    )


def steady(rules: Iterable[RuleInForce], asked: Asked) -> tuple[RuleInForce, ...] | None:
    """The rules that apply to every such question; None where one is applied to a share only."""
    fitting = [r for r in rules if r.state is not RuleState.SHADOW and fits(r, asked)]
    if any(rule.state is RuleState.CANARY or rule.measured for rule in fitting):
        return None
    return tuple(fitting)


def arm_of(rule: RuleInForce, request: UUID) -> Arm:
    """What becomes of a rule that fits a request: always the same for the two."""
    if rule.state is RuleState.SHADOW:
        return Arm.SHADOW
    if rule.state is RuleState.CANARY:
        return Arm.CANARY if dice(rule.id, request) < (rule.share or 0.0) else Arm.CONTROL
    if rule.measured and dice(rule.id, request) < CONTROL_SHARE:
        return Arm.CONTROL
    return Arm.ACTIVE


def dice(version: UUID, unit: UUID) -> float:
    """A number from 0 to below 1 that depends on nothing but these two."""
    digest = hashlib.blake2b(version.bytes + unit.bytes, digest_size=8).digest()
    return (int.from_bytes(digest) >> (64 - _DICE_BITS)) / (1 << _DICE_BITS)


def _arms(versions: Sequence[RuleInForce], request: UUID) -> list[tuple[RuleInForce, Arm]]:
    """Of the versions of one name that fit."""
    drawn = [(rule, arm_of(rule, request)) for rule in versions]
    arms = {arm for rule, arm in drawn if rule.state is RuleState.CANARY}
    if Arm.CANARY in arms:
        return [pair for pair in drawn if pair[0].state is not RuleState.ACTIVE]
    # What a canary is compared with is the active version, and not that one's own control group.
    return [
        (rule, Arm.ACTIVE if arms and rule.state is RuleState.ACTIVE else arm)
        for rule, arm in drawn
    ]


def _can_act(change: Change, asked: Asked) -> bool:
    match change:
        case RouteChange():
            return asked.strategy == AUTO if change.strategy else asked.model is None
        case SplitChange():
            return asked.strategy in (_SPLITTING if change.max_parts else {AUTO})
        case _:
            return True


def _narrowness(scope: Scope) -> int:
    return sum(bool(part) for part in (scope.strategy, scope.model, scope.topic))


def _used(rule: RuleInForce, arm: Arm) -> UsedRule:
    return UsedRule(
        id=rule.id,
        name=rule.name,
        version=rule.version,
        arm=arm,
        model=rule.scope.model,
        kind=rule.change.kind,
        change=rule.change,
    )


def _spaced(text: str) -> str:
    """A text as its words with a space around each, whatever their case and form."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return f" {' '.join(words)} "
