"""From roll-ups to rules that might help. Pure.

What is compared here was not drawn by lot: people choose models and strategies by their questions.
So this only proposes; a person or a trial decides.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from db.rollups import Complaint, RollUp
from db.rules import LIVE, StoredRule
from master.rules.rule import (
    RULE_NAME,
    PromptChange,
    RouteChange,
    RuleKind,
    Scope,
    SplitChange,
)
from queue_schemas.states import RuleState

WORKFLOW: Final = "learning"
"""What the provenance of these rules says they come from."""
MOST_AT_ONCE: Final = 2
MOST_OPEN: Final = 5
"""Of these rules that nobody has decided on, until there are no more."""
MOST_PROPOSED: Final = 50
"""Of a tenant, by whomever, those in the shadow among them; the database takes no more."""
AGAIN_AFTER: Final = timedelta(days=30)
"""A rule was rejected or retired."""

_LEAST_VOTES: Final = 20
_LEAST_RATERS: Final = 4
_LEAST_LEAD: Final = 0.1
"""Of a mean score, 0 to 1."""
_LEAST_DEVIATIONS: Final = 2.0
_LEAST_COMPLAINTS: Final = 5
_LEAST_COMPLAINING: Final = 3
"""People, for a remedy."""
_LEAST_SHARE: Final = 0.05
"""Of the judged answers, for a remedy."""

REMEDIES: Final[Mapping[str, str]] = {
    "too_long": "Answer briefly: the point first, then only what is needed. No introduction, no"
    " summary at the end.",
    "too_short": "Answer in full: give the reasons, an example where one helps, and every step.",
    "not_factual": "State only what you are sure of. Say plainly what you do not know, and invent"
    " no names, numbers or sources.",
    "not_followed": "Do exactly what was asked: go through every instruction before you answer, and"
    " leave none out.",
    "style": "Write plainly and soberly: no flattery, no exclamation marks, no filler.",
    "refused": "Help with what is asked unless it would clearly do harm; where only a part cannot"
    " be answered, answer the rest.",
    "wrong_language": "Answer in the language of the question, unless it asks for another one.",
    "no_sources": "Say what each statement rests on; where documents are given, cite them.",
    "unclear": "Write so that a newcomer understands it: short sentences, terms explained where"
    " they first occur, steps as a numbered list.",
}
"""What the models are told, by what people complain of."""

_WHOLE: Final = {"auto": "direct", "rag": "rag"}
"""The strategies whose model is a choice of Millrace's, and how a whole answer of it is planned."""


@dataclass(frozen=True)
class Proposal:
    """A rule as it is to be proposed; `scope` and `change` as they are stored."""

    name: str
    scope: Mapping[str, Any]
    change: Mapping[str, Any]
    provenance: Mapping[str, Any]
    note: str


@dataclass(frozen=True)
class _Score:
    """What people said of some answers."""

    name: str
    votes: int
    mean: float
    raters: int

    @property
    def is_enough(self) -> bool:
        return self.votes >= _LEAST_VOTES and self.raters >= _LEAST_RATERS

    def leads(self, other: "_Score") -> bool:
        """Whether it is clearly the better one."""
        if not (self.is_enough and other.is_enough):
            return False
        total = self.votes + other.votes
        mean = (self.votes * self.mean + other.votes * other.mean + 1) / (total + 2)
        deviation = math.sqrt(mean * (1 - mean) * (1 / self.votes + 1 / other.votes))
        lead = self.mean - other.mean
        return lead >= _LEAST_LEAD and lead >= _LEAST_DEVIATIONS * deviation

    @property
    def numbers(self) -> dict[str, Any]:
        return {"votes": self.votes, "mean": round(self.mean, 4), "raters": self.raters}

    def __str__(self) -> str:
        return f"{self.name} {self.mean:.2f} ({self.votes} votes, {self.raters} raters)"


def proposals(
    rollup: Sequence[RollUp],
    complaints: Sequence[Complaint],
    known: Sequence[StoredRule],
    now: datetime,
) -> list[Proposal]:
    """A few rules of one tenant that are worth a look; `known` are all that it has or had."""
    open_now = sum(_is_open(rule) and _is_ours(rule) for rule in known)
    proposed = sum(rule.state in {RuleState.PROPOSED, RuleState.SHADOW} for rule in known)
    room = min(MOST_AT_ONCE, MOST_OPEN - open_now, MOST_PROPOSED - proposed)
    whatever_rule = [row for row in rollup if row.rule_id is None]
    found = [
        *_routes(whatever_rule),
        *_without_splits(whatever_rule),
        *_remedies(complaints, whatever_rule),
    ]
    fresh = [each for each in found if not any(_settles(rule, each, now) for rule in known)]
    return fresh[: max(0, room)]


