"""Answering by quotation: what is found, how it reads, and when it says that it does not know."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_schemas.messages import Passage
from tests.doubles.subtasks import a_subtask
from worker.providers.extractive import NOTHING_FITS, NOTHING_GIVEN, OPENING, Extractive, answer
from worker.providers.protocol import Delta, Finish
from worker.providers.quotes import Kind, quotes, sentences
from worker.providers.relevance import best_quotes, stem

HANDBOOK = """# The mill

The mill was built in 1642 by Dr. Anna Weber. It has three wheels, i.e. two more than before.
The wheels are turned by the water of the race.

## Stopping

To stop a wheel, close its sluice. The wheel then stands still within ten seconds. Never stop a
wheel by hand!

- **sluice**: a gate that regulates the water of one wheel
- **tail race**: carries the water away
  and back into the river

| wheel | power | since |
|---|---|---|
| north | 4 kW | 1642 |
| south | 9 kW | 1910 |

```sh
millctl sluice close --wheel north
```
"""
GARDEN = "The garden has roses and apple trees. Roses are pruned in March, apple trees in February."
TWIN = "To stop a wheel, you close its sluice."


def passages(*texts: str) -> tuple[Passage, ...]:
    return tuple(
        Passage(number=n, source=f"page-{n}.md", text=text) for n, text in enumerate(texts, 1)
    )


BOOK = passages(GARDEN, HANDBOOK)


def quoted(question: str, given: tuple[Passage, ...] = BOOK) -> list[str]:
    return [quote.text for quote in best_quotes(question, quotes(given))]


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("How do I stop a wheel?", "To stop a wheel, close its sluice."),
        ("Who built the mill?", "The mill was built in 1642 by Dr. Anna Weber."),
        ("When are roses pruned?", "Roses are pruned in March, apple trees in February."),
        ("What is a sluice?", "**sluice**: a gate that regulates the water of one wheel"),
        ("how much power has the south wheel", "| south | 9 kW | 1910 |"),
        ("What turns the wheels?", "The wheels are turned by the water of the race."),
        ("tail race", "**tail race**: carries the water away and back into the river"),
    ],
)
def test_the_sentence_that_answers_is_quoted_first_or_second(question: str, found: str) -> None:
    assert found in quoted(question)[:2]


@pytest.mark.parametrize("question", ["What is the capital of France?", "hello", "", "???"])
def test_where_nothing_fits_it_says_so(question: str) -> None:
    assert answer(question, BOOK) == NOTHING_FITS


def test_one_word_in_common_is_no_answer() -> None:
    assert answer("Which roses does the emperor of Japan prefer?", BOOK) == NOTHING_FITS


def test_without_documents_it_says_so() -> None:
    assert answer("How do I stop a wheel?", ()) == NOTHING_GIVEN


def test_the_answer_is_honest_cited_and_short() -> None:
    text = answer("How do I stop a wheel?", BOOK)

    first, *_, last = text.split("\n\n")
    assert first == OPENING
    assert "To stop a wheel, close its sluice. [2]" in text
    assert last == "Sources: [2] page-2.md"
    assert len(text) < 1500


def test_a_rare_word_says_more_than_a_common_one() -> None:
    assert quoted("wheel february")[0].startswith("Roses are pruned")


def test_the_same_sentence_from_two_documents_is_quoted_once() -> None:
    given = passages(HANDBOOK, TWIN)

    assert sum("sluice" in text for text in quoted("how to stop a wheel", given)) == 1


def test_sentences_keep_the_order_of_the_document() -> None:
    text = answer("Within how many seconds does a wheel stop when its sluice is closed?", BOOK)

    assert text.index("To stop a wheel") < text.index("The wheel then stands still")


def test_a_table_row_is_shown_under_the_head_of_its_table() -> None:
    text = answer("power of the south wheel since 1910", BOOK)

    assert "| wheel | power | since |\n|---|---|---|\n| south | 9 kW | 1910 |" in text


def test_code_is_quoted_whole() -> None:
    text = answer("millctl sluice close north", BOOK)

    assert "```sh\nmillctl sluice close --wheel north\n```" in text


def test_sentences_end_where_they_end() -> None:
    text = 'It is 3.5 m, e.g. Here. "Really?" Yes (see p. 4). Mr. X agreed... Then 7 left。后'

    assert sentences(text) == [
        "It is 3.5 m, e.g. Here.",
        '"Really?"',
        "Yes (see p. 4).",
        "Mr. X agreed...",
        "Then 7 left。",
        "后",
    ]


def test_every_kind_of_markdown_is_recognised() -> None:
    found = {quote.kind: quote.text for quote in quotes(passages(HANDBOOK))}

    assert found.keys() == set(Kind)
    assert all(not quote.text.startswith("#") for quote in quotes(passages(HANDBOOK)))


def test_a_piece_knows_its_heading() -> None:
    (quote,) = [q for q in quotes(passages(HANDBOOK)) if q.text.startswith("To stop")]

    assert quote.heading == "Stopping"


@pytest.mark.parametrize(
    "words",
    [("stop", "stops", "stopped", "stopping"), ("query", "queries"), ("durable", "durability"),
     ("close", "closes", "closed", "closing"), ("classes", "class")],
)  # fmt: skip
def test_forms_of_a_word_meet(words: tuple[str, ...]) -> None:
    assert len({stem(word) for word in words}) == 1


async def said(question: str, shown: str = "") -> list[Delta | Finish]:
    subtask = a_subtask(question, passages=BOOK, shown=shown)
    return [item async for item in Extractive().complete(subtask)]


async def test_it_streams_word_by_word_and_loses_nothing() -> None:
    *words, finish = await said("How do I stop a wheel?")

    text = "".join(word.text for word in words if isinstance(word, Delta))
    assert text == answer("How do I stop a wheel?", BOOK)
    assert len(words) > 20
    assert finish == Finish("stop")


async def test_it_goes_on_from_what_was_shown() -> None:
    whole = answer("How do I stop a wheel?", BOOK)

    *words, _ = await said("How do I stop a wheel?", shown=whole[:33])

    assert whole[:33] + "".join(w.text for w in words if isinstance(w, Delta)) == whole


MARKDOWN = st.lists(
    st.sampled_from(
        ["# a\n", "- b c\n", "|x|y|\n", "|-|-|\n", "```\n", "word. ", "\n", "> q\n", "E "]
    )
).map("".join)


@given(text=MARKDOWN | st.text(), question=st.text(max_size=30))
def test_any_document_and_any_question_get_an_answer(text: str, question: str) -> None:
    given_passages = passages(text, HANDBOOK)

    found = answer(question, given_passages)

    assert found == NOTHING_FITS or found.startswith(OPENING)
    for quote in quotes(given_passages):
        assert quote.text.strip()


def test_it_is_quick() -> None:
    given = passages(*[HANDBOOK] * 40)

    began = time.process_time()  # not of the clock: others may have the processor, too
    answer("How do I stop a wheel by its sluice?", given)
    assert time.process_time() - began < 2
