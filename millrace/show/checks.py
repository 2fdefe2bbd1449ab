"""What `millrace doctor` found."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from millrace.doctor import Finding, Verdict
from millrace.show.numbers import plural

_LOOKS = {
    Verdict.OK: ("✓", "green"),
    Verdict.WARN: ("!", "yellow"),
    Verdict.FAIL: ("✗", "red"),
    Verdict.UNUSED: ("·", "dim"),
}


def checks(findings: Sequence[Finding]) -> RenderableType:
    """One line for each finding, its remedy below it, and the verdict."""
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=1)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    for finding in findings:
        mark, style = _LOOKS[finding.verdict]
        quiet = "dim" if finding.verdict is Verdict.UNUSED else ""
        said = "not used: " if finding.verdict is Verdict.UNUSED else ""
        table.add_row(
            Text(mark, style), Text(finding.name, quiet), Text(said + finding.text, quiet)
        )
        if finding.remedy and finding.verdict in {Verdict.WARN, Verdict.FAIL}:
            table.add_row("", "", Text(f"→ {finding.remedy}", style))
    return Group(table, Text(), _summary(findings))


def _summary(findings: Sequence[Finding]) -> Text:
    failed = sum(finding.verdict is Verdict.FAIL for finding in findings)
    warned = sum(finding.verdict is Verdict.WARN for finding in findings)
    if failed:
        return Text(f"{plural(failed, 'problem')} to mend.", "bold red")
    if warned:
        return Text(f"Ready, with {plural(warned, 'warning')}.", "yellow")
    return Text("Everything that is used is ready.", "green")
