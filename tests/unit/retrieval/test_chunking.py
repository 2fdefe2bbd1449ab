import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from master.retrieval.chunking import Block, Chunking, Draft, Method, cut

PLAIN = re.compile(r"\S+")
words = st.text("abcdefgh", min_size=1, max_size=6)
texts = st.lists(
    st.tuples(words, st.sampled_from([" ", "\n", ". ", "! ", "\n\n"])), min_size=1, max_size=40
).map(lambda pairs: "".join(word + gap for word, gap in pairs))
paths = st.lists(st.sampled_from(["A", "B"]), max_size=2).map(tuple)
blocks = st.lists(st.builds(Block, texts, paths, st.integers(1, 3)), max_size=6)
sizes = st.integers(1, 30).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size // 2)))


def chunking(method: Method, size: int, overlap: int) -> Chunking:
    return Chunking(method=method, size=size, overlap=overlap)


def numbered(given_blocks: list[Block]) -> list[Block]:
    """The same blocks with every word unlike all others, so that places can be told apart."""
    count = iter(range(10**6))
    return [
        Block(PLAIN.sub(lambda found: f"{next(count)}_{found[0]}", block.text), block.heading_path)
        for block in given_blocks
    ]


def pieces(given_blocks: list[Block], how: Chunking) -> list[Draft]:
    return list(cut(given_blocks, how))


def word_list(text: str) -> list[str]:
    return PLAIN.findall(text)


@given(blocks, st.sampled_from(Method), sizes)
def test_every_word_is_in_some_chunk_in_order(
    some: list[Block], method: Method, limits: tuple[int, int]
) -> None:
    some = numbered(some)
    everything = [word for block in some for word in word_list(block.text)]
    seen: list[str] = []
    for draft in pieces(some, chunking(method, *limits)):
        new = [word for word in word_list(draft.text) if word not in seen]
        seen += new
        assert new
    assert seen == everything


@given(blocks, st.sampled_from(Method), sizes)
def test_no_chunk_is_longer_than_asked_and_positions_count_from_zero(
    some: list[Block], method: Method, limits: tuple[int, int]
) -> None:
    drafts = pieces(some, chunking(method, *limits))
    assert [draft.position for draft in drafts] == list(range(len(drafts)))
    assert all(0 < len(word_list(draft.text)) <= limits[0] for draft in drafts)


@given(blocks, sizes)
def test_windows_repeat_exactly_the_overlap(some: list[Block], limits: tuple[int, int]) -> None:
    size, overlap = limits
    drafts = pieces(numbered(some), chunking(Method.WORDS, size, overlap))
    for one, following in pairwise(drafts):
        tail = word_list(one.text)[size - overlap :]
        assert word_list(following.text)[:overlap] == tail


@given(blocks, sizes)
def test_sentences_repeat_at_most_the_overlap(some: list[Block], limits: tuple[int, int]) -> None:
    drafts = pieces(numbered(some), chunking(Method.SENTENCES, *limits))
    for one, following in pairwise(drafts):
        repeated = set(word_list(one.text)) & set(word_list(following.text))
        assert len(repeated) <= limits[1]


@given(blocks, sizes)
def test_headings_are_never_crossed(some: list[Block], limits: tuple[int, int]) -> None:
    some = numbered(some)
    home = {word: block.heading_path for block in some for word in word_list(block.text)}
    for draft in pieces(some, chunking(Method.HEADINGS, *limits)):
        assert {home[word] for word in word_list(draft.text)} == {draft.heading_path}


def test_no_chunk_lies_on_two_pages() -> None:
    some = [Block("one two three", page=1), Block("four", page=1), Block("five six", page=2)]
    assert pieces(some, chunking(Method.WORDS, 4, 1)) == [
        Draft(0, "one two three\n\nfour", (), 1),
        Draft(1, "five six", (), 2),
    ]


