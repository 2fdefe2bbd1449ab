"""An OpenAI chat request in the words of Ollama's native `/api/chat`. Pure."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue

from queue_schemas.messages import SubtaskRequest
from queue_schemas.registry import Capability, Model
from worker.providers.diagnosis import BAD_REQUEST, failure
from worker.providers.prefill import prefilled
from worker.providers.prompt import text_of

Json = dict[str, JsonValue]

_OPTIONS: Final[Mapping[str, str]] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "repeat_penalty": "repeat_penalty",
    "repetition_penalty": "repeat_penalty",
    "seed": "seed",
}
"""OpenAI's and vLLM's names to Ollama's. What Ollama has no word for is left out."""

_ROLES: Final[Mapping[JsonValue, str]] = {"developer": "system", "function": "tool"}


def chat_payload(model: Model, subtask: SubtaskRequest) -> Json:
    """The body of the call."""
    asked = subtask.parameters
    payload: Json = {
        "model": model.name_at_engine,
        "messages": [*_messages(subtask)],
        "stream": True,
        "options": _options(model, subtask),
        "keep_alive": keep_alive(model),
        # Without these two, Ollama drops the beginning of a long conversation without a word,
        # before the generation or during it.
        "truncate": False,
        "shift": False,
    }
    optional: Json = {
        "format": _format(asked.get("response_format")),
        "tools": _tools(asked),
        "think": _think(model, asked),
        "logprobs": asked.get("logprobs"),
        "top_logprobs": asked.get("top_logprobs"),
    }
    payload.update({name: value for name, value in optional.items() if value is not None})
    return payload


def load_payload(model: Model) -> Json:
    """The body of a call that only loads the model, with the context that real calls use."""
    options: Json = {"num_ctx": model.context_length}
    return {
        "model": model.name_at_engine,
        "messages": [],
        "stream": True,
        "options": options | _engine_options(model),
        "keep_alive": keep_alive(model),
    }


def keep_alive(model: Model) -> JsonValue:
    """How long the model stays loaded. A bare number is seconds, which must not be a string."""
    value = model.keep_alive
    return int(value) if value.lstrip("-").isdigit() else value


def _engine_options(model: Model) -> Json:
    return {name: value for name, value in model.options.items() if name != "think"}


def _options(model: Model, subtask: SubtaskRequest) -> Json:
    asked = subtask.parameters
    options: Json = {"num_ctx": model.context_length, "seed": subtask.seed}
    options.update(_engine_options(model))
    for theirs, ours in _OPTIONS.items():
        if asked.get(theirs) is not None:
            options[ours] = asked[theirs]
    options["num_predict"] = _limit(model, asked)
    stop = asked.get("stop")
    if stop:
        options["stop"] = [stop] if isinstance(stop, str) else stop
    return options


def _limit(model: Model, asked: Mapping[str, JsonValue]) -> int:
    """Always a limit: some models never stop by themselves."""
    for name in ("max_completion_tokens", "max_tokens"):
        value = asked.get(name)
        if isinstance(value, int) and value > 0:
            return min(value, model.max_output_tokens)
    return model.max_output_tokens


def _format(response_format: JsonValue) -> JsonValue:
    if not isinstance(response_format, dict):
        return None
    if response_format.get("type") == "json_object":
        return "json"
    if response_format.get("type") == "json_schema":
        wrapper = response_format.get("json_schema")
        return wrapper.get("schema") if isinstance(wrapper, dict) else None
    return None


def _tools(asked: Mapping[str, JsonValue]) -> JsonValue:
    """Ollama has no `tool_choice`; a named one is honoured by offering nothing else."""
    tools, choice = asked.get("tools"), asked.get("tool_choice")
    if not isinstance(tools, list) or choice == "none":
        return None
    if isinstance(choice, dict) and isinstance(named := choice.get("function"), dict):
        return [t for t in tools if _tool_name(t) == named.get("name")]
    return tools


def _tool_name(tool: JsonValue) -> JsonValue:
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def _think(model: Model, asked: Mapping[str, JsonValue]) -> JsonValue:
    think = asked.get("think", model.options.get("think"))
    if think is not None:
        return think
    effort = asked.get("reasoning_effort")
    # Ollama refuses `think` for a model that cannot, while OpenAI clients send the effort freely.
    if effort is None or Capability.REASONING not in model.capabilities:
        return None
    return False if effort in {"none", "minimal"} else effort


def _messages(subtask: SubtaskRequest) -> list[Json]:
    called: dict[JsonValue, JsonValue] = {}
    translated = []
    for message in prefilled(subtask):
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict):
                called[call.get("id")] = _tool_name(call)
        translated.append(_message(message, called))
    return translated


def _message(message: Mapping[str, JsonValue], called: Mapping[JsonValue, JsonValue]) -> Json:
    role, content = message.get("role"), message.get("content")
    ours: Json = {"role": _ROLES.get(role, role), "content": text_of(content)}
    if images := _images(content):
        ours["images"] = [*images]
    if isinstance(calls := message.get("tool_calls"), list):
        ours["tool_calls"] = [_call(call) for call in calls if isinstance(call, dict)]
    if (name := called.get(message.get("tool_call_id"), message.get("name"))) is not None:
        ours["tool_name"] = name
    return ours


def _call(call: Json) -> Json:
    function = call.get("function")
    if not isinstance(function, dict):
        raise failure(BAD_REQUEST, "a tool call has no function")
    arguments = function.get("arguments")
    try:
        parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError as error:
        raise failure(BAD_REQUEST, f"the arguments of a tool call are not JSON: {error}") from error
    return {"function": {"name": function.get("name"), "arguments": parsed or {}}}


def _images(content: JsonValue) -> list[str]:
    parts = content if isinstance(content, list) else []
    links = [p.get("image_url") for p in parts if isinstance(p, dict) and "image_url" in p]
    return [_base64(link.get("url") if isinstance(link, dict) else link) for link in links]


def _base64(url: JsonValue) -> str:
    """The body of a `data:` URL. Nothing is fetched: a worker is not a way into the network."""
    head, comma, body = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise failure(BAD_REQUEST, "an image must be a base64 data: URL")
    try:
        base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise failure(BAD_REQUEST, f"an image is not base64: {error}") from error
    return body
