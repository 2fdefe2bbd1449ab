"""The objects of OpenAI's Responses API. Pure."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from pydantic import JsonValue

from db.requests import StoredRequest
from master.api import citing
from master.ending import Ending
from master.planning.plan import Plan, Source
from queue_schemas.states import RequestState

_Object = dict[str, Any]

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_BAD_PROMPT = frozenset({"context_length_exceeded", "bad_request", "invalid_request"})


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
    sources: Callable[[], Sequence[Source]] = tuple
    """What its steps were given of documents; known for certain when it has ended."""


def subject_of(stored: StoredRequest) -> Subject:
    """A stored request, whichever API took it."""
    return Subject(
        request=stored.id,
        model=stored.model,
        background=stored.background,
        created_at=int(stored.created_at.timestamp()),
        asked=stored.question.get("response") or {},
        ended_at=int(stored.finished_at.timestamp()) if stored.finished_at else None,
        sources=lambda: Plan.model_validate(stored.plan).given,
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
    thoughts = [reasoning_item(subject, ending.reasoning)] if ending.reasoning else []
    said = [message(subject, ending)] if has_message(ending) else []
    calls = [function_call(subject, n, call) for n, call in enumerate(ending.tool_calls)]
    return thoughts + said + calls


def has_message(ending: Ending) -> bool:
    """Tool calls alone come without an empty message."""
    return bool(ending.answer) or not ending.tool_calls


def message(subject: Subject, ending: Ending | None = None) -> _Object:
    """The answer; without an ending as it begins."""
    status = "in_progress"
    if ending is not None:
        status = "completed" if _status(ending) == "completed" else "incomplete"
    return {
        "type": "message",
        "id": message_id(subject),
        "role": "assistant",
        "status": status,
        "content": [] if ending is None else [text_part(subject, ending)],
    }


def reasoning_item(subject: Subject, text: str | None = None) -> _Object:
    """What the model thought before it answered; without a text as it begins."""
    return {
        "type": "reasoning",
        "id": reasoning_id(subject),
        "summary": [],
        "content": [] if text is None else [reasoning_part(text)],
        "status": "in_progress" if text is None else "completed",
    }


def reasoning_part(text: str = "") -> _Object:
    """The text of a reasoning item."""
    return {"type": "reasoning_text", "text": text}


def text_part(subject: Subject, ending: Ending | None = None) -> _Object:
    """The text of a message; without an ending as it begins."""
    text = (ending.answer or "") if ending else ""
    cited = citing.file_citations(text, subject.sources())
    chances = logprobs(ending)
    return {"type": "output_text", "text": text, "annotations": cited, "logprobs": chances}


def logprobs(ending: Ending | None) -> JsonValue:
    """Log probabilities as this API lists them."""
    found = ending.logprobs if ending else None
    return (found.get("content") or []) if isinstance(found, dict) else []


def function_call(subject: Subject, number: int, call: Mapping[str, Any]) -> _Object:
    """A tool call, as an item of the output."""
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


def message_id(subject: Subject) -> str:
    """The id of the item with the answer."""
    return f"msg_{subject.request.hex}"


def reasoning_id(subject: Subject) -> str:
    """The id of the item with the reasoning."""
    return f"rs_{subject.request.hex}"
