"""Answers without a model: it quotes the best sentences of the given passages, with citations.

It is honest about what it is. It cannot summarise, reason or talk; it can only find.
"""

import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from itertools import groupby
from typing import Final

from queue_schemas.messages import Passage, SubtaskRequest
from queue_schemas.registry import Model
from worker.providers.prompt import question_of
from worker.providers.protocol import Delta, Finish
from worker.providers.quotes import Kind, Quote, quotes
from worker.providers.relevance import best_quotes

OPENING: Final = "Quoted from the documents, no language model was involved:"
NOTHING_GIVEN: Final = (
    "I can only quote documents, and none were given with this question or found for it. "
    "Choose the model millrace/rag (in the terminal: --strategy rag) to search those that were "
    "ingested, or connect a language model."
)
NOTHING_FITS: Final = (
    "Nothing in the given documents answers this. I can only quote them; "
    "a language model may do better."
)

_WORD: Final = re.compile(r"\s*\S+|\s+$")


class Extractive:
    """Finds the sentences that answer a question."""

    async def complete(self, subtask: SubtaskRequest) -> AsyncGenerator[Delta | Finish, None]:
        """Say the answer word by word."""
        text = answer(question_of(subtask.messages), subtask.passages)
        rest = text.removeprefix(subtask.shown)
        if subtask.shown and rest == text:
            rest = f"\n\n{text}"  # other passages than last time: the old beginning stays
        for word in _WORD.findall(rest):
            yield Delta(word)
        yield Finish("stop")

    async def check(self) -> None:
        """Nothing can be missing."""

    async def aclose(self) -> None:
        """Nothing to close."""


def make(_model: Model) -> Extractive:
    """The provider of a registry entry."""
    return Extractive()


def answer(question: str, passages: tuple[Passage, ...]) -> str:
    """The whole answer as markdown."""
    if not passages:
        return NOTHING_GIVEN
    chosen = best_quotes(question, quotes(passages))
    if not chosen:
        return NOTHING_FITS
    named = {passage.number: passage.source for passage in passages}
    cited = dict.fromkeys(quote.passage for quote in chosen)
    sources = ", ".join(f"[{number}] {named[number]}" for number in cited)
    return "\n\n".join((OPENING, *_paragraphs(chosen), f"Sources: {sources}"))


def _paragraphs(chosen: Sequence[Quote]) -> Iterator[str]:
    """Neighbours of one kind together: sentences as a text, items as a list, rows as a table."""
    for (kind, passage, frame), group in groupby(
        chosen, key=lambda quote: (quote.kind, quote.passage, quote.frame)
    ):
        found = list(group)
        if kind is Kind.ROW:
            yield "\n".join((frame, *(quote.text for quote in found)))
            yield f"(table from [{passage}])"
        elif kind is Kind.ITEM:
            yield "\n".join(f"- {quote.text} [{passage}]" for quote in found)
        elif kind is Kind.CODE:
            yield from (f"{quote.text}\n\n(code from [{passage}])" for quote in found)
        else:
            yield _running_text(found)


def _running_text(found: Sequence[Quote]) -> str:
    """Sentences that stand together in the document read on; a jump is marked."""
    text = ""
    for before, quote in zip((None, *found), found, strict=False):
        gap = before is not None and quote.position != before.position + 1
        text += f"{' … ' if gap else ' ' if text else ''}{quote.text} [{quote.passage}]"
    return text
