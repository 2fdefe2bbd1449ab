"""The objects of OpenAI's chat API, as clients expect them.

`Chunks` is the hot path: a stream sends thousands of chunks a second, of which only the text
differs, so everything around the text is encoded once.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from json.encoder import encode_basestring_ascii  # the C function behind json.dumps
from typing import Any

from pydantic import JsonValue

_Object = dict[str, JsonValue]


def completion(  # noqa: PLR0913  one argument for each field of the object
    *,
    id: str,  # noqa: A002 - OpenAI's word
    model: str,
    created: int,
    content: str | None,
    finish_reason: str,
    usage: Mapping[str, JsonValue],
    reasoning: str = "",
    tool_calls: Sequence[Mapping[str, JsonValue]] = (),
    logprobs: JsonValue = None,
    annotations: Sequence[Mapping[str, JsonValue]] = (),
    sources: Sequence[Mapping[str, JsonValue]] = (),
) -> _Object:
    """A whole answer. `sources` is a field of our own, only there when something was looked up."""
    message: _Object = {"role": "assistant", "content": content, "refusal": None}
    if reasoning:
        message["reasoning_content"] = reasoning
    if tool_calls:
        message["tool_calls"] = [dict(call) for call in tool_calls]
        message["content"] = content or None
    if annotations:
        message["annotations"] = [dict(annotation) for annotation in annotations]
    choice: _Object = {
        "index": 0,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": finish_reason,
    }
    answer: _Object = {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [choice],
        "usage": dict(usage),
    }
    return answer | ({"sources": [dict(source) for source in sources]} if sources else {})


def usage(prompt_tokens: int, completion_tokens: int, **own: JsonValue) -> _Object:
    """Token counts; `own` fields (subtasks, cost) only for clients that tolerate them."""
    counts: _Object = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    return counts | own


def model_entry(
    name: str, created: int, *, owner: str = "millrace", label: str | None = None
) -> _Object:
    """One model. `label` is what Open WebUI shows instead of the id."""
    entry: _Object = {"id": name, "object": "model", "created": created, "owned_by": owner}
    return entry | ({"name": label} if label else {})


def model_list(entries: Iterable[Mapping[str, JsonValue]]) -> _Object:
    """What `/v1/models` answers."""
    return {"object": "list", "data": [dict(entry) for entry in entries]}


class Chunks:
    """Encodes the chunks of one stream as SSE frames.

    With `include_usage` every chunk has `usage: null`, as OpenAI's do, and `usage()` ends the
    stream. Open WebUI adds usages up: send one only.
    """

    def __init__(self, id: str, model: str, created: int, *, include_usage: bool = False) -> None:  # noqa: A002 - OpenAI's word
        head = {"id": id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._head = "data: " + _encode(head)[:-1]
        null_usage = ',"usage":null' if include_usage else ""
        tail = f',"logprobs":null,"finish_reason":null}}]{null_usage}}}\n\n'
        choice = self._head + ',"choices":[{"index":0,"delta":'
        self._content_head = choice + '{"content":'
        self._reasoning_head = choice + '{"reasoning_content":'
        self._text_tail = "}" + tail
        self._choice_head = choice
        self._tail = tail
        self._null_usage = null_usage

    def role(self) -> bytes:
        """The first chunk: who speaks."""
        return self._delta({"role": "assistant", "content": ""})

    def content(self, text: str) -> bytes:
        """Some more text."""
        return (self._content_head + encode_basestring_ascii(text) + self._text_tail).encode()

    def reasoning(self, text: str) -> bytes:
        """Some more of what the model thinks before it answers."""
        return (self._reasoning_head + encode_basestring_ascii(text) + self._text_tail).encode()

    def tool_calls(self, calls: Sequence[Mapping[str, Any]]) -> bytes:
        """Whole tool calls. Each gets the `index` that clients put them together by."""
        return self._delta({"tool_calls": [{"index": i, **call} for i, call in enumerate(calls)]})

    def sources(
        self,
        annotations: Sequence[Mapping[str, JsonValue]],
        sources: Sequence[Mapping[str, JsonValue]],
    ) -> bytes:
        """What was looked up, when all of the text is known that cites it."""
        whole = self._delta({"annotations": list(annotations)}).removesuffix(b"}\n\n")
        return whole + f',"sources":{_encode(list(sources))}}}\n\n'.encode()

    def finish(self, reason: str, *, logprobs: JsonValue = None) -> bytes:
        """The chunk that says why the text ends."""
        end = {"logprobs": logprobs, "finish_reason": reason}
        rest = _encode(end)[1:]
        return f"{self._choice_head}{{}},{rest}]{self._null_usage}}}\n\n".encode()

    def usage(
        self, counts: Mapping[str, JsonValue], millrace: Mapping[str, JsonValue] | None = None
    ) -> bytes:
        """The last chunk: no choices, the bill."""
        own = f',"millrace":{_encode(millrace)}' if millrace is not None else ""
        return f'{self._head},"choices":[],"usage":{_encode(counts)}{own}}}\n\n'.encode()

    def _delta(self, delta: Mapping[str, Any]) -> bytes:
        return (self._choice_head + _encode(delta) + self._tail).encode()


def _encode(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
