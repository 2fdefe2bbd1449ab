"""The objects of OpenAI's Responses API, and the events of its streams. Pure.

A position in the text is the sequence number (docs/decisions/0007): the events before the text have
fixed numbers, a delta has `HEAD` plus the characters after it, and what follows the text counts on.
So any replica can go on after any number, from nothing but the text.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii  # the C function behind json.dumps
from typing import Any
from uuid import UUID

from pydantic import JsonValue

from db.requests import StoredRequest
from master.api import sse
from master.api.errors import ApiError
from master.ending import Ending
from queue_schemas.states import RequestState

_Object = dict[str, Any]

_CREATED, _QUEUED, _IN_PROGRESS, _ITEM_ADDED, HEAD = range(5)
"""Numbers of the events before the text; `HEAD` is that of the last one."""
_AFTER_TEXT = 3
_PER_CALL = 4
_AT_ONCE = 1000

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_BAD_PROMPT = frozenset({"context_length_exceeded", "bad_request", "invalid_request"})
_ENDINGS = {"completed": "response.completed", "incomplete": "response.incomplete"}
"""The event of a status; OpenAI has none for `cancelled`, which is a `response.failed` too."""


@dataclass(frozen=True)
class Subject:
    """What a response says about itself at any time."""

    request: UUID
    model: str
    background: bool = False
    created_at: int = field(default_factory=lambda: int(time.time()))
    asked: Mapping[str, JsonValue] = field(default_factory=dict)
    """Fields of its question that are shown again: instructions, tools, metadata, ..."""
    ended_at: int | None = None
    """When it is known already; otherwise it ends now."""


def subject_of(stored: StoredRequest) -> Subject:
    """A stored request, whichever API took it."""
    return Subject(
        request=stored.id,
        model=stored.model,
        background=stored.background,
        created_at=int(stored.created_at.timestamp()),
        asked=stored.question.get("response") or {},
        ended_at=int(stored.finished_at.timestamp()) if stored.finished_at else None,
    )


def stored_response(stored: StoredRequest, ending: Ending | None) -> _Object:
    """The response of a stored request as it is now."""
    subject = subject_of(stored)
    if ending is None:
        waiting = stored.state is RequestState.ACCEPTED
        return response(subject, "queued" if waiting else "in_progress")
    return ended_response(subject, ending)


def response(subject: Subject, status: str, **more: Any) -> _Object:
    """A response object."""
    return {
        "id": response_id(subject.request),
        "object": "response",
        "created_at": subject.created_at,
        "status": status,
        "background": subject.background,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "model": subject.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        **subject.asked,
        **more,
    }


def ended_response(subject: Subject, ending: Ending) -> _Object:
    """The response of a request that has its terminal state."""
    status = _status(ending)
    at = int(time.time()) if subject.ended_at is None else subject.ended_at
    reason = _INCOMPLETE.get(ending.finish_reason or "") if status == "incomplete" else None
    return response(
        subject,
        status,
        completed_at=at if status == "completed" else None,
        error=_error(ending),
        incomplete_details={"reason": reason} if reason else None,
        output=_output(subject, ending),
        usage=_usage(ending),
    )


def _status(ending: Ending) -> str:
    if ending.state is RequestState.COMPLETED:
        return "incomplete" if ending.finish_reason in _INCOMPLETE else "completed"
    return "cancelled" if ending.state is RequestState.CANCELLED else "failed"


def _error(ending: Ending) -> _Object | None:
    """`code` is one of OpenAI's few; ours is the `type`."""
    if ending.state is RequestState.COMPLETED:
        return None
    said = ending.error or {}
    ours = str(said.get("code", "failed"))
    code = "invalid_prompt" if ours in _BAD_PROMPT else "server_error"
    message = str(said.get("message", "the request failed"))
    return {"code": code, "message": message, "param": None, "type": ours}


def _usage(ending: Ending) -> _Object:
    return {
        "input_tokens": ending.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": ending.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": ending.prompt_tokens + ending.completion_tokens,
    }


def _output(subject: Subject, ending: Ending) -> list[_Object]:
    if ending.answer is None:
        return []
    message = [_message(subject, ending)] if _has_message(ending) else []
    return message + [_call(subject, n, call) for n, call in enumerate(ending.tool_calls)]


def _has_message(ending: Ending) -> bool:
    """Tool calls alone come without an empty message."""
    return bool(ending.answer) or not ending.tool_calls


def _message(subject: Subject, ending: Ending | None = None) -> _Object:
    """The answer; without an ending as it begins."""
    status = "in_progress"
    if ending is not None:
        status = "completed" if _status(ending) == "completed" else "incomplete"
    return {
        "type": "message",
        "id": _message_id(subject),
        "role": "assistant",
        "status": status,
        "content": [] if ending is None else [_text_part(ending)],
    }


def _text_part(ending: Ending | None = None) -> _Object:
    text = ending.answer if ending else ""
    logprobs = _logprobs(ending)
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _logprobs(ending: Ending | None) -> JsonValue:
    found = ending.logprobs if ending else None
    return (found.get("content") or []) if isinstance(found, dict) else []


def _call(subject: Subject, number: int, call: Mapping[str, Any]) -> _Object:
    function = call.get("function") or {}
    return {
        "type": "function_call",
        "id": f"fc_{subject.request.hex}_{number}",
        "call_id": call.get("id") or f"call_{subject.request.hex}_{number}",
        "name": function.get("name", ""),
        "arguments": function.get("arguments", ""),
        "status": "completed",
    }


def response_id(request: UUID) -> str:
    """The id of a request in this API."""
    return f"resp_{request.hex}"


