"""Rules on a page, also those whose names and words nobody expected."""

from typing import Any

import pytest
from rich.console import Console, RenderableType

from millrace.show.rules import diff_text, rule_page, rules_page, what, where

LONG = "an-extremely-long-name-that-somebody-gave-to-a-rule"
NASTY = "[bold]\u65e5\u672c\u8a9e[/] \x1b[2J\r\n" + "many words " * 30


def rule(**changes: Any) -> dict[str, Any]:
    return {
        "id": "019aa1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b",
        "name": "brief",
        "version": 2,
        "kind": "prompt",
        "state": "active",
        "share": None,
        "measured": False,
        "scope": {},
        "change": {"kind": "prompt", "text": "Be brief."},
        "parent": None,
        "provenance": {"by": "user:ann"},
        "note": None,
        "decided_by": None,
        "decided_at": None,
        "created_at": "2026-11-20T17:00:00.123+00:00",
        **changes,
    }


def shown(page: RenderableType) -> str:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(page)
    return capture.get()


def test_a_long_name_keeps_its_version() -> None:
    assert "an-extremely-long-name-\u2026@11" in shown(rules_page([rule(name=LONG, version=11)]))


@pytest.mark.parametrize("state", ["canary", "proposed"])
def test_whatever_a_rule_says_the_page_stays_whole(state: str) -> None:
    evil = rule(
        name=NASTY,
        state=state,
        share=0.125,
        scope={"topic": [NASTY]},
        change={"kind": "prompt", "text": NASTY},
        note=NASTY,
        provenance={"by": NASTY, "feedback": ["x"] * 7},
        decided_by=NASTY,
        decided_at="2026-11-20T17:00:00",
    )
    for page in (rules_page([evil], more=True), rule_page({**evil, "history": [evil]})):
        text = shown(page)
        assert "\x1b[2J" not in text
        assert f"{state} 12.5 %" in text
    assert "and more" in shown(rules_page([evil], more=True))


def test_where_and_what_are_said_in_a_few_words() -> None:
    assert where(rule()) == "everywhere"
    scope = {"strategy": "rag", "model": "large", "topic": ["tax", "VAT"]}
    assert where(rule(scope=scope)) == "rag, large, topic tax or VAT"
    change = {"kind": "split", "split": False, "max_parts": 4}
    assert what(rule(kind="split", change=change)) == "split: split no, max_parts 4"


def test_a_diff_is_shown_as_it_is() -> None:
    lines = ["--- x", "+++ y", "@@ -1 +1 @@", "-[red]old[/red]", "+new"]
    assert shown(diff_text(lines)).split("\n")[:5] == lines
