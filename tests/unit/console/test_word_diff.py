"""What changed between two versions of a rule, word by word."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from db.rules import StoredRule
from master.console import word_diff
from master.console.word_diff import Piece, Was, fields, said, words
from queue_schemas.states import RuleState

SAME, REMOVED, ADDED = Was.SAME, Was.REMOVED, Was.ADDED


def rule(change: dict[str, Any], **scope: Any) -> StoredRule:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return StoredRule(
        id=uuid4(),
        tenant=uuid4(),
        name="brief",
        version=1,
        kind=str(change["kind"]),
        scope=scope,
        change=change,
        state=RuleState.PROPOSED,
        share=None,
        measured=False,
        parent=None,
        provenance={},
        note=None,
        decided_by=None,
        decided_at=None,
        created_at=now,
        changed_at=now,
    )


def test_words_that_stay_are_told_once() -> None:
    assert words("Be brief.", "Be very brief.") == (
        Piece(SAME, "Be"),
        Piece(ADDED, " very"),
        Piece(SAME, " brief."),
    )


def test_what_goes_is_told_before_what_comes() -> None:
    assert words("Say it in two lines.", "Say it in one line.") == (
        Piece(SAME, "Say it in"),
        Piece(REMOVED, " two lines."),
        Piece(ADDED, " one line."),
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ("", "new"),
        ("old", ""),
        ("  a  b\n c ", "a b c"),
        ("x y x y x", "y x y"),
        ("<b>a</b> & b", "<b>a</b> & c\n"),
    ],
    ids=["nothing", "all new", "all gone", "spaces", "repeated", "markup"],
)
def test_both_texts_can_be_read_out_of_the_pieces(before: str, after: str) -> None:
    found = words(before, after)
    assert "".join(piece.text for piece in found if piece.was is not ADDED) == before
    assert "".join(piece.text for piece in found if piece.was is not REMOVED) == after


def test_texts_that_would_take_too_long_are_different_as_a_whole() -> None:
    before, after = "a b" * 2000, "b c" * 2000
    assert [piece.was for piece in words(before, after)] == [REMOVED, ADDED]


def test_texts_of_many_words_are_compared_by_sentences() -> None:
    many = [f" Word {number} of many." for number in range(120)]
    before = "".join(["Old.", *many, " Old."])
    after = "".join(["New.", *many[:60], " More.", *many[60:], " New."])
    assert words(before, after) == (
        Piece(REMOVED, "Old."),
        Piece(ADDED, "New."),
        Piece(SAME, "".join(many[:60])),
        Piece(ADDED, " More."),
        Piece(SAME, "".join(many[60:])),
        Piece(REMOVED, " Old."),
        Piece(ADDED, " New."),
    )


@pytest.mark.parametrize("unit", ["a ", "a. ", ".", "a\n"])
def test_no_text_takes_long_to_compare(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = []
    longest = word_diff._longest

    def counted(old: Sequence[str], new: Sequence[str]) -> list[list[int]]:
        cells.append(len(old) * len(new))
        return longest(old, new)

    monkeypatch.setattr(word_diff, "_longest", counted)
    before, after = f"x {unit * 2000} x", f"y {unit.replace('a', 'b') * 1999} y"
    found = words(before, after)
    assert "".join(piece.text for piece in found if piece.was is not ADDED) == before
    assert "".join(piece.text for piece in found if piece.was is not REMOVED) == after
    assert sum(cells) <= 25_000


def test_fields_of_both_versions_are_compared() -> None:
    old = rule({"kind": "split", "split": True, "max_parts": 4}, strategy="rag")
    new = rule({"kind": "split", "split": False}, strategy="rag", topic=["tax", "law"])
    found = {field.name: field for field in fields(old, new)}
    assert {name for name, field in found.items() if field.changed} == {
        "split",
        "max_parts",
        "where",
    }
    assert found["split"].pieces == (Piece(REMOVED, "yes"), Piece(ADDED, "no"))
    assert found["max_parts"].pieces == (Piece(REMOVED, "4"),)
    assert found["where"].pieces == (
        Piece(SAME, "strategy"),
        Piece(REMOVED, " rag"),
        Piece(ADDED, " rag, topic tax or law"),
    )


def test_without_an_older_version_all_is_new() -> None:
    new = rule({"kind": "prompt", "text": "Be brief."})
    assert said(new) == {"kind": "prompt", "text": "Be brief.", "where": "everywhere"}
    assert all(field.pieces[0].was is ADDED for field in fields(None, new))
