"""The plan of a request as a tree of its subtasks, while it runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from millrace.show.numbers import plural, seconds
from millrace.show.states import look, spinner

Record = Mapping[str, Any]

_ENDED = {"succeeded", "failed", "dead", "cancelled", "skipped"}
_LONGEST_MODEL = 22
_ROOM_FOR_ECHO = 2


class PlanView:
    """The newest record of a request, and since when each subtask was seen to run."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._record: Record = {}
        self._running_since: dict[str, float] = {}

    def update(self, record: Record, now: float) -> None:
        """Take a newer record over."""
        for subtask in record.get("subtasks", ()):
            if subtask["state"] == "running":
                self._running_since.setdefault(f"{subtask['id']}.{subtask['attempt']}", now)
        self._record = record

    def render(self, now: float, rows: int = 20) -> RenderableType:
        """The tree at this time, in at most `rows` lines and a headline."""
        # The terminal echoes ^C at the end of the last line: leave room, or it breaks the line.
        tree = Padding(self._tree(now, rows), (0, _ROOM_FOR_ECHO, 0, 0))
        return Group(self._headline(now), tree)

    def _headline(self, now: float) -> Text:
        plan = self._record.get("plan")
        elapsed = seconds(now - self._started)
        if not plan:
            return Text(f"{spinner(now)} waiting for the plan · {elapsed}", style="dim")
        subtasks = self._record["subtasks"]
        done = sum(subtask["state"] in _ENDED for subtask in subtasks)
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(str(plan["strategy"]), style="bold")
        line.append(f" · {self._record['state']} · {done} of {plural(len(subtasks), 'subtask')}")
        line.append(self._waiting(), style="yellow")
        line.append(f" · {elapsed}", style="dim")
        return line

    def _waiting(self) -> str:
        place = self._record.get("queue")
        if not place or place["position"] == 1:
            return ""
        about = place["expected_start_seconds"]
        expected = f", about {seconds(about)}" if about else ""
        return f" · waiting behind {plural(place['position'] - 1, 'subtask')}{expected}"

    def _tree(self, now: float, rows: int) -> Table:
        tree = Table.grid(padding=(0, 1), expand=True)
        tree.add_column(no_wrap=True, width=4)
        tree.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        tree.add_column(no_wrap=True, overflow="ellipsis", max_width=_LONGEST_MODEL, style="dim")
        tree.add_column(no_wrap=True, justify="right", min_width=14, max_width=26)
        subtasks = self._record.get("subtasks", ())
        shown, hidden = _window(subtasks, rows)
        waits = {step["key"]: step["depends_on"] for step in self._steps()}
        for position, subtask in enumerate(shown):
            last = position == len(shown) - 1 and not hidden
            tree.add_row(*self._row(subtask, now, waits, "└─" if last else "├─"))
        if hidden:
            tree.add_row(Text("└─", style="dim"), Text(f"and {hidden} more", style="dim"), "", "")
        return tree

    def _row(
        self, subtask: Record, now: float, waits: Mapping[str, Sequence[str]], guide: str
    ) -> tuple[Text, Text, Text, Text]:
        state = str(subtask["state"])
        mark, style = look(state)
        mark = spinner(now) if state == "running" else mark
        title = subtask.get("title") or subtask["step"]
        return (
            Text.assemble((f"{guide} ", "dim"), (mark, style)),
            Text(str(title), style="bold" if state == "running" else ""),
            Text(str(subtask["model"])),
            Text(self._note(subtask, now, waits.get(subtask["step"], ())), style=style),
        )

    def _note(self, subtask: Record, now: float, waits: Sequence[str]) -> str:
        state = str(subtask["state"])
        again = f" · try {subtask['attempt']}" if subtask["attempt"] > 1 else ""
        if state == "running":
            since = self._running_since.get(f"{subtask['id']}.{subtask['attempt']}", now)
            return f"running {seconds(now - since)}{again}"
        if state == "succeeded":
            return f"{seconds(subtask['total_seconds'])}{again}"
        if state == "blocked" and waits:
            return f"after {', '.join(waits)}"
        if subtask.get("error"):
            return f"{state}: {subtask['error'].get('code', '')}"
        return state + again

    def _steps(self) -> Sequence[Record]:
        plan = self._record.get("plan") or {}
        steps: Sequence[Record] = plan.get("steps", ())
        return steps


def _window(subtasks: Sequence[Record], rows: int) -> tuple[list[Record], int]:
    """What fits, in the plan's order: what runs before what waits before what ended."""
    if len(subtasks) <= rows:
        return list(subtasks), 0

    def urgency(position: int) -> tuple[int, int]:
        state = subtasks[position]["state"]
        rank = 0 if state == "running" else 2 if state in _ENDED else 1
        return rank, position

    chosen = sorted(sorted(range(len(subtasks)), key=urgency)[: rows - 1])
    return [subtasks[position] for position in chosen], len(subtasks) - len(chosen)
