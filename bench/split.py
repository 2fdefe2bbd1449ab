"""Row 4: a question of eight equal parts on eight slots, against the ideal."""

import statistics

from bench.effort import Effort
from bench.load import Order, run
from bench.samples import Findings, Limit, Row
from bench.site import Millrace
from bench.subtasks import PARTS, SPLIT_BODY

WORDS = 20
SCRIPT = f"{WORDS}x50"
"""One second for a part."""


def model(workers: int) -> dict[str, object]:
    """The registry entry: eight slots in so many processes."""
    return {
        "provider": "openai",
        "engine_model": SCRIPT,
        "slots": PARTS // workers,
        "max_workers": workers,
    }


def split(mill: Millrace, effort: Effort) -> Findings:
    """Speed-up over one part after the other, as a share of eight times as fast."""
    part = mill.servers.engine_target(SCRIPT, WORDS)
    whole = mill.target(PARTS * WORDS, SPLIT_BODY)
    run(Order((whole,), 1, 1))
    parts: list[float] = []
    wholes: list[float] = []
    for _ in range(effort.rounds):
        load = run(Order((part, whole), 1, 2))
        parts.append(statistics.median(load.totals["engine"]))
        wholes.append(statistics.median(load.totals["millrace"]))
    shares = tuple(one / all_ for one, all_ in zip(parts, wholes, strict=True))
    return Findings(
        (
            Row(
                *("4", f"split, {PARTS} parts on {PARTS} slots", "times as fast"),
                ours=tuple(PARTS * share for share in shares),
                peer="ideal",
                theirs=(float(PARTS),),
                judged=shares,
                limit=Limit(0.9, at_least=True),
            ),
        ),
        notes=(
            f"split: one part alone takes {statistics.median(parts):.3f} s, "
            f"{PARTS} parts {statistics.median(wholes):.3f} s",
        ),
    )
