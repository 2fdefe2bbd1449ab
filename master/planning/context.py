"""Documents that came with the question: found in the prompt, cut, chosen and handed on.

Open WebUI puts what it retrieved into the last user message, or into the system message:
`<source id="1" name="…">text</source>` inside `<context>`, with the question at the very end. The
citation number of a passage is that id, because the front end maps `[1]` to its own source 1;
several passages of one source share it.
"""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from master.planning.chat import ChatMessage, estimate_tokens, last_user, text_of, with_text
from master.planning.language import phrases_for
from master.planning.quoting import quoted
from master.planning.ranking import rank
from queue_schemas.messages import Passage
from queue_schemas.registry import Model, ProviderName

PASSAGE_CHARACTERS = 1200
_TOKENS_PER_LABEL = 8
_CONTEXT = re.compile(r"<context>\s*(?=<source\b)")
_CONTEXT_END = "</context>"
_SOURCE = re.compile(r"<source\b([^>\n]*)>")
_SOURCE_END = "</source>"
_ATTRIBUTE = re.compile(r'([\w-]+)="([^"]*)"')
_ATTACHED = re.compile(r"\A\s*<attached_files>.*?</attached_files>", re.DOTALL)
_QUERY = re.compile(r"\A<(user_query|query)>(.*)</\1>\Z", re.DOTALL)
_PARAGRAPH_END = re.compile(r"\n[ \t]*\n\s*|\n(?=#{1,6} )")
_SENTENCE_END = re.compile(r"(?<=[.!?。\uff01\uff1f])\s+|\n")


@dataclass(frozen=True)
class Grounding:
    """What Open WebUI's prompt is made of."""

    question: str
    passages: tuple[Passage, ...]
    place: int
    """Which message held the passages."""


def find_context(messages: Sequence[Mapping[str, JsonValue]]) -> Grounding | None:
    """The question and its passages; None when the prompt is an ordinary one."""
    asked = last_user(messages)
    if asked is None:
        return None
    question = text_of(messages[asked])
    for place in (asked, *_system_places(messages)):
        block = _context_block(text_of(messages[place]))
        if block is None:
            continue
        _, inside, after = block
        question = _question_after(after) if place == asked else question
        passages = tuple(_passages(inside))
        if question and passages:
            return Grounding(question, passages, place)
    return None


def bare_question(messages: Sequence[Mapping[str, JsonValue]]) -> str | None:
    """What was asked, where the user's last message has more than that; None: it has not."""
    asked = last_user(messages)
    if asked is None:
        return None
    said = text_of(messages[asked]).strip()
    grounding = find_context(messages)
    question = grounding.question if grounding else _question_after(said)
    return question if question and question != said else None


def without_context(
    messages: Sequence[ChatMessage], grounding: Grounding | None
) -> tuple[ChatMessage, ...]:
    """The messages with the passages taken out and the bare question as the user's last word."""
    if grounding is None:
        return tuple(messages)
    cleaned = list(messages)
    asked = last_user(messages)
    block = _context_block(text_of(messages[grounding.place]))
    if block is not None and grounding.place != asked:
        before, _, after = block
        rest = f"{before.rstrip()}\n{after.lstrip()}".strip()
        cleaned[grounding.place] = with_text(messages[grounding.place], rest)
    if asked is not None:
        cleaned[asked] = with_text(messages[asked], grounding.question)
    return tuple(cleaned)


def select_passages(
    question: str, passages: Sequence[Passage], budget_tokens: int
) -> tuple[Passage, ...]:
    """The passages that fit the question best and the budget together, in their first order."""
    costs = [_cost(passage) for passage in passages]
    if sum(costs) <= budget_tokens:
        return tuple(passages)
    scores = rank(question, [f"{passage.source}\n{passage.text}" for passage in passages])
    chosen: set[int] = set()
    left = budget_tokens
    for place in sorted(range(len(passages)), key=lambda place: (-scores[place], place)):
        if costs[place] <= left:
            chosen.add(place)
            left -= costs[place]
    return tuple(passage for place, passage in enumerate(passages) if place in chosen)