def test_a_chunk_has_the_headings_above_all_of_it() -> None:
    some = [Block("a b", ("X", "Y")), Block("c d", ("X", "Z")), Block("e", ("X", "Z"))]
    drafts = pieces(some, chunking(Method.WORDS, 3, 0))
    assert [draft.heading_path for draft in drafts] == [("X",), ("X", "Z")]


def test_line_breaks_stay() -> None:
    assert pieces([Block("a: 1\nb: 2\n\nc")], Chunking())[0].text == "a: 1\nb: 2\n\nc"


def test_sentences_stay_whole_and_are_repeated_whole() -> None:
    text = "One two three. Four five? Six seven eight nine. Ten."
    drafts = pieces([Block(text)], chunking(Method.SENTENCES, 6, 3))
    assert [draft.text for draft in drafts] == [
        "One two three. Four five?",
        "Four five? Six seven eight nine.",
        "Ten.",
    ]


def test_a_sentence_longer_than_a_chunk_is_cut() -> None:
    drafts = pieces([Block("a b c d e. f g.")], chunking(Method.SENTENCES, 3, 0))
    assert [draft.text for draft in drafts] == ["a b c", "d e.", "f g."]


def test_sections_of_the_same_heading_are_cut_alone() -> None:
    some = [
        Block("A", ("A",)),
        Block("x y", ("A",)),
        Block("B", ("A", "B")),
        Block("z", ("A", "B")),
    ]
    drafts = pieces(some, chunking(Method.HEADINGS, 50, 10))
    assert [(draft.text, draft.heading_path) for draft in drafts] == [
        ("A\n\nx y", ("A",)),
        ("B\n\nz", ("A", "B")),
    ]


def test_text_without_spaces_is_cut() -> None:
    text = "機械学習は、データから学ぶ方法です。" * 20
    drafts = pieces([Block(text)], chunking(Method.WORDS, 50, 0))
    assert "".join(draft.text for draft in drafts) == text
    assert max(len(draft.text) for draft in drafts) == 50
    by_sentence = pieces([Block(text)], chunking(Method.SENTENCES, 40, 0))
    assert all(draft.text.endswith("。") for draft in by_sentence)


def test_very_long_words_are_cut() -> None:
    drafts = pieces([Block("x" * 2500)], chunking(Method.WORDS, 1, 0))
    assert [len(draft.text) for draft in drafts] == [1000, 1000, 500]


def test_nothing_gives_nothing() -> None:
    assert pieces([], Chunking()) == []
    assert pieces([Block(" \n\t ")], Chunking(method=Method.SENTENCES)) == []


def test_an_overlap_as_long_as_a_chunk_is_refused() -> None:
    with pytest.raises(ValidationError, match="overlap must be at most half of size"):
        Chunking(size=10, overlap=10)


@pytest.mark.parametrize(
    ("size", "overlap"), [(2001, 0), (100_000, 99_999), (10, 6), (1, 1), (0, 0), (5, -1)]
)
def test_what_would_multiply_a_text_is_refused(size: int, overlap: int) -> None:
    with pytest.raises(ValidationError):
        Chunking(size=size, overlap=overlap)


@pytest.mark.parametrize(
    ("stored", "most", "expected"),
    [
        ((512, 50), 2000, (512, 50)),
        ((512, 50), 256, (256, 25)),
        ((100_000, 99_999), 2000, (2000, 1000)),
        ((100, 99), 2000, (100, 50)),
        ((100, 50), 1, (1, 0)),
    ],
)
def test_what_is_stored_is_brought_within_bounds(
    stored: tuple[int, int], most: int, expected: tuple[int, int]
) -> None:
    kept = {"method": "words", "size": stored[0], "overlap": stored[1]}
    found = Chunking.fitting(kept, most)
    assert (found.method, found.size, found.overlap) == (Method.WORDS, *expected)


def test_padding_between_two_words_is_no_part_of_a_chunk() -> None:
    text = "one" + " " * 100_000 + "two  three"
    assert [draft.text for draft in pieces([Block(text)], Chunking())] == ["one\n\ntwo  three"]
