"""The events of a stream of OpenAI's Responses API. Pure.

A position in the text is the sequence number (docs/decisions/0007): the events before the text have
fixed numbers, a delta has `HEAD` plus the characters after it, and what follows the text counts on.
What the model thought before has numbers of its own below `HEAD`, so that a position in the answer
does not depend on it. So any replica can go on after any number, from nothing but the texts.
"""

from collections.abc import Callable, Iterator, Mapping
from json.encoder import encode_basestring_ascii  # the C function behind json.dumps
from typing import Any

from master.api import sse
from master.api.errors import ApiError
from master.api.response_shapes import (
    Subject,
    ended_response,
    function_call,
    has_message,
    logprobs,
    message,
    message_id,
    reasoning_id,
    reasoning_item,
    reasoning_part,
    response,
    text_part,
)
from master.ending import Ending

_CREATED, _QUEUED, _IN_PROGRESS, _REASONING_ADDED, THOUGHTS = range(5)
"""Numbers of the events before the reasoning; a delta of it has `THOUGHTS` plus its characters."""
HEAD = 10_000_000
"""That of the last event before the text. No message that a broker takes has so many characters."""
_REASONING_DONE, _MESSAGE_ADDED = HEAD - 4, HEAD - 1
_AFTER_TEXT = 3
_PER_CALL = 4
_AT_ONCE = 1000

_ENDINGS = {"completed": "response.completed", "incomplete": "response.incomplete"}
"""The event of a status; OpenAI has none for `cancelled`, which is a `response.failed` too."""


