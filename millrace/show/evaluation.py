"""How well retrieval finds: a table, and bars."""

from statistics import median

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from master.retrieval.evaluation.measures import Interval
from master.retrieval.evaluation.outcome import Evaluation, Leg, LegOutcome
from millrace.problems import one_line
from millrace.show.numbers import count, plural, seconds

_BAR = 30
_PARTS = " ▏▎▍▌▋▊▉█"


def evaluation_page(found: Evaluation) -> RenderableType:
    """Everything measured of a set."""
    parts: list[RenderableType] = [Text(_heading(found)), _table(found), _bars(found)]
    parts += [Text(line) for line in leads(found)]
    return Group(*parts)


def leads(found: Evaluation) -> list[str]:
    """What the hybrid brings over the best leg, each with how certain that is."""
    return [
        f"nDCG@10 of {leg} minus {found.best_leg}: {_signed(lead)}. {_verdict(lead)}"
        for leg in (Leg.HYBRID, Leg.RERANKED)
        if (lead := found.lead(leg)) is not None
    ]


def _heading(found: Evaluation) -> str:
    passages = plural(found.passages, "passage")
    left = f", {found.left_out:,} without a relevant passage left out" if found.left_out else ""
    model = found.model or "no embedding model"
    return (
        f"{one_line(found.name)}: {passages}, {plural(found.questions, 'question')}{left}; "
        f"{found.language}, {model}, {found.candidates} candidates of each leg, "
        f"dense weight {found.dense_weight:g}"
    )


def _table(found: Evaluation) -> Table:
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("Leg", no_wrap=True)
    for name in (*found.legs[0].means, "Queries", "Median time"):
        table.add_column(name, no_wrap=True, justify="right")
    for leg in found.legs:
        cells = [f"{mean:.4f}" for mean in leg.means.values()]
        time = seconds(median(leg.milliseconds) / 1000)
        table.add_row(leg.leg, *cells, count(len(leg.ndcg)), time)
    return table


def _bars(found: Evaluation) -> Table:
    grid = Table.grid(padding=(0, 1))
    for name in found.legs[0].means:
        grid.add_row(Text(name, "bold"))
        for leg in found.legs:
            mean = leg.means[name]
            grid.add_row(Text(f"  {leg.leg}"), Text(_bar(mean), "cyan"), Text(f"{mean:.3f}"))
    return grid


def _bar(share: float) -> str:
    eighths = round(share * _BAR * 8)
    return _PARTS[8] * (eighths // 8) + _PARTS[eighths % 8].strip()


def _signed(lead: Interval) -> str:
    return f"{lead.mean:+.4f}, 95 % interval {lead.low:+.4f} to {lead.high:+.4f}"


def _verdict(lead: Interval) -> str:
    if lead.low > 0:
        return "Better."
    return "Worse." if lead.high < 0 else "Not told apart by these questions."


def as_json(found: Evaluation) -> dict[str, object]:
    """The same for programs."""
    return {
        "set": found.name,
        "language": found.language,
        "embedding_model": found.model,
        "passages": found.passages,
        "questions": found.questions,
        "left_out": found.left_out,
        "candidates": found.candidates,
        "dense_weight": found.dense_weight,
        "legs": {leg.leg: _leg(leg) for leg in found.legs},
        "best_leg": found.best_leg,
        "ndcg_leads": {
            leg: {"mean": lead.mean, "low": lead.low, "high": lead.high}
            for leg in (Leg.HYBRID, Leg.RERANKED)
            if (lead := found.lead(leg)) is not None
        },
    }


def _leg(leg: LegOutcome) -> dict[str, float]:
    means = {name.lower().replace("@", "_at_"): mean for name, mean in leg.means.items()}
    return {**means, "median_milliseconds": median(leg.milliseconds)}
