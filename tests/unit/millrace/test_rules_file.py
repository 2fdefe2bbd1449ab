"""A file of rules, and rules as lines."""

from typing import Any

import pytest

from millrace import rules_file
from millrace.problems import Problem

BRIEF = {"name": "brief", "change": {"kind": "prompt", "text": "Be brief."}}


def rule(version: int = 1, **change: Any) -> dict[str, Any]:
    said = {"kind": "prompt", "text": "Be brief."} | change
    return {"name": "x", "version": version, "kind": said["kind"], "scope": {}, "change": said}


@pytest.mark.parametrize(
    "text",
    [
        "name: brief\nchange: {kind: prompt, text: Be brief.}\n",
        "- name: brief\n  change: {kind: prompt, text: Be brief.}\n",
        "rules: [{name: brief, change: {kind: prompt, text: Be brief.}}]\n",
        '{"rules": [{"name": "brief", "change": {"kind": "prompt", "text": "Be brief."}}]}',
    ],
)
def test_one_rule_a_list_and_a_list_under_its_name_are_read(text: str) -> None:
    assert rules_file.parse(text, "x.yaml") == [BRIEF]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a rule is a mapping"),
        ("rules: []", "a rule is a mapping"),
        ("just words", "a rule is a mapping"),
        ("- name: x\n- words", "a rule is a mapping"),
        ("name: x\nname: y", "x.yaml:2: the key 'name' was given before"),
        ("name: [", "x.yaml:"),
        ("name: x\ntop: .inf", "none that JSON can hold"),
        ("name: x\ntop: !!binary aGVsbG8=", "none that JSON can hold"),
    ],
)
def test_what_is_no_rule_is_said(text: str, says: str) -> None:
    with pytest.raises(Problem, match=r"^x\.yaml") as caught:
        rules_file.parse(text, "x.yaml")
    assert says in str(caught.value)


def test_a_rule_reads_like_yaml() -> None:
    said = rule(kind="split", split=False, max_parts=4) | {"scope": {"topic": ["tax", "VAT"]}}
    del said["change"]["text"]
    assert rules_file.lines_of(said) == [
        "kind: split",
        "scope:",
        "  topic:",
        "  - tax",
        "  - VAT",
        "change:",
        "  max_parts: 4",
        "  split: false",
    ]


def test_a_difference_is_by_line_and_keeps_indentation() -> None:
    old, new = rule(text="One.\n  Two."), rule(2, text="One.\n    Two.")
    assert rules_file.difference(old, new)[2:] == [
        "@@ -1,6 +1,6 @@",
        " kind: prompt",
        " scope: {}",
        " change:",
        "   text: |",
        "     One.",
        "-      Two.",
        "+        Two.",
    ]
    assert rules_file.difference(old, old) == []


def test_control_characters_of_others_never_reach_the_terminal() -> None:
    evil = rule(text="Be\x1b[2J brief.\n\tIndented.\x07") | {"scope": {"topic": ["a\x1b[31m"]}}
    assert all(line.isprintable() for line in rules_file.difference(None, evil))
