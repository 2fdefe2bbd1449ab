"""From an answer's marks to the pieces of documents that they stand for."""

import pytest

from master.aggregation.citations import Citation, citations, marks
from tests.doubles.found import a_source

SOURCES = [a_source(number * 10).model_copy(update={"number": number}) for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A weir is low [1]. It holds water.", [("A weir is low [1].", (1,), ())]),
        (
            "A weir is low. [1] It holds [2].",
            [("A weir is low [1].", (1,), ()), ("It holds [2].", (2,), ())],
        ),
        ("Both say so [1][2].", [("Both say so [1][2].", (1, 2), ())]),
        ("Both say so [1, 3].", [("Both say so [1, 3].", (1, 3), ())]),
        ("It was made up [9].", [("It was made up [9].", (), (9,))]),
        ("Nothing is cited.", []),
        ("A link [1](http://x) cites nothing.", []),
        ("```\na[1] = 2\n```\nThis does [2].", [("This does [2].", (2,), ())]),
        ("- one [1]\n- two [2]", [("- one [1]", (1,), ()), ("- two [2]", (2,), ())]),
        (
            "A weir is low [1].\n\nSources: [1] doc.md, [2] other.md",
            [("A weir is low [1].", (1,), ())],
        ),
        ("", []),
        ("[1] [2] [3]", [("[1] [2] [3]", (1, 2, 3), ())]),
    ],
    ids=lambda value: None,
)
def test_sentences_that_cite_are_found_with_their_sources(text, expected):
    assert citations(text, SOURCES) == [Citation(*one) for one in expected]


def test_places_of_the_marks():
    text = "Low [1]. Both [1, 2].\n\nSources: [1] a.md, [2] b.md"
    places = [
        (text[start:end], source.number)
        for start, end, source in marks(text, {s.number: s for s in SOURCES})
    ]
    assert places == [("[1]", 1), ("[1, 2]", 1), ("[1, 2]", 2)]
