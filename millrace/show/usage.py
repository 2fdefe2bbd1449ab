"""What was spent."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from db.usage import By
from master.bill_lines import Line, total
from millrace.problems import one_line
from millrace.show.numbers import NONE, cost, count, seconds

_FIRST = {By.TENANT: "Tenant", By.MODEL: "Model", By.USER: "User", By.DAY: "Day (UTC)"}


def usage_table(lines: Sequence[Line], by: By, span: str, currency: str) -> RenderableType:
    """A line for each key, what was answered and what was not, and the sums."""
    if not lines:
        return Text(f"Nothing was spent in the last {span}.")
    table = Table(box=SIMPLE_HEAD, expand=True, collapse_padding=True, pad_edge=False)
    table.add_column(_FIRST[by], no_wrap=True, overflow="ellipsis", ratio=1)
    for name in ("In", "Out", "Engine", "Cost", "Not counted", "Its cost"):
        table.add_column(name, no_wrap=True, justify="right")
    for line in lines:
        table.add_row(*_cells(line))
    if len(lines) > 1:
        table.add_section()
        table.add_row(*_cells(total(lines)), style="bold")
    return Group(table, Text(_note(lines, span, currency), "dim"))


def _cells(line: Line) -> list[Text]:
    lost = line.not_counted
    cells = [
        one_line(line.key) or NONE,
        count(line.counted.prompt_tokens),
        count(line.counted.completion_tokens),
        seconds(float(line.counted.engine_seconds)),
        cost(float(line.counted.cost)),
        f"{count(lost.prompt_tokens + lost.completion_tokens)}",
        cost(float(lost.cost)),
    ]
    return [Text(cell) for cell in cells]


def _note(lines: Sequence[Line], span: str, currency: str) -> str:
    fates = total(lines).fates
    lost = ", ".join(f"{count(sums.executions)} {fate}" for fate, sums in sorted(fates.items()))
    return (
        f"Executions of the last {span}: {lost}. Cost in {currency}; tokens not counted "
        "were spent on work that failed, was cancelled or came late."
    )
