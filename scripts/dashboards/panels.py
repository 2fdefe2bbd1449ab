"""What a dashboard is made of: rows of panels, each with its expressions. Pure."""

from dataclasses import dataclass
from typing import Any, Final, Literal

Kind = Literal["timeseries", "stat", "heatmap", "table"]
Steps = tuple[tuple[float, str], ...]
"""From which value on which colour; below the first it is green."""


@dataclass(frozen=True)
class Query:
    """One expression and the name of its series; labels of it in double braces."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One picture: what it shows, in which unit, and since when that is bad."""

    title: str
    about: str
    """What it tells somebody who sees it for the first time."""
    queries: tuple[Query, ...]
    unit: str = "short"
    """Grafana's name of it: s, reqps, percentunit, short."""
    kind: Kind = "timeseries"
    width: int = 8
    steps: Steps = ()
    stacked: bool = False
    exemplars: bool = False
    """Whether dots with trace ids are shown, where the metric has them."""


@dataclass(frozen=True)
class Row:
    """A heading and what stands below it."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """A choice at the top: all values of a label."""

    name: str
    label: str
    query: str


@dataclass(frozen=True)
class Dashboard:
    """One file of Grafana's."""

    uid: str
    title: str
    about: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()


MODEL: Final = Variable("model", "Model", "label_values(millrace_queue_window, model)")
STRATEGY: Final = Variable(
    "strategy", "Strategy", "label_values(millrace_requests_total, strategy)"
)


def panel(title: str, about: str, *queries: tuple[str, str], **more: Any) -> Panel:
    """A panel of expressions with the names of their series."""
    return Panel(title, about, tuple(Query(*each) for each in queries), **more)


def stat(title: str, about: str, expr: str, unit: str = "short", steps: Steps = ()) -> Panel:
    """One large number."""
    return Panel(title, about, (Query(expr, title),), unit, "stat", width=4, steps=steps)


def heatmap(title: str, about: str, metric: str, where: str) -> Panel:
    """How a histogram's observations spread over its buckets."""
    expr = f"sum by (le) (increase({metric}_bucket{{{where}}}[$__rate_interval]))"
    return Panel(title, about, (Query(expr, "{{le}}"),), "s", "heatmap", width=12)


def quantiles(metric: str, by: str, where: str, *shares: float) -> tuple[tuple[str, str], ...]:
    """Queries for a histogram's quantiles, one series for each value of a label."""
    return tuple(
        (quantile(metric, share, where, f"le, {by}"), f"p{share * 100:g} {{{{{by}}}}}")
        for share in shares or (0.5, 0.95)
    )


def quantile(metric: str, share: float, where: str, by: str = "le") -> str:
    """An expression for one quantile of a histogram, of all its series together by default.

    Where nothing was observed it is NaN, which the comparison leaves out.
    """
    inner = f"sum by ({by}) (rate({metric}_bucket{{{where}}}[$__rate_interval]))"
    return f"histogram_quantile({share}, {inner}) >= 0"
