"""A fake Ollama: `/api/chat`, `/api/show`, `/api/tags` and `/api/version`, without a GPU."""

import json
from collections.abc import Iterator

from millrace.chaos.engine import Call, Engine, Json, Reply, Send


class OllamaEngine(Engine):
    """Streams NDJSON as Ollama does; an empty chat loads the model."""

    content_type = "application/x-ndjson"

    async def answer(self, call: Call, send: Send) -> None:
        asked = call.body.get("model")
        match call.path:
            case "/api/version":
                await self.respond(send, {"version": "0.0.0-fake"})
            case "/api/tags":
                await self.respond(send, {"models": [{"model": name} for name in self.models]})
            case "/api/chat" | "/api/show" if asked not in self.models:
                await self.respond(send, {"error": f"model '{asked}' not found"}, 404)
            case "/api/show":
                await self.respond(send, {"details": {"family": "fake"}, "model_info": {}})
            case "/api/chat" if not call.body.get("messages"):
                await self.respond(send, {**self._line(call), "done": True, "done_reason": "load"})
            case "/api/chat":
                await self.chat(call, send)
            case _:
                await self.respond(send, {"error": "not found"}, 404)

    @property
    def chats(self) -> list[Call]:
        """The calls that asked for a chat, without those that only load."""
        return [call for call in super().chats if call.body.get("messages")]

    def refusal(self, reply: Reply) -> Json:
        return {"error": reply.error}

    def frame(self, call: Call, content: str = "", reasoning: str = "") -> bytes:
        return _bytes({**self._line(call, content, reasoning), "done": False})

    def error_frame(self, reply: Reply) -> bytes:
        return _bytes({"error": reply.error})

    def last_frames(self, call: Call, reply: Reply) -> Iterator[bytes]:
        for tool_call in reply.tool_calls:
            line = self._line(call)
            line["message"]["tool_calls"] = [tool_call]
            yield _bytes({**line, "done": False})
        counts = {
            "prompt_eval_count": reply.prompt_tokens,
            "eval_count": reply.completion_tokens,
            "load_duration": 250_000_000,
            "done_reason": reply.finish_reason,
        }
        known = {name: value for name, value in counts.items() if value is not None}
        yield _bytes({**self._line(call), "done": True, **known, **reply.extra})

    def _line(self, call: Call, content: str = "", thinking: str = "") -> Json:
        message = {"role": "assistant", "content": content}
        if thinking:
            message["thinking"] = thinking
        return {"model": call.body.get("model"), "created_at": "2026-01-01", "message": message}


def _bytes(line: Json) -> bytes:
    return json.dumps(line).encode() + b"\n"
