"""Which model does what, and what people said of each."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from millrace.problems import one_line
from millrace.show.numbers import NONE

Row = Mapping[str, Any]


def routing_table(found: Row) -> RenderableType:
    """A line for each kind of work and model; the chosen one stands out."""
    table = Table(box=SIMPLE_HEAD, expand=True, collapse_padding=True, pad_edge=False)
    for name in ("Kind", ""):
        table.add_column(name, no_wrap=True)
    table.add_column("Model", overflow="fold", ratio=4)
    for name in ("Votes", "Mean", "Expected"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("Why", overflow="fold", ratio=5)
    for work in found["data"]:
        for place, model in enumerate(work["models"]):
            cells = _cells(work["kind"] if place == 0 else "", model)
            table.add_row(*cells, style="" if model["chosen"] else "dim")
        table.add_section()
    return Group(table, Text(_note(found), "dim"))


def _cells(kind: str, model: Row) -> list[Text]:
    mean = NONE if model["mean"] is None else f"{model['mean']:.2f}"
    return [
        Text(kind),
        Text("✓" if model["chosen"] else ""),
        Text(one_line(model["model"])),
        Text(f"{model['votes']:.3g}"),
        Text(mean),
        Text(f"{model['expected']:.2f}"),
        Text(one_line(model["why"])),
    ]


def _note(found: Row) -> str:
    share = found["explore_share"]
    tried = f" {share:.0%} of the questions try any model." if share else ""
    if found["mode"] == "fixed":
        return "MILLRACE_ROUTING is fixed: only the registry and rules choose models."
    return f"A client's model and rules of yours come before this.{tried}"
