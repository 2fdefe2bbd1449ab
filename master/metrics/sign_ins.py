"""Metrics of who gets into the console."""

from enum import StrEnum

from prometheus_client import Counter

from master.metrics.exposition import registry


class Outcome(StrEnum):
    """What becomes of a key that somebody gives."""

    SIGNED_IN = "signed_in"
    REFUSED = "refused"


sign_ins_total = Counter(
    "millrace_console_sign_ins",
    "Keys that were given to sign in to the console, by what became of them.",
    ["outcome"],
    registry=registry,
)
for _outcome in Outcome:
    sign_ins_total.labels(_outcome.value)


def count_sign_in(outcome: Outcome) -> None:
    """Count an attempt."""
    sign_ins_total.labels(outcome.value).inc()