def _message_id(subject: Subject) -> str:
    return f"msg_{subject.request.hex}"


class Events:
    """The events of one stream, from the one after `after`; exactly one of them is terminal.

    `single`: one event a character. A client that reads everything again, to drop what it has by
    sequence numbers, can do so only where an event ends, and it may have stopped anywhere.
    """

    def __init__(self, subject: Subject, after: int | None = None, *, single: bool = False) -> None:
        self._subject = subject
        self._after = -1 if after is None else after
        self._single = single
        self.skip = max(0, self._after - HEAD)
        """Characters of the answer that the client has."""
        self._shown = 0
        self._opened = False
        place = {"item_id": _message_id(subject), "output_index": 0, "content_index": 0}
        self._place = place
        before, after_ = _delta_around(place)
        self._delta_head, self._delta_tail = before, after_

    def head(self) -> bytes:
        """What is said before anything is known."""
        status = "queued" if self._subject.background else "in_progress"
        seen = response(self._subject, status)
        created = self._event(_CREATED, "response.created", response=seen)
        if not self._subject.background:
            return created
        return created + self._event(_QUEUED, "response.queued", response=seen)

    def text(self, text: str) -> Iterator[bytes]:
        """Some more of the answer."""
        if opening := self._open():
            yield opening
        self._shown = self._shown or self.skip
        if not self._single:
            yield self._delta(text)
            return
        for start in range(0, len(text), _AT_ONCE):
            yield b"".join(self._delta(letter) for letter in text[start : start + _AT_ONCE])

    def end(self, ending: Ending) -> bytes:
        """What follows the text, and the one terminal event, which is never left out."""
        number = HEAD + _AFTER_TEXT + 1 + max(self._shown, self.skip)
        frames = b""
        if ending.answer is not None:
            base = HEAD + max(len(ending.answer), self._shown)
            if _has_message(ending):
                frames += self._open() + self._close_message(base, ending)
            else:
                frames += self._begin()
            for index, call in enumerate(ending.tool_calls):
                first = base + _AFTER_TEXT + 1 + index * _PER_CALL
                frames += self._tool_call(first, index, call, int(_has_message(ending)))
            number = base + _AFTER_TEXT + 1 + len(ending.tool_calls) * _PER_CALL
        return frames + self._terminal(number, ending)

    def error(self, failure: ApiError) -> bytes:
        """This stream cannot go on, which says nothing about the response. The number is that of
        the last event: who resumes after it gets everything."""
        number = max(self._after, HEAD + self._shown if self._shown else 0)
        fields = {"code": failure.code, "message": failure.message, "param": failure.param}
        return _frame("error", number, fields)

    def _begin(self) -> bytes:
        seen = response(self._subject, "in_progress")
        return self._event(_IN_PROGRESS, "response.in_progress", response=seen)

    def _open(self) -> bytes:
        """The answer begins."""
        if self._opened:
            return b""
        self._opened = True
        item = {"output_index": 0, "item": _message(self._subject)}
        return (
            self._begin()
            + self._event(_ITEM_ADDED, "response.output_item.added", **item)
            + self._event(HEAD, "response.content_part.added", **self._place, part=_text_part())
        )

    def _delta(self, text: str) -> bytes:
        self._shown += len(text)
        number = HEAD + self._shown
        return (
            f"{self._delta_head}{number}{self._delta_tail}{encode_basestring_ascii(text)}}}\n\n"
        ).encode()

    def _close_message(self, base: int, ending: Ending) -> bytes:
        said = {"text": ending.answer, "logprobs": _logprobs(ending)}
        item = {"output_index": 0, "item": _message(self._subject, ending)}
        part = _text_part(ending)
        return (
            self._event(base + 1, "response.output_text.done", **self._place, **said)
            + self._event(base + 2, "response.content_part.done", **self._place, part=part)
            + self._event(base + 3, "response.output_item.done", **item)
        )

    def _tool_call(self, first: int, index: int, call: Mapping[str, Any], offset: int) -> bytes:
        item = _call(self._subject, index, call)
        begun = item | {"arguments": "", "status": "in_progress"}
        place = {"output_index": index + offset}
        named = place | {"item_id": item["id"]}
        arguments = "response.function_call_arguments"
        done = {"arguments": item["arguments"], "name": item["name"]}
        return (
            self._event(first, "response.output_item.added", **place, item=begun)
            + self._event(first + 1, f"{arguments}.delta", **named, delta=item["arguments"])
            + self._event(first + 2, f"{arguments}.done", **named, **done)
            + self._event(first + 3, "response.output_item.done", **place, item=item)
        )

    def _terminal(self, number: int, ending: Ending) -> bytes:
        seen = ended_response(self._subject, ending)
        event = _ENDINGS.get(seen["status"], "response.failed")
        return _frame(event, number, {"response": seen})

    def _event(self, number: int, event: str, **fields: Any) -> bytes:
        """One event, unless the client has it."""
        return _frame(event, number, fields) if number > self._after else b""


def _frame(event: str, number: int, fields: Mapping[str, Any]) -> bytes:
    return sse.frame({"type": event, "sequence_number": number, **fields}, event=event)


def _delta_around(place: Mapping[str, Any]) -> tuple[str, str]:
    """A delta is most of a stream: all of its frame but number and text, encoded once."""
    name = "response.output_text.delta"
    whole = _frame(name, 0, {**place, "logprobs": [], "delta": ""}).decode()
    head, tail = whole.split('"sequence_number":0', 1)
    return f'{head}"sequence_number":', tail.removesuffix('""}\n\n')
