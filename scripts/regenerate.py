"""Write docs/schemas, the drawings and tables that are generated, and Grafana's dashboards."""

import re
import sys
from pathlib import Path

from queue_schemas.export import export
from queue_schemas.states import (
    DOCUMENT_MOVES,
    REQUEST_MOVES,
    RULE_MOVES,
    SUBTASK_MOVES,
    drawing,
)
from scripts import metrics_page
from scripts.dashboards import files as dashboards
from scripts.dashboards import operator_rules

DOCS = Path(__file__).parents[1] / "docs"
DRAWINGS = {
    "request": drawing(REQUEST_MOVES),
    "subtask": drawing(SUBTASK_MOVES),
    "document": drawing(DOCUMENT_MOVES),
    "rule": drawing(RULE_MOVES),
}


def redraw(text: str) -> str:
    """The page with every drawing between its two marks made anew."""
    for name, picture in DRAWINGS.items():
        start, end = f"<!-- states of a {name}: generated -->", "<!-- end -->"
        block = f"{start}\n```mermaid\n{picture}\n```\n{end}"
        pattern = re.escape(start) + ".*?" + re.escape(end)
        text, count = re.subn(pattern, lambda _, block=block: block, text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"the page must have one place for the states of a {name}")
    return text


def main() -> None:
    """Write everything and name what was written."""
    written = export(DOCS / "schemas")
    page = DOCS / "architecture.md"
    page.write_text(redraw(page.read_text("utf-8")), "utf-8")
    sys.stdout.write(f"{len(written)} schemas in docs/schemas, drawings in docs/architecture.md\n")
    sys.stdout.write(f"{metrics_page.write()} metrics in docs/metrics.md\n")
    operator_rules.FILE.write_text(operator_rules.text(), "utf-8")
    sys.stdout.write(f"{dashboards.write()} dashboards in {dashboards.FOLDER}\n")


if __name__ == "__main__":
    main()
