import pytest

from master.retrieval.chunking import Draft
from master.retrieval.parsing import portions as bounds
from master.retrieval.parsing.parsed import ParseError
from master.retrieval.parsing.portions import Tally, portions


def drafts(*texts: str, headings: tuple[str, ...] = ()) -> list[Draft]:
    return [Draft(number, text, headings, None) for number, text in enumerate(texts)]


@pytest.mark.parametrize("text", ["a", "word " * 300, "水" * 30_000])
def test_portions_are_small_and_leave_nothing_out(text: str) -> None:
    given = drafts(*[text] * 500)
    found = list(portions(given))
    assert [draft for portion in found for draft in portion] == given
    assert len(found) > 1 or text == "a"
    assert all(sum(len(draft.text.encode()) for draft in some) <= 256_000 for some in found)


def test_one_chunk_may_be_larger_than_a_portion() -> None:
    given = drafts("a", "b" * 300_000, "c")
    assert list(portions(given)) == [[draft] for draft in given]
    assert list(portions([])) == []


def test_chunks_are_counted_in_number_and_in_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_CHUNKS", 3)
    monkeypatch.setattr(bounds, "MOST_CHARACTERS", 100)
    assert list(portions(drafts("a", "b", "c")))
    with pytest.raises(ParseError, match=r"too_many_chunks: .* more than 3 chunks"):
        list(portions(drafts("a", "b", "c", "d")))
    with pytest.raises(ParseError, match="more than 100 characters"):
        list(portions(drafts("a" * 101)))
    with pytest.raises(ParseError, match="more than 100 characters"):
        list(portions(drafts("a" * 40, "b" * 40, headings=("Mills", "Races and wheels"))))


def test_a_tally_goes_on_from_portion_to_portion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_CHUNKS", 3)
    tally = Tally()
    tally.add(drafts("a", "b"))
    with pytest.raises(ParseError):
        tally.add(drafts("c", "d"))
