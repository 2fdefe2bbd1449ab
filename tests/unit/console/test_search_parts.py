"""What the console shows of a search beyond the scores: places and marked words."""

from uuid import UUID

import pytest

from db.chunks import StoredChunk
from master.console.highlight import parts, piece
from master.console.ranks import Ranks, ranks
from master.retrieval.fusion import Fused
from master.retrieval.search import Hit

DOCUMENT = UUID(int=1)


def hit(id_: int, fused: float, dense: float | None, sparse: float | None) -> Hit:
    chunk = StoredChunk(id_, DOCUMENT, "a.txt", None, {}, 0, None, (), "text")
    return Hit(chunk, Fused(id_, fused, dense, sparse), fused)


def marked(text: str, query: str) -> list[str]:
    return [part.text for part in parts(text, query) if part.marked]


def test_every_leg_has_its_own_places() -> None:
    found = ranks([hit(1, 0.5, 0.1, 9.0), hit(2, 0.6, 0.9, 0.0), hit(3, 0.4, 0.5, 3.0)], 10)
    assert found == {1: Ranks(3, 1, 2, 1), 2: Ranks(1, None, 1, 2), 3: Ranks(2, 2, 3, 3)}


def test_what_a_leg_only_scored_has_no_place_in_it() -> None:
    found = ranks([hit(1, 0.9, 0.9, 1.0), hit(2, 0.5, 0.2, 2.0)], 1)
    assert (found[2].dense, found[2].sparse, found[1].sparse) == (None, 1, None)


def test_a_leg_that_was_not_asked_has_no_places_and_nothing_is_fine() -> None:
    assert ranks([hit(1, 0.0, None, 0.0)], 10) == {1: Ranks(None, None, 1, 1)}
    assert ranks([], 10) == {}


@pytest.mark.parametrize(
    ("text", "query", "expected"),
    [
        ("The mill turns.", "Mills turning?", ["mill", "turns"]),
        ("A millrace", "mill", []),
        ("Ärger über Mühlen", "mühlen ÄRGER", ["Ärger", "Mühlen"]),
        ("error E-4711", "E-4711", ["E", "4711"]),
        ("nothing here", "?!", []),
        ("", "mill", []),
    ],
    ids=["forms", "inside of a word", "letters", "numbers", "no words", "no text"],
)
def test_words_of_the_query_are_marked(text: str, query: str, expected: list[str]) -> None:
    assert marked(text, query) == expected


def test_nothing_of_the_text_is_lost() -> None:
    text = "<b>mills</b> & mill \n races"
    assert "".join(part.text for part in parts(text, "mill race b")) == text


def test_a_piece_that_was_cut_says_so_at_the_end_that_was_cut() -> None:
    assert piece("A mill grinds.", begins=True) == "A mill grinds."
    assert piece("by water, and a race", begins=False) == "… by water, and a race …"