def with_passages(
    prompt: str, passages: Sequence[Passage], model: Model, says: str | None = None
) -> tuple[str, tuple[Passage, ...]]:
    """The prompt and the step's own passages, by what the model's engine reads.

    `says` is what the model is told of them, if not the usual.
    """
    if not passages or model.provider is ProviderName.EXTRACTIVE:
        return prompt, tuple(passages)
    says = says or phrases_for(prompt).sources
    pieces = ((f"[{passage.number}] {passage.source}", passage.text) for passage in passages)
    return f"{says}\n\n{quoted('sources', pieces)}\n\n{prompt}", ()


def cut(text: str, limit: int = PASSAGE_CHARACTERS) -> list[str]:
    """A long text as passages: by heading and paragraph, small ones together, huge ones cut."""
    passages: list[str] = []
    for piece in _pieces(text, limit):
        starts_section = piece.startswith("#")
        if passages and not starts_section and len(passages[-1]) + len(piece) + 2 <= limit:
            passages[-1] = f"{passages[-1]}\n\n{piece}"
        else:
            passages.append(piece)
    return passages


def _pieces(text: str, limit: int) -> Iterable[str]:
    for paragraph in _PARAGRAPH_END.split(text):
        if len(paragraph) <= limit:
            yield from [paragraph.strip()] if paragraph.strip() else []
            continue
        line = ""
        for sentence in _SENTENCE_END.split(paragraph):
            if line and len(line) + len(sentence) >= limit:
                yield line
                line = ""
            line = f"{line} {sentence}".strip()
            while len(line) > limit:
                yield line[:limit]
                line = line[limit:].strip()
        yield from [line] if line else []


def _context_block(text: str) -> tuple[str, str, str] | None:
    """What is before, inside and after `<context>`, which must begin with a source."""
    start = _CONTEXT.search(text)
    # The last end mark: a document may quote the mark, the question hardly will.
    end = text.rfind(_CONTEXT_END)
    if start is None or end < start.end():
        return None
    return text[: start.start()], text[start.end() : end], text[end + len(_CONTEXT_END) :]


def _passages(inside: str) -> Iterable[Passage]:
    starts = [match for match in _SOURCE.finditer(inside) if _opens_source(inside, match.start())]
    ends = [match.start() for match in starts[1:]] + [len(inside)]
    for ordinal, (match, end) in enumerate(zip(starts, ends, strict=True), start=1):
        attributes = dict(_ATTRIBUTE.findall(match.group(1)))
        number = attributes.get("id", "")
        known = number.isascii() and number.isdigit() and 0 < len(number) < 10 and int(number) > 0
        name = html.unescape(attributes.get("name", "")).strip()
        body = inside[match.end() : end].rstrip().removesuffix(_SOURCE_END)
        for text in cut(body):
            shown = int(number) if known else ordinal
            yield Passage(number=shown, source=name or f"source {shown}", text=text)


def _opens_source(inside: str, place: int) -> bool:
    """A mark inside a document is text; a real one is the first or follows an end mark."""
    before = inside[max(0, place - 40) : place].rstrip()
    return not before or before.endswith(_SOURCE_END)


def _question_after(text: str) -> str:
    question = _ATTACHED.sub("", text, count=1).strip()
    wrapped = _QUERY.match(question)
    return wrapped.group(2).strip() if wrapped else question


def _system_places(messages: Sequence[Mapping[str, JsonValue]]) -> list[int]:
    return [place for place, message in enumerate(messages) if message.get("role") == "system"]


def _cost(passage: Passage) -> int:
    return estimate_tokens(passage.text) + estimate_tokens(passage.source) + _TOKENS_PER_LABEL
