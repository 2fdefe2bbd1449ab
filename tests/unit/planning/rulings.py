"""Rules that the planning tests share."""

from typing import Any
from uuid import UUID, uuid5

from pydantic import TypeAdapter

from master.rules.matching import RuleInForce
from master.rules.rule import Arm, Change, RuleKind, Scope, UsedRule
from queue_schemas.states import RuleState

_CHANGE: TypeAdapter[Change] = TypeAdapter(Change)
_NAMES = UUID(int=7)
_KINDS = {
    "text": RuleKind.PROMPT,
    "model": RuleKind.ROUTE,
    "strategy": RuleKind.ROUTE,
    "split": RuleKind.SPLIT,
    "max_parts": RuleKind.SPLIT,
    "top": RuleKind.RETRIEVAL,
    "candidates": RuleKind.RETRIEVAL,
}


def change(**says: Any) -> Change:
    """What a rule says; its kind follows from that."""
    return _CHANGE.validate_python({"kind": _KINDS[next(iter(says))], **says})


def used(
    name: str = "rule", *, arm: Arm = Arm.ACTIVE, only: str | None = None, **says: Any
) -> UsedRule:
    """A rule that fits a question; `only`: where this model answers."""
    version, made = uuid5(_NAMES, name), change(**says)
    return UsedRule(
        id=version, name=name, version=1, arm=arm, model=only, kind=made.kind, change=made
    )


def rule(
    name: str = "rule",
    version: int = 1,
    *,
    scope: dict[str, Any] | None = None,
    state: RuleState = RuleState.ACTIVE,
    share: float | None = None,
    measured: bool = False,
    **says: Any,
) -> RuleInForce:
    """A rule in force."""
    return RuleInForce(
        uuid5(_NAMES, f"{name} {version}"),
        name,
        version,
        Scope.model_validate(scope or {}),
        change(**(says or {"text": "Be brief."})),
        state,
        share,
        measured,
    )
