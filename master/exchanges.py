"""Stored exchanges of a conversation as planning reads them. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from pydantic import JsonValue

from db.conversations import StoredExchange
from master.planning.chat import ChatMessage
from master.planning.memory import Exchange, Summary, split_head


def exchange_of(stored: StoredExchange) -> Exchange:
    """A stored request and its answer."""
    own, rest = split_head(tuple(stored.question["messages"]))
    if (stored.question.get("response") or {}).get("instructions"):
        own = own[1:]  # they are for one response only
    before = stored.question.get("remembered") or {}
    return Exchange(
        request=stored.request,
        at=stored.at,
        messages=rest,
        answer=_answer(stored),
        system=own or tuple(before.get("system") or ()),
        turns=before.get("turns") or 0,
    )


def exchanges_of(stored: Iterable[StoredExchange]) -> tuple[Exchange, ...]:
    """Several, in their order."""
    return tuple(exchange_of(one) for one in stored)


def summary_of(stored: Mapping[str, Any] | None) -> Summary | None:
    """The summary that a conversation has."""
    if not stored or not stored.get("text"):
        return None
    return Summary(stored["text"], datetime.fromisoformat(stored["until"]))


def _answer(stored: StoredExchange) -> ChatMessage:
    if stored.tool_calls:
        calls: list[JsonValue] = [dict(call) for call in stored.tool_calls]
        return {"role": "assistant", "content": stored.answer or None, "tool_calls": calls}
    return {"role": "assistant", "content": stored.answer}
