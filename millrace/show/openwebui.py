"""How Open WebUI is set up, and what was taken over from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from db.openwebui_tables import Outcome
from master.learning.taking import Round
from millrace.openwebui import Connected, Standing
from millrace.openwebui_settings import HEADERS
from millrace.problems import one_line
from millrace.show.numbers import count, plural

_MEANING: Mapping[Outcome, str] = {
    Outcome.STORED: "of answers of ours, stored as judgements",
    Outcome.UNKNOWN: "of answers that are not ours, or came without the headers",
    Outcome.FOREIGN: "of answers of ours to somebody else: left out",
    Outcome.UNREADABLE: "say nothing: left out",
    Outcome.OTHER: "are no ratings of messages",
}


@dataclass(frozen=True)
class Taken:
    """What was taken over so far."""

    pulled_at: datetime | None
    error: str | None
    outcomes: Mapping[Outcome, int]


def connected(found: Connected, *, dry_run: bool) -> RenderableType:
    """What was changed, or would be."""
    if not found.changes:
        said = f"Nothing to change: {plural(len(found.models), 'model')} for everybody."
        return Text(said)
    table = _table("What", "Before", "Would be" if dry_run else "Now")
    for change in found.changes:
        table.add_row(*(Text(one_line(cell)) for cell in vars(change).values()))
    return table


def standing(found: Standing, taken: Taken | None) -> RenderableType:
    """Whether all is as `connect` sets it, and how the ratings stand."""
    missing = [name for name in HEADERS if name not in found.headers]
    table = _table("Open WebUI " + one_line(found.version), "")
    rows = [
        ("connection", "yes" if found.connected else "none: run `millrace openwebui connect`"),
        ("headers", "all" if not missing else f"without {', '.join(missing)}"),
        ("model of background prompts", found.task_model or "that of the chat"),
        ("models", count(len(found.models))),
        ("of them hidden from users", ", ".join(found.hidden) or "none"),
        ("users can rate", "yes" if found.ratings else "no: it is switched off there"),
    ]
    if taken is not None:
        rows.append(("ratings read", _when(taken)))
        rows += [(f"ratings {name}", count(number)) for name, number in taken.outcomes.items()]
    for name, value in rows:
        table.add_row(Text(name), Text(one_line(value)))
    return table


def _when(taken: Taken) -> str:
    at = taken.pulled_at
    when = at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else "never"
    return f"{when}; then: {taken.error}" if taken.error else when


def round_of(found: Round) -> RenderableType:
    """What one round found."""
    table = _table("Ratings", "")
    for outcome, number in sorted(found.outcomes.items()):
        table.add_row(Text(count(number)), Text(f"new or changed, {_MEANING[outcome]}"))
    if found.withdrawn:
        table.add_row(
            Text(count(found.withdrawn)), Text("judgements withdrawn: their ratings are gone")
        )
    more = " There are more, for the next round." if found.more else ""
    looked = Text(f"Looked at {plural(found.seen, 'rating')}.{more}", "dim")
    if not table.row_count:
        return Group(Text("Nothing new."), looked)
    return Group(table, looked)


def _table(*names: str) -> Table:
    table = Table(box=SIMPLE_HEAD, expand=True, collapse_padding=True, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold", ratio=1 if name != "Ratings" else None)
    return table
