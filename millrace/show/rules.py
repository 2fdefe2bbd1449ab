"""Rules: what they say, where they hold, and where their versions stand."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from millrace.problems import one_line
from millrace.rules_file import lines_of
from millrace.show.numbers import NONE, plural

Row = Mapping[str, Any]

_COLOURS = {
    "proposed": "yellow",
    "shadow": "cyan",
    "canary": "cyan",
    "active": "green",
    "retired": "dim",
    "rejected": "dim",
}
_WIDEST_NAME = 24
_ADDED_AND_REMOVED = {"+": "green", "-": "red", "@": "dim"}


def rules_page(rules: Sequence[Row], *, more: bool = False) -> RenderableType:
    """What `millrace rules list` shows."""
    shown = plural(len(rules), "version") + (", and more" if more else "")
    how = f"{shown}. What one says: millrace rules show NAME@VERSION"
    return Group(_table(rules), Text(how, "dim"))


def _table(rules: Sequence[Row]) -> Table:
    table = Table(box=SIMPLE_HEAD, expand=True, collapse_padding=True, pad_edge=False)
    table.add_column("Rule", no_wrap=True)
    table.add_column("State", no_wrap=True)
    table.add_column("Where", no_wrap=True, overflow="ellipsis", ratio=2)
    table.add_column("What", no_wrap=True, overflow="ellipsis", ratio=3)
    for rule in rules:
        table.add_row(
            Text(_called(rule, _WIDEST_NAME)), state_text(rule), Text(where(rule)), Text(what(rule))
        )
    return table


def _called(rule: Row, widest: int = 400) -> str:
    return f"{one_line(rule['name'], widest)}@{rule['version']}"


def state_text(rule: Row) -> Text:
    """`canary 20 %`, `active, measured`."""
    state = str(rule["state"])
    share = f" {rule['share'] * 100:.3g} %" if rule["share"] is not None else ""
    measured = ", measured" if rule["measured"] and state == "active" else ""
    return Text(f"{state}{share}{measured}", _COLOURS.get(state, ""))


def where(rule: Row) -> str:
    """`rag, topic tax or law`."""
    scope = rule["scope"]
    parts = [str(scope[key]) for key in ("strategy", "model") if scope.get(key)]
    if scope.get("topic"):
        parts.append("topic " + " or ".join(map(str, scope["topic"])))
    return one_line(", ".join(parts)) or "everywhere"


def what(rule: Row) -> str:
    """The change in a few words."""
    change = rule["change"]
    if rule["kind"] == "prompt":
        return one_line(str(change.get("text", "")))
    said = [f"{key} {_word(value)}" for key, value in change.items() if key != "kind"]
    return one_line(f"{rule['kind']}: {', '.join(said)}")


def _word(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def rule_page(rule: Row) -> RenderableType:
    """What `millrace rules show` shows of one version."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("rule", Text(_called(rule), "bold"))
    grid.add_row("id", str(rule["id"]))
    grid.add_row("state", state_text(rule))
    for label, value in _facts(rule):
        grid.add_row(label, Text(one_line(value, 2_000)))
    says = Text("\n".join(["", *(f"  {line}" for line in lines_of(rule)), ""]))
    return Group(grid, says, _table(rule["history"]))


def _facts(rule: Row) -> list[tuple[str, str]]:
    provenance = rule["provenance"]
    feedback = provenance.get("feedback") or ()
    facts = {
        "trial": (rule.get("trial") or {}).get("reason"),
        "note": rule["note"],
        "decided by": _who(rule["decided_by"], rule["decided_at"]),
        "proposed by": _who(provenance.get("by"), rule["created_at"]),
        "workflow": provenance.get("workflow"),
        "feedback": plural(len(feedback), "judgement") if feedback else None,
    }
    return [(label, str(value)) for label, value in facts.items() if value]


def _who(name: object, at: object) -> str:
    return f"{name or NONE}, {str(at)[:19].replace('T', ' ')}" if at else ""


def diff_text(lines: Sequence[str]) -> Text:
    """A unified diff in colours."""
    text = Text()
    for line in lines:
        text.append(line + "\n", _ADDED_AND_REMOVED.get(line[:1], ""))
    return text