def _is_open(rule: StoredRule) -> bool:
    return rule.state in {RuleState.PROPOSED, RuleState.SHADOW, RuleState.CANARY}


def _is_ours(rule: StoredRule) -> bool:
    return rule.provenance.get("workflow") == WORKFLOW


def _settles(rule: StoredRule, proposal: Proposal, now: datetime) -> bool:
    """Whether a rule is a reason not to propose this now."""
    if rule.name == proposal.name and _is_open(rule):
        return True
    if rule.scope != proposal.scope or rule.change != proposal.change:
        return False
    if rule.state in LIVE:
        return True
    return rule.decided_at is not None and now - rule.decided_at < AGAIN_AFTER


def _proposal(
    name: str,
    scope: Scope,
    change: PromptChange | RouteChange | SplitChange,
    provenance: Mapping[str, Any],
    note: str,
) -> Proposal:
    said = scope.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    changed = change.model_dump(mode="json", exclude_none=True)
    return Proposal(name, said, changed, provenance, note)


def _routes(rollup: Sequence[RollUp]) -> Iterator[Proposal]:
    """A model that is clearly better than the one that answers by default."""
    for asked, strategy in _WHOLE.items():
        whole = [row for row in rollup if row.strategy == strategy and row.kind == "answer"]
        default = max(
            (row for row in whole if row.asked == asked),
            key=lambda row: (row.requests, row.model),
            default=None,
        )
        scores = {score.name: score for score in _by_model(whole)}
        usual = scores.get(default.model) if default else None
        better = [score for score in scores.values() if usual and score.leads(usual)]
        if usual and better:
            best = max(better, key=lambda score: (score.mean, score.name))
            yield _proposal(
                f"learned-route-{asked}",
                Scope(strategy=asked),
                RouteChange(kind=RuleKind.ROUTE, model=best.name),
                {"better": {best.name: best.numbers}, "than": {usual.name: usual.numbers}},
                f"People score {best} higher than {usual}.",
            )


def _by_model(rows: Iterable[RollUp]) -> Iterator[_Score]:
    by_model: dict[str, list[RollUp]] = defaultdict(list)
    for row in rows:
        by_model[row.model].append(row)
    for model, own in by_model.items():
        # Of different requests, so the votes add up; the same people may be in each.
        yield _Score(
            model, sum(row.votes for row in own), _mean(own), max(row.raters for row in own)
        )


def _mean(rows: Iterable[RollUp]) -> float:
    scored = [(row.votes, row.mean_score) for row in rows if row.mean_score is not None]
    votes = sum(each for each, _ in scored)
    return math.fsum(each * mean for each, mean in scored) / votes if votes else 0.5


def _without_splits(rollup: Sequence[RollUp]) -> Iterator[Proposal]:
    """`auto` should not split where people like answers in one piece better."""
    split, whole = (_of_strategy(rollup, strategy) for strategy in ("split", "direct"))
    if split and whole and whole.leads(split):
        yield _proposal(
            "learned-split-auto",
            Scope(strategy="auto"),
            SplitChange(kind=RuleKind.SPLIT, split=False),
            {"better": {"direct": whole.numbers}, "than": {"split": split.numbers}},
            f"People score {whole} higher than {split}.",
        )


def _of_strategy(rollup: Iterable[RollUp], strategy: str) -> _Score | None:
    rows = [
        row
        for row in rollup
        if (row.asked, row.strategy) == ("auto", strategy) and row.kind in {"answer", "synthesis"}
    ]
    if not rows:
        return None
    # A vote on an answer counts for every model that had a part in it, so they do not add up.
    most = max(rows, key=lambda row: row.votes)
    return _Score(strategy, most.votes, _mean(rows), most.raters)


def _remedies(complaints: Iterable[Complaint], rollup: Sequence[RollUp]) -> Iterator[Proposal]:
    """What the models are told where many complain of the same, the most complaints first."""
    for each in sorted(complaints, key=lambda found: (-found.raters, -found.votes)):
        judged = max((row.judged for row in rollup if row.asked == each.asked), default=0)
        name = f"learned-{each.complaint.replace('_', '-')}-{each.asked}"
        often = each.votes >= max(_LEAST_COMPLAINTS, _LEAST_SHARE * judged)
        if not often or each.raters < _LEAST_COMPLAINING:
            continue
        if each.complaint in REMEDIES and re.fullmatch(RULE_NAME, name):
            yield _proposal(
                name,
                Scope(strategy=each.asked),
                PromptChange(kind=RuleKind.PROMPT, text=REMEDIES[each.complaint]),
                {
                    "feedback": [str(judgement) for judgement in each.judgements],
                    "complaint": each.complaint,
                    "votes": each.votes,
                    "raters": each.raters,
                },
                f"{each.raters} people say of {each.votes} answers:"
                f" {each.complaint.replace('_', ' ')}.",
            )
