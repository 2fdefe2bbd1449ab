"""Reading the streams of a master: what each event adds to a client's record. Pure."""

import json
from collections.abc import Callable
from typing import Any, Final

from millrace.chaos.visits import StreamSeen, Visit

Take = Callable[[Visit, StreamSeen, str], None]
"""Takes one line of a stream."""

DRAINING: Final = "server_draining"
"""Ends a stream and not its request."""
_RESPONSE_STATES: Final = {"incomplete": "completed"}


def take_chat(visit: Visit, stream: StreamSeen, line: str) -> None:
    """A line of a chat's stream: the finish or an error is terminal, and `[DONE]` follows it."""
    said = _payload(line)
    if said is None:
        return
    if said == "[DONE]":
        stream.done = (stream.done or 0) + 1
        return
    if "error" in said:
        _interrupted(visit, stream, said["error"]["code"], said["error"]["code"])
        return
    for choice in said["choices"]:
        _text(visit, choice["delta"].get("content") or "", stream)
        if choice["finish_reason"]:
            stream.terminals.append(choice["finish_reason"])
            visit.state = "completed"


def take_event(visit: Visit, stream: StreamSeen, line: str) -> None:
    """A line of `/v1/requests/{id}/events`: `end` is terminal, and so is `interrupted`."""
    said = _payload(line)
    if said is None:
        return
    if "text" in said:
        _text(visit, said["text"], stream)
    elif "state" in said:
        stream.terminals.append(said["state"])
        visit.state = said["state"]
        visit.code = (said["error"] or {}).get("code")
    elif "error" in said:
        stream.terminals.append(said["error"]["code"])


class Responses:
    """The events of a response, whose numbers go on over all of its streams."""

    def __init__(self) -> None:
        self.cursor = -1

    def take(self, visit: Visit, stream: StreamSeen, line: str) -> None:
        """A line of a response's stream."""
        said = _payload(line)
        if said is None or said == "[DONE]":
            return
        if said["type"] == "error":
            _interrupted(visit, stream, said["code"], said["code"])
            return
        if said["sequence_number"] <= self.cursor:
            visit.odd.append(f"event {said['sequence_number']} came after {self.cursor}")
        self.cursor = said["sequence_number"]
        match said["type"]:
            case "response.output_text.delta":
                _text(visit, said["delta"], stream)
            case "response.completed" | "response.failed" | "response.incomplete":
                response = said["response"]
                stream.terminals.append(response["status"])
                visit.state = _RESPONSE_STATES.get(response["status"], response["status"])
                visit.code = (response["error"] or {}).get("code")


def _interrupted(visit: Visit, stream: StreamSeen, terminal: str, code: str) -> None:
    stream.terminals.append(terminal)
    if code != DRAINING:
        visit.state, visit.code = "failed", code


def _text(visit: Visit, text: str, stream: StreamSeen) -> None:
    if stream.terminals and text:
        visit.odd.append("text after the terminal event")
    visit.text += text


def _payload(line: str) -> Any:
    if not line.startswith("data: "):
        return None
    said = line.removeprefix("data: ")
    return said if said == "[DONE]" else json.loads(said)
