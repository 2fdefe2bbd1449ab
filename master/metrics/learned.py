"""Metrics of what people say of answers, and of what is made of it."""

from collections.abc import Iterable
from itertools import product

from prometheus_client import Counter

from db.judgements import NewJudgement
from db.models import JudgementSource
from db.openwebui_tables import Outcome
from master.metrics.exposition import registry
from master.rules.rule import Arm, RuleKind, UsedRule

_GOOD, _BAD = 0.75, 0.25

cache_total = Counter(
    "millrace_cache", "Chats that might have had an answer already.", ["found"], registry=registry
)
judgements_total = Counter(
    "millrace_judgements",
    "Judgements of answers, by where they came from and what they say.",
    ["source", "verdict"],
    registry=registry,
)
rules_used_total = Counter(
    "millrace_rules_used",
    "Rules that fitted accepted requests, by what became of them.",
    ["kind", "arm"],
    registry=registry,
)
openwebui_ratings_total = Counter(
    "millrace_openwebui_ratings",
    "Ratings in Open WebUI that were new or had changed, by what became of them.",
    ["outcome"],
    registry=registry,
)
for _found in ("yes", "no"):
    cache_total.labels(_found)
for _source, _verdict in product(JudgementSource, ("good", "mixed", "bad", "none")):
    judgements_total.labels(_source.value, _verdict)
for _kind, _arm in product(RuleKind, Arm):
    rules_used_total.labels(_kind.value, _arm.value)
for _outcome in Outcome:
    openwebui_ratings_total.labels(_outcome.value)


def count_rules(rules: Iterable[UsedRule]) -> None:
    """Count the rules that fitted a request."""
    for rule in rules:
        rules_used_total.labels(rule.kind.value, rule.arm.value).inc()


def count_judgements(said: Iterable[NewJudgement]) -> None:
    """Count judgements that were stored, or changed."""
    for judgement in said:
        judgements_total.labels(judgement.source.value, verdict(judgement.score)).inc()


def count_stop() -> None:
    """Count the judgement of a client that did not wait for the end; it has no score."""
    judgements_total.labels(JudgementSource.SYSTEM.value, verdict(None)).inc()


def verdict(score: float | None) -> str:
    """What a score of 0 to 1 says: good, bad, mixed; none where there is no score."""
    if score is None:
        return "none"
    if score >= _GOOD:
        return "good"
    return "bad" if score <= _BAD else "mixed"
