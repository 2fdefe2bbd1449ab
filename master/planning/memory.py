"""What a model is given of a conversation: instructions, summary, last exchanges, recalled words.

All of it fits the tokens that are left for it, and the newest exchange comes before everything
older. It is stored beside what the client sent, and never mixed with it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from master.planning.chat import (
    ChatMessage,
    estimate_chat_tokens,
    estimate_tokens,
    last_user,
    text_of,
    with_text,
)
from master.planning.language import Phrases, phrases_for
from master.planning.question import Question
from master.planning.quoting import quoted, unmarked
from master.planning.remembered import Recalled, Remembered

_INSTRUCTING = ("system", "developer")
_SPARE_TOKENS = 8
"""For what joins a note to instructions."""
_MOST_RECALLED = 3


@dataclass(frozen=True)
class Exchange:
    """A question and its answer, as messages."""

    request: UUID
    at: datetime
    messages: tuple[ChatMessage, ...]
    """What the client sent, without the instructions at its head."""
    answer: ChatMessage
    system: tuple[ChatMessage, ...] = ()
    """Instructions that held then, and hold on until others come."""
    turns: int = 0
    """How many exchanges it was given itself."""

    @property
    def goes_on(self) -> bool:
        """Whether it brings what a tool said, and so makes no sense without the one before."""
        return bool(self.messages) and self.messages[0].get("role") == "tool"

    @property
    def said(self) -> tuple[ChatMessage, ...]:
        """All its messages."""
        return (*self.messages, self.answer)


@dataclass(frozen=True)
class Summary:
    """What is left of older exchanges."""

    text: str
    until: datetime
    """When the newest exchange that it covers was asked."""


@dataclass(frozen=True)
class Past:
    """What is known of a conversation before a question."""

    conversation: UUID
    exchanges: tuple[Exchange, ...] = ()
    """The last ones, oldest first."""
    uncovered: int = 0
    """How many exchanges no summary covers, those among them."""
    summary: Summary | None = None
    recalled: tuple[Recalled, ...] = ()
    """Best first."""
    recall: str = "off"


Turn = tuple[Exchange, ...]
"""Exchanges that belong together: a question, and the rounds of its tools."""


def turns(exchanges: Iterable[Exchange]) -> list[Turn]:
    """Exchanges by what they belong to; rounds of tools without their question are left out."""
    found: list[Turn] = []
    for exchange in exchanges:
        if not exchange.goes_on:
            found.append((exchange,))
        elif found:
            found[-1] = (*found[-1], exchange)
    return found


def split_head(
    messages: Sequence[ChatMessage],
) -> tuple[tuple[ChatMessage, ...], tuple[ChatMessage, ...]]:
    """The instructions at the head of a chat, and what follows them."""
    roles = [message.get("role") for message in messages]
    count = next((n for n, role in enumerate(roles) if role not in _INSTRUCTING), len(roles))
    return tuple(messages[:count]), tuple(messages[count:])


def remember(past: Past, messages: Sequence[ChatMessage], window: int, room: int) -> Remembered:
    """What to put before these new messages: at most `window` exchanges, and `room` tokens.

    Where not all of it fits: instructions that hold on go first, then the newest exchange, the
    summary, the exchanges before, and what was recalled.
    """
    phrases = phrases_for(_asked(messages))
    recent = turns(past.exchanges)[-window:] if window else []
    left = room - _SPARE_TOKENS
    system, left = _system(past, messages, left)
    last, left = _newest(recent[-1:], left)
    summary = past.summary.text if past.summary else ""
    note = _note(phrases, summary, ())
    if _tokens(note) > left:
        summary = note = ""
    before, left = _newest(recent[:-1] if last else [], left - _tokens(note))
    given = [exchange for turn in (*before, *last) for exchange in turn]
    requests = tuple(exchange.request for exchange in given)
    chosen: tuple[Recalled, ...] = ()
    for one in past.recalled:
        longer = _note(phrases, summary, (*chosen, one))
        more = _tokens(longer) - _tokens(note)
        wanted = len(chosen) < _MOST_RECALLED and one.request not in requests
        if wanted and more <= left:
            chosen, note, left = (*chosen, one), longer, left - more
    return Remembered(
        conversation=past.conversation,
        system=system,
        note=note,
        messages=tuple(message for exchange in given for message in exchange.said),
        exchanges=requests,
        turns=len(before) + len(last),
        left_out=_left_out(past, given),
        summary=summary,
        summarised_until=past.summary.until if past.summary and summary else None,
        recalled=chosen,
        recall=past.recall,
    )


def woven(question: Question) -> Question:
    """The question as models are to see it: with what is remembered put before it, once."""
    remembered = question.remembered
    if remembered is None:
        return question
    head, rest = split_head(question.messages)
    head = head or remembered.system
    if remembered.note and head:
        *others, last = head
        head = (*others, with_text(last, f"{text_of(last)}\n\n{remembered.note}"))
    elif remembered.note:
        head = ({"role": "system", "content": remembered.note},)
    messages = (*head, *remembered.messages, *rest)
    used = remembered.model_copy(update={"system": (), "note": "", "messages": ()})
    return replace(question, messages=messages, remembered=used)


def wants_summary(past: Past, given: Remembered, window: int) -> bool:
    """Whether the next question would find exchanges that are neither shown nor summarised."""
    open_turns = [turn for turn in turns(past.exchanges) if not _covered(turn[-1], past.summary)]
    return given.left_out > 0 or len(open_turns) >= window


def _system(
    past: Past, messages: Sequence[ChatMessage], left: int
) -> tuple[tuple[ChatMessage, ...], int]:
    held = past.exchanges[-1].system if past.exchanges else ()
    if split_head(messages)[0]:
        return held, left  # the new ones hold for this question
    tokens = estimate_chat_tokens(held)
    return (held, left - tokens) if tokens <= left else ((), left)


def _newest(recent: Sequence[Turn], left: int) -> tuple[list[Turn], int]:
    """As many as fit, the newest first, in their order; and the tokens that are left."""
    kept: list[Turn] = []
    for turn in reversed(recent):
        tokens = sum(estimate_chat_tokens(exchange.said) for exchange in turn)
        if tokens > left:
            break
        kept.insert(0, turn)
        left -= tokens
    return kept, left


def _note(phrases: Phrases, summary: str, recalled: Sequence[Recalled]) -> str:
    told = []
    if summary:
        told.append(f"{phrases.summary}\n\n{quoted('summary', [('', summary)])}")
    if recalled:
        pieces = [("", unmarked(one.text)) for one in recalled]
        told.append(f"{phrases.recalled}\n\n{quoted('earlier', pieces)}")
    return "\n\n".join(told)


def _tokens(note: str) -> int:
    return estimate_tokens(note) + _SPARE_TOKENS if note else 0


def _left_out(past: Past, given: Sequence[Exchange]) -> int:
    shown = sum(not _covered(exchange, past.summary) for exchange in given)
    return max(0, past.uncovered - shown)


def _covered(exchange: Exchange, summary: Summary | None) -> bool:
    return summary is not None and exchange.at <= summary.until


def _asked(messages: Sequence[ChatMessage]) -> str:
    place = last_user(messages)
    return text_of(messages[place]) if place is not None else ""
