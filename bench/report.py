"""The findings as tables for a terminal, and as JSON with everything that was measured."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.effort import Effort
from bench.samples import Cost, Findings, Row, middle, spread
from bench.site import PEERS

WIDTH = 80
_VERDICT = {True: "[green]pass[/green]", False: "[red]fail[/red]", None: ""}
_PACKAGES = ("millrace", "aio-pika", "asyncpg", "fastapi", "sqlalchemy", "uvicorn", "uvloop")
_PEER_PACKAGES = ("litellm", "celery", "kombu", "sqlalchemy", "psycopg")


def show(findings: Sequence[Findings], machine: dict[str, Any]) -> None:
    """Print both tables and the notes, in 80 columns."""
    console = Console(width=WIDTH, highlight=False)
    console.print(_rows([row for found in findings for row in found.rows]))
    console.print(_costs([cost for found in findings for cost in found.costs]))
    for note in [note for found in findings for note in found.notes]:
        console.print(f"  {note}")
    console.print(
        f"  {machine['cores']} cores ({machine['processor']}), "
        f"load {machine['load_average'][0]:.1f} "
        f"before and {os.getloadavg()[0]:.1f} after; {machine['date'][:16]} UTC"
    )
    console.print("  medians of the rounds, lowest to highest; a ratio is taken within its round")


def write(
    path: Path, findings: Sequence[Findings], effort: Effort, machine: dict[str, Any]
) -> None:
    """Write everything as JSON."""
    document = {
        "machine": machine,
        "load_average_after": os.getloadavg(),
        "effort": asdict(effort),
        "rows": [_with_verdict(row) for found in findings for row in found.rows],
        "cpu_milliseconds": [asdict(cost) for found in findings for cost in found.costs],
        "notes": [note for found in findings for note in found.notes],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """What this is measured on, and with which versions."""
    return {
        "date": datetime.now(UTC).isoformat(),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "versions": {name: version(name) for name in _PACKAGES},
        "peers": _peers(),
    }


def _rows(rows: Sequence[Row]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, width=WIDTH)
    table.add_column("", no_wrap=True, ratio=1)
    for name in ("Millrace", "peer", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("target", ""):
        table.add_column(name, no_wrap=True)
    for row in rows:
        against = f"against {row.peer}" if row.peer else "alone"
        table.add_row(
            f"{row.title}\n[dim]{row.unit}, {against}[/dim]",
            _numbers(row.ours),
            _numbers(row.theirs),
            _numbers(row.judged if row.peer else ()),
            str(row.limit or ""),
            _VERDICT[row.passed],
        )
    return table


def _numbers(numbers: Sequence[float]) -> str:
    if not numbers:
        return ""
    return middle(numbers) + (f"\n[dim]{spread(numbers)}[/dim]" if len(numbers) > 1 else "")


def _costs(costs: Sequence[Cost]) -> Table:
    """The fake engine costs the same behind everybody and is left to the JSON."""
    shown = (name for cost in costs for name in cost.milliseconds if name != "engine")
    names = list(dict.fromkeys(shown))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, width=WIDTH)
    table.add_column("CPU, ms each", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for cost in costs:
        cells = [cost.milliseconds.get(name) for name in names]
        numbers = ("" if cell is None else f"{cell:.2f}" for cell in cells)
        table.add_row(f"{cost.row}: {cost.system}", *numbers)
    return table


def _with_verdict(row: Row) -> dict[str, Any]:
    return {**asdict(row), "limit": str(row.limit or ""), "passed": row.passed}


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _peers() -> dict[str, str]:
    script = (
        "import sys; from importlib.metadata import version; "
        "print(*(version(name) for name in sys.argv[1:]))"
    )
    found = _output(str(PEERS / "python"), "-c", script, *_PEER_PACKAGES)
    return dict(zip(_PEER_PACKAGES, found.split(), strict=False))


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
