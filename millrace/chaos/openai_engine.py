"""A fake OpenAI-compatible engine: `/v1/chat/completions` (streamed) and `/v1/models`."""

import json
from collections.abc import Iterator

from millrace.chaos.engine import Call, Engine, Json, Reply, Send


class OpenAIEngine(Engine):
    """Streams server-sent events as llama.cpp and vLLM do."""

    content_type = "text/event-stream"

    async def answer(self, call: Call, send: Send) -> None:
        match call.path:
            case "/v1/models":
                models = [{"id": name, "object": "model"} for name in self.models]
                await self.respond(send, {"object": "list", "data": models})
            case "/v1/chat/completions" if call.body.get("model") not in self.models:
                said = f"The model `{call.body.get('model')}` does not exist."
                await self.respond(send, _error(said, "model_not_found"), 404)
            case "/v1/chat/completions":
                await self.chat(call, send)
            case _:
                await self.respond(send, _error("not found"), 404)

    def refusal(self, reply: Reply) -> Json:
        return _error(reply.error)

    def frame(self, call: Call, content: str = "", reasoning: str = "") -> bytes:
        delta = {"reasoning_content": reasoning} if reasoning else {"content": content}
        return self._chunk(call, choices=[{"index": 0, "delta": delta, "finish_reason": None}])

    def error_frame(self, reply: Reply) -> bytes:
        return _event(_error(reply.error)) + b"data: [DONE]\n\n"

    def last_frames(self, call: Call, reply: Reply) -> Iterator[bytes]:
        for index, tool_call in enumerate(reply.tool_calls):
            for part in _in_parts(index, tool_call):
                choice = {"index": 0, "delta": {"tool_calls": [part]}, "finish_reason": None}
                yield self._chunk(call, choices=[choice])
        choice = {"index": 0, "delta": {}, "finish_reason": reply.finish_reason, **reply.extra}
        yield self._chunk(call, choices=[choice])
        if reply.prompt_tokens is not None:
            usage = {
                "prompt_tokens": reply.prompt_tokens,
                "completion_tokens": reply.completion_tokens,
            }
            yield self._chunk(call, choices=[], usage=usage)
        yield b"data: [DONE]\n\n"

    def _chunk(self, call: Call, **fields: object) -> bytes:
        return _event(
            {
                "id": "chatcmpl-fake",
                "object": "chat.completion.chunk",
                "created": 0,
                "model": call.body.get("model"),
                **fields,
            }
        )


def _in_parts(index: int, tool_call: Json) -> Iterator[Json]:
    """A tool call as engines stream it: the name first, then the arguments bit by bit."""
    function = tool_call["function"]
    head = {"name": function["name"], "arguments": ""}
    yield {"index": index, "id": tool_call["id"], "type": "function", "function": head}
    arguments = function["arguments"]
    for at in range(0, len(arguments), 5):
        yield {"index": index, "function": {"arguments": arguments[at : at + 5]}}


def _event(body: Json) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def _error(message: str, code: str | None = None) -> Json:
    return {"error": {"message": message, "type": "invalid_request_error", "code": code}}
