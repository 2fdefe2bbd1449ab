"""Whether database and broker agree."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from master.reconcile import Finding, Look, ModelState
from millrace.problems import one_line
from millrace.show.numbers import NONE, count, plural

_IDS_SHOWN = 3


def reconciliation(first: Look, after: Look | None) -> RenderableType:
    """The counts, what did not agree, and whether it does now."""
    last = after or first
    parts: list[RenderableType] = [_counts(last.models)]
    if first.findings:
        parts.append(_findings(first.findings, after))
    parts.append(_verdict(first, after))
    return Group(*parts)


def _counts(models: Sequence[ModelState]) -> Table:
    table = Table(box=SIMPLE_HEAD, expand=True, collapse_padding=True, pad_edge=False)
    table.add_column("Model", no_wrap=True, overflow="ellipsis", ratio=1)
    for name in ("Ready", "Outbox", "Queued", "Running", "At broker", "Unacked", "Workers"):
        table.add_column(name, no_wrap=True, justify="right")
    for state in models:
        counts, depth = state.counts, state.depth
        table.add_row(
            Text(state.model),
            Text(count(counts.ready)),
            Text(f"{count(counts.due)}+{count(counts.held)}"),
            Text(count(counts.queued)),
            Text(count(counts.running)),
            Text(count(depth.ready)) if depth else Text("no queue", "red"),
            Text(count(state.unacked)),
            Text(str(depth.consumers) if depth else NONE),
        )
    return table


def _findings(findings: Sequence[Finding], after: Look | None) -> Table:
    left = {(f.kind, f.model) for f in after.findings} if after else set()
    table = Table(box=SIMPLE_HEAD, expand=True, collapse_padding=True, pad_edge=False)
    table.add_column("", width=1)
    table.add_column("", no_wrap=True, justify="right")
    table.add_column("What", no_wrap=True)
    table.add_column("Where", no_wrap=True, overflow="ellipsis", max_width=16)
    table.add_column("Which", overflow="fold", ratio=1)
    for finding in findings:
        mended = after is not None and (finding.kind, finding.model) not in left
        mark = ("✓", "green") if mended else ("✗", "red")
        table.add_row(
            Text(*mark),
            Text(count(finding.count)),
            Text(finding.kind),
            Text(finding.model or ""),
            Text(one_line(_which(finding))),
        )
    return table


def _which(finding: Finding) -> str:
    ids = " ".join(str(id_)[:8] for id_ in finding.ids[:_IDS_SHOWN])
    more = " …" if len(finding.ids) > _IDS_SHOWN else ""
    return f"{finding.text}{f': {ids}{more}' if ids else ''}"


def _verdict(first: Look, after: Look | None) -> Text:
    last = after or first
    if not last.findings:
        mended = " now" if first.findings else ""
        return Text(f"Database and broker agree{mended}.", "green")
    number = plural(len(last.findings), "disagreement")
    hint = "left after mending." if after else "--fix mends them."
    return Text(f"{number}; {hint}" if not after else f"{number} {hint}", "bold red")