class Events:
    """The events of one stream, from the one after `after`; exactly one of them is terminal.

    `thoughts` is all that the model thought, as far as it is known.
    `single`: one event a character. A client that reads everything again, to drop what it has by
    sequence numbers, can do so only where an event ends, and it may have stopped anywhere.
    """

    def __init__(
        self,
        subject: Subject,
        thoughts: Callable[[], str],
        after: int | None = None,
        *,
        single: bool = False,
    ) -> None:
        self._subject = subject
        self._thoughts = thoughts
        self._after = -1 if after is None else after
        self._single = single
        self.skip = max(0, self._after - HEAD)
        """Characters of the answer that the client has."""
        self.thought = max(0, self._after - THOUGHTS)
        """Characters of the reasoning that it has; more than all of them once the answer began."""
        self._thought = self.thought
        self._shown = 0
        self._sent = max(self._after, 0)
        """Number of the last event that the client was sent."""
        self._begun = self._reasons = self._opened = False
        self._text = _Deltas("response.output_text.delta", self._place(), {"logprobs": []})
        self._reasoning = _Deltas("response.reasoning_text.delta", self._reasoning_place(), {})

    def head(self) -> bytes:
        """What is said before anything is known."""
        status = "queued" if self._subject.background else "in_progress"
        seen = response(self._subject, status)
        self._sent = max(self._sent, _QUEUED if self._subject.background else _CREATED)
        created = self._event(_CREATED, "response.created", response=seen)
        if not self._subject.background:
            return created
        return created + self._event(_QUEUED, "response.queued", response=seen)

    def reasoning(self, text: str) -> Iterator[bytes]:
        """Some more of what the model thinks before it answers. Later thoughts are not shown."""
        text = text[: max(0, _REASONING_DONE - 1 - THOUGHTS - self._thought)]
        if self._opened or self.skip or not text:
            return
        if opening := self._open_reasoning():
            yield opening
            self._sent = max(self._sent, THOUGHTS)
        for piece in self._pieces(text):
            frames = []
            for part in piece:
                self._thought += len(part)
                frames.append(self._reasoning.frame(THOUGHTS + self._thought, part))
            yield b"".join(frames)
            self._sent = THOUGHTS + self._thought

    def text(self, text: str) -> Iterator[bytes]:
        """Some more of the answer."""
        if opening := self._open():
            yield opening
            self._sent = max(self._sent, HEAD)
        self._shown = self._shown or self.skip
        for piece in self._pieces(text):
            frames = []
            for part in piece:
                self._shown += len(part)
                frames.append(self._text.frame(HEAD + self._shown, part))
            yield b"".join(frames)
            self._sent = HEAD + self._shown

    def end(self, ending: Ending) -> bytes:
        """What follows the text, and the one terminal event, which is never left out."""
        number = HEAD + _AFTER_TEXT + 1 + max(self._shown, self.skip)
        frames = b""
        if ending.answer is not None:
            base = HEAD + max(len(ending.answer), self._shown)
            if has_message(ending):
                frames += self._open() + self._close_message(base, ending)
            else:
                frames += self._begin() + self._close_reasoning()
            for index, call in enumerate(ending.tool_calls):
                first = base + _AFTER_TEXT + 1 + index * _PER_CALL
                place = index + self._index() + int(has_message(ending))
                frames += self._tool_call(first, index, call, place)
            number = base + _AFTER_TEXT + 1 + len(ending.tool_calls) * _PER_CALL
        return frames + self._terminal(number, ending)

    def error(self, failure: ApiError) -> bytes:
        """This stream cannot go on, which says nothing about the response. The number is that of
        the last event: who resumes after it gets everything."""
        fields = {"code": failure.code, "message": failure.message, "param": failure.param}
        return _frame("error", self._sent, fields) + sse.DONE

    def _pieces(self, text: str) -> Iterator[list[str]]:
        """What goes into one frame each: a delta, or many of one character."""
        if not self._single:
            yield [text]
            return
        for start in range(0, len(text), _AT_ONCE):
            yield list(text[start : start + _AT_ONCE])

    def _index(self) -> int:
        """Of the message in the output."""
        return int(self._reasons)

    def _place(self) -> dict[str, Any]:
        item = message_id(self._subject)
        return {"item_id": item, "output_index": self._index(), "content_index": 0}

    def _reasoning_place(self) -> dict[str, Any]:
        return {"item_id": reasoning_id(self._subject), "output_index": 0, "content_index": 0}

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        seen = response(self._subject, "in_progress")
        return self._event(_IN_PROGRESS, "response.in_progress", response=seen)

    def _open_reasoning(self) -> bytes:
        if self._reasons:
            return b""
        self._reasons = True
        item = {"output_index": 0, "item": reasoning_item(self._subject)}
        added = self._event(_REASONING_ADDED, "response.output_item.added", **item)
        place = self._reasoning_place()
        part = self._event(THOUGHTS, "response.content_part.added", **place, part=reasoning_part())
        return self._begin() + added + part

    def _close_reasoning(self) -> bytes:
        """The thoughts end where the answer begins, if there were any."""
        text = self._thoughts()
        if not text and not _REASONING_ADDED <= self._after < _MESSAGE_ADDED:
            return b""
        opening, place = self._open_reasoning(), self._reasoning_place()
        part = reasoning_part(text)
        item = {"output_index": 0, "item": reasoning_item(self._subject, text)}
        return (
            opening
            + self._event(_REASONING_DONE, "response.reasoning_text.done", **place, text=text)
            + self._event(_REASONING_DONE + 1, "response.content_part.done", **place, part=part)
            + self._event(_REASONING_DONE + 2, "response.output_item.done", **item)
        )

    def _open(self) -> bytes:
        """The answer begins."""
        if self._opened:
            return b""
        self._opened = True
        before = self._begin() + self._close_reasoning()
        item = {"output_index": self._index(), "item": message(self._subject)}
        place = self._place()
        self._text = _Deltas("response.output_text.delta", place, {"logprobs": []})
        empty = text_part(self._subject)
        added = self._event(_MESSAGE_ADDED, "response.output_item.added", **item)
        part = self._event(HEAD, "response.content_part.added", **place, part=empty)
        return before + added + part

    def _close_message(self, base: int, ending: Ending) -> bytes:
        place = self._place()
        said = {"text": ending.answer, "logprobs": logprobs(ending)}
        item = {"output_index": self._index(), "item": message(self._subject, ending)}
        part = text_part(self._subject, ending)
        return (
            self._event(base + 1, "response.output_text.done", **place, **said)
            + self._event(base + 2, "response.content_part.done", **place, part=part)
            + self._event(base + 3, "response.output_item.done", **item)
        )

    def _tool_call(self, first: int, index: int, call: Mapping[str, Any], place: int) -> bytes:
        item = function_call(self._subject, index, call)
        begun = item | {"arguments": "", "status": "in_progress"}
        at = {"output_index": place}
        named = at | {"item_id": item["id"]}
        arguments = "response.function_call_arguments"
        done = {"arguments": item["arguments"], "name": item["name"]}
        return (
            self._event(first, "response.output_item.added", **at, item=begun)
            + self._event(first + 1, f"{arguments}.delta", **named, delta=item["arguments"])
            + self._event(first + 2, f"{arguments}.done", **named, **done)
            + self._event(first + 3, "response.output_item.done", **at, item=item)
        )

    def _terminal(self, number: int, ending: Ending) -> bytes:
        seen = ended_response(self._subject, ending)
        event = _ENDINGS.get(seen["status"], "response.failed")
        return _frame(event, number, {"response": seen})

    def _event(self, number: int, event: str, **fields: Any) -> bytes:
        """One event, unless the client has it."""
        return _frame(event, number, fields) if number > self._after else b""


class _Deltas:
    """A delta is most of a stream: all of its frame but number and text, encoded once."""

    def __init__(self, event: str, place: Mapping[str, Any], more: Mapping[str, Any]) -> None:
        whole = _frame(event, 0, {**place, **more, "delta": ""}).decode()
        head, tail = whole.split('"sequence_number":0', 1)
        self._head, self._tail = f'{head}"sequence_number":', tail.removesuffix('""}\n\n')

    def frame(self, number: int, text: str) -> bytes:
        """One delta."""
        said = encode_basestring_ascii(text)
        return f"{self._head}{number}{self._tail}{said}}}\n\n".encode()


def _frame(event: str, number: int, fields: Mapping[str, Any]) -> bytes:
    return sse.frame({"type": event, "sequence_number": number, **fields}, event=event)
