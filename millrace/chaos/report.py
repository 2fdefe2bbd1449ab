"""The outcome of a run for people (a table, or Markdown) and for programs (JSON)."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from millrace.chaos.invariants import INVARIANTS
from millrace.chaos.outcome import Outcome

_SHOWN = 5
"""So many violations of one invariant are shown; JSON has all of them."""


def verdict(outcome: Outcome) -> str:
    """The one sentence that counts."""
    cut_short = " (stopped early)" if outcome.interrupted else ""
    if outcome.broken:
        return f"{outcome.broken} violations{cut_short}. Replay: {outcome.options.command()}"
    faults = sum(outcome.faults.values())
    requests = len(outcome.evidence.requests)
    return f"Every invariant held over {requests} requests and {faults} faults{cut_short}."


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything that a program may want to know."""
    options = outcome.options
    return {
        "seed": options.seed,
        "seconds": options.seconds,
        "masters": options.masters,
        "workers": options.workers,
        "clients": options.clients,
        "replay": options.command(),
        "interrupted": outcome.interrupted,
        "faults": dict(outcome.faults),
        "faults_not_injected": outcome.failed,
        "struck": [
            {"at": s.at, "kind": s.kind, "what": s.what, "seconds": round(s.seconds, 1)}
            for s in outcome.struck
        ],
        "states": dict(outcome.states),
        "failures": dict(outcome.failures),
        "numbers": outcome.numbers(),
        "invariants": {
            name: {
                "says": invariant.says,
                "violations": [
                    {"what": what, "seen_at": at}
                    for what, at in outcome.violations.get(name, {}).items()
                ],
            }
            for name, invariant in INVARIANTS.items()
        },
        "violations": outcome.broken,
        "logs": str(outcome.folder),
    }


def records(outcome: Outcome) -> str:
    """All that the verdict rests on, as JSON: the clients' records, the rows and the journal."""
    return json.dumps({**as_json(outcome), "evidence": asdict(outcome.evidence)}, indent=1)


def as_markdown(outcome: Outcome) -> str:
    """A page to keep."""
    lines = [f"# Chaos, seed {outcome.options.seed}", "", verdict(outcome), ""]
    lines += [f"Run again with `{outcome.options.command()}`.", ""]
    for title, rows in _tables(outcome).items():
        lines += [f"## {title}", "", "| | |", "|---|---|"]
        lines += [f"| {_cell(left)} | {_cell(right)} |" for left, right in rows.items()]
        lines.append("")
    if found := violations(outcome):
        lines += ["## Violations", "", *(f"- {line}" for line in found), ""]
    return "\n".join(lines)


def for_people(outcome: Outcome) -> RenderableType:
    """What the terminal shows."""
    parts: list[RenderableType] = []
    for title, rows in _tables(outcome).items():
        table = Table(title=title, title_justify="left", show_header=False, min_width=64)
        table.add_column(ratio=3)
        table.add_column(justify="right", ratio=1)
        for left, right in rows.items():
            table.add_row(left, Text(right, style="red" if _is_bad(title, right) else ""))
        parts.append(table)
    parts += [Text(line, style="red") for line in violations(outcome)]
    parts.append(Text(verdict(outcome), style="bold red" if outcome.broken else "bold green"))
    return Group(*parts)


def _tables(outcome: Outcome) -> dict[str, dict[str, str]]:
    tables = {
        "Faults injected": _counts(outcome.faults),
        "Requests": {
            **_counts(outcome.states),
            **{f"failed: {code}": str(number) for code, number in outcome.failures.items()},
        },
        "What happened": {
            name.replace("_", " "): "never" if value is None else f"{value:g}"
            for name, value in outcome.numbers().items()
        },
        "Invariants: violations": {
            f"{name} {invariant.says}": str(len(outcome.violations.get(name, {})))
            for name, invariant in INVARIANTS.items()
        },
    }
    if outcome.failed:
        tables["Faults not injected"] = dict.fromkeys(outcome.failed, "")
    return tables


def _counts(numbers: Mapping[str, int]) -> dict[str, str]:
    return {name: str(number) for name, number in sorted(numbers.items())}


def _is_bad(title: str, value: str) -> bool:
    return title.startswith("Invariants") and value != "0"


def violations(outcome: Outcome) -> list[str]:
    """A line for each violation that was noted, with the time at which it was seen first."""
    lines: list[str] = []
    for name, found in outcome.violations.items():
        shown = list(found.items())[:_SHOWN]
        lines += [f"{name} at {at:g} s: {what}" for what, at in shown]
        if len(found) > _SHOWN:
            lines.append(f"{name}: and {len(found) - _SHOWN} more")
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
