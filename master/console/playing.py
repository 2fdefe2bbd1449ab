"""What the playground's page is told while a request is answered: plan, parts and text, as events.

Pure apart from its memory of what the page has. Everything is text in JSON; the page never makes
HTML of it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import JsonValue

from master.api import errors, sse
from master.api.following import error_of
from master.ending import Ending
from master.live import Grown, Idle, Interrupted, Item, Live, Reasoning, Status, Text
from master.planning.plan import Plan, Step
from master.submit import Accepted
from queue_schemas.states import RequestState, SubtaskState

_REMEDIES: Mapping[str, str] = {
    "model_not_found": "Choose another model or strategy.",
    "collection_not_found": "Choose another collection, or upload documents first.",
    "queue_full": "Wait a moment and send it again, or choose another model.",
    "service_unavailable": "Nothing was lost. Send it again when the system answers.",
    "server_draining": "Send it again; another replica takes it.",
    "context_length_exceeded": "Start a new chat, or ask for less.",
    "deadline_exceeded": "See on the Workers page whether the model has workers, then ask again.",
    "cancelled": "It was stopped. Send it again if you want an answer.",
    "slow_consumer": "Open its page: the answer is there when it is ready.",
    "diverged": "Open its page: it has the whole answer.",
    "internal_error": "It is in the master's log.",
}
_NO_WORKER = "The Workers page shows which models have one; start one, or choose such a model."
_LOOK = "Open its page to see what each part said."
_MEND = "Change it, and send it again."


def refusal(error: errors.ApiError) -> dict[str, JsonValue]:
    """What nothing came of, as the page shows it."""
    return _in_words(error, _MEND)


def failure(error: errors.ApiError) -> dict[str, JsonValue]:
    """What a request ended with, as the page shows it."""
    return _in_words(error, _LOOK)


def _in_words(error: errors.ApiError, otherwise: str) -> dict[str, JsonValue]:
    """With what a person can do about it."""
    remedy = _REMEDIES.get(error.code, otherwise)
    return {"code": error.code, "message": error.message, "remedy": remedy}


def failed(error: errors.ApiError) -> bytes:
    """The last event of a stream that cannot go on; the request itself may."""
    return sse.frame(failure(error), event="failed")


class Screen:
    """What one page has of one request."""

    def __init__(self, live: Live, text: int = 0, thought: int = 0) -> None:
        """Characters of the answer, and of what was thought before it, that it has from before."""
        self._live = live
        self._place = text
        self._thought = thought
        self._plan: tuple[int, str] | None = None
        self._states: dict[str, tuple[str, int]] = {}
        self._texts: dict[str, str] = {}

    def begin(self, accepted: Accepted) -> bytes:
        """The first events."""
        found: dict[str, JsonValue] = {
            "request": str(accepted.request),
            "ahead": accepted.ahead,
            "wait_seconds": accepted.wait_seconds,
            "cached": accepted.cached,
        }
        return sse.frame(found, event="accepted") + b"".join(self._grown())

    def show(self, item: Item) -> Iterator[bytes]:
        """The events of one thing that happened."""
        match item:
            case Text(text):
                self._place += len(text)
                yield sse.frame({"text": text, "at": self._place}, event="text")
            case Reasoning(text):
                self._thought += len(text)
                yield sse.frame({"text": text, "thought": self._thought}, event="reasoning")
            case Status(description, done):
                words = (
                    f"{description}. {_NO_WORKER}" if "no worker" in description else description
                )
                yield sse.frame({"description": words, "done": done}, event="status")
            case Grown():
                yield from self._grown()
            case Ending():
                yield b"".join(self._grown()) + sse.frame(_ending(item), event="end")
            case Interrupted():
                yield sse.frame(failure(errors.server_draining()), event="interrupted")
            case Idle():
                yield sse.PING

    def _grown(self) -> Iterator[bytes]:
        plan = self._live.plan
        known = (len(plan.steps), plan.chosen)
        if known != self._plan:
            self._plan = known
            yield sse.frame(_plan(plan), event="plan")
        for step in plan.steps:
            if change := self._change(step, alone=len(plan.steps) == 1):
                yield sse.frame({"step": step.key, **change}, event="part")

    def _change(self, step: Step, *, alone: bool) -> dict[str, JsonValue]:
        """What is new of a step. The text of the only one is the answer, which the page has."""
        part = self._live.parts[step.key]
        change: dict[str, JsonValue] = {}
        standing = (_state(self._live, step), max(1, part.order[0]))
        if standing != self._states.get(step.key):
            self._states[step.key] = standing
            change |= {"state": standing[0], "attempt": standing[1], "missing": part.missing}
        had = self._texts.get(step.key, "")
        if not alone and part.text != had:
            self._texts[step.key] = part.text
            goes_on = bool(had) and part.text.startswith(had)
            change |= {"text": part.text[len(had) :] if goes_on else part.text, "anew": not goes_on}
        return change


def _state(live: Live, step: Step) -> str:
    """As far as the stream knows: it hears of ends and of beginnings, and not of queues."""
    part = live.parts[step.key]
    if part.done:
        return SubtaskState.SUCCEEDED if part.missing is None else SubtaskState.FAILED
    if live.ending is not None and live.ending.state is not RequestState.COMPLETED:
        return SubtaskState.CANCELLED
    if part.text or part.reasoning or live.has_begun(step.key):
        return SubtaskState.RUNNING
    waits = any(not live.parts[key].done for key in step.depends_on)
    return SubtaskState.BLOCKED if waits else SubtaskState.QUEUED


def _plan(plan: Plan) -> dict[str, JsonValue]:
    names: Mapping[str, str] = {step.key: step.title or step.key for step in plan.steps}
    return {
        "strategy": plan.strategy,
        "reason": plan.reason,
        "chosen": plan.chosen,
        "steps": [
            {
                "key": step.key,
                "title": names[step.key],
                "kind": step.kind.value,
                "model": step.model,
                "after": [names[key] for key in step.depends_on],
            }
            for step in plan.steps
        ],
        "sources": [{"number": each.number, "label": each.label} for each in plan.given],
    }


def _ending(ending: Ending) -> dict[str, JsonValue]:
    error = None
    if ending.state is not RequestState.COMPLETED:
        error = failure(error_of(ending))
    elif ending.error:
        error = {"code": "partial", "message": "Some parts are missing.", "remedy": _LOOK}
    return {
        "state": ending.state.value,
        "finish_reason": ending.finish_reason,
        "error": error,
        "prompt_tokens": ending.prompt_tokens,
        "completion_tokens": ending.completion_tokens,
    }


def body_of(wanted: Mapping[str, Any]) -> dict[str, JsonValue]:
    """The body of a chat, of what the page's form has. What is empty is left out.

    Nothing is checked here: that is the API's to do.
    """
    messages = wanted.get("messages")
    system = wanted.get("system")
    if isinstance(messages, list) and isinstance(system, str) and system.strip():
        messages = [{"role": "system", "content": system}, *messages]
    body: dict[str, JsonValue] = {"model": wanted.get("model"), "messages": messages}
    body |= {"stream": True, "cache": 0}
    given = {name: wanted.get(name) for name in ("temperature", "max_tokens")}
    body |= {name: value for name, value in given.items() if value is not None}
    if collection := wanted.get("collection"):
        body["retrieval"] = {"collection": collection}
    return body


def resumed_at(query: Mapping[str, str]) -> tuple[int, int]:
    """How many characters of answer and thoughts a page has. Raises `ApiError` 400."""
    return _whole(query, "after"), _whole(query, "thought")


def _whole(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "0")
    if not (text.isascii() and text.isdecimal() and len(text) <= 15):
        raise errors.invalid_value(f"{name} must be a number of characters", name)
    return int(text)
