"""A fake master that has two conversations, and begins a third one."""

from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.integration.cli.fake_master import FakeMaster

MILLS, RIVERS, MADE = (f"conv_{digit * 32}" for digit in "123")


def conversation(identity: str, title: str, **more: Any) -> dict[str, Any]:
    return {
        "id": identity,
        "object": "conversation",
        "created_at": 1767225600,
        "updated_at": 1767225600,
        "metadata": {},
        "title": title,
        "name": None,
        "user": None,
        "exchanges": 2,
        "summary": None,
        **more,
    }


def message(number: int, role: str, text: str) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"id": f"msg_{number}", "type": "message", "role": role, "content": content}


ITEMS = [
    message(0, "user", "What turns a mill?"),
    message(1, "assistant", "**Water** does.\n\nOr wind."),
    {"id": "fc_2", "type": "function_call", "name": "look", "arguments": '{"at": "it"}'},
    {"id": "fco_3", "type": "function_call_output", "output": "a mill"},
    message(4, "user", "And who am I?"),
]
SUMMARY = {"text": "They spoke of mills.", "exchanges": 3, "until": "2026-01-01", "request": "x"}


@dataclass
class RememberingMaster(FakeMaster):
    """What it has of conversations, and what became of them."""

    conversations: list[dict[str, Any]] = field(
        default_factory=lambda: [
            conversation(MILLS, "What turns a mill?", summary=SUMMARY),
            conversation(RIVERS, "Rivers\x1b[31m", name="diary"),
        ]
    )
    deleted: list[str] = field(default_factory=list)
    feedback: list[dict[str, Any]] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)

    def app(self) -> Starlette:
        found = super().app()
        path = "/v1/conversations"
        found.router.routes += [
            Route(path, self._listed),
            Route(f"{path}/{{id}}", self._one, methods=["GET", "DELETE"]),
            Route(f"{path}/{{id}}/items", self._items),
            Route("/v1/feedback", self._feedback, methods=["POST"]),
        ]
        return found

    async def _chat(self, request: Request) -> Response:
        response = await super()._chat(request)
        wanted = (await request.json()).get("conversation")
        response.headers["x-millrace-conversation"] = MADE if wanted == "new" else wanted
        return response

    async def _listed(self, request: Request) -> Response:
        self.queries.append(dict(request.query_params))
        return JSONResponse(self._page(self.conversations, request))

    async def _one(self, request: Request) -> Response:
        found = [c for c in self.conversations if c["id"] == request.path_params["id"]]
        if not found:
            return self._error(404, "this conversation does not exist", "not_found")
        if request.method == "DELETE":
            self.deleted.append(found[0]["id"])
        return JSONResponse(found[0])

    async def _items(self, request: Request) -> Response:
        return JSONResponse(self._page(ITEMS, request))

    async def _feedback(self, request: Request) -> Response:
        self.feedback.append(await request.json())
        return JSONResponse({"object": "judgement"}, 201)

    def _page(self, items: list[dict[str, Any]], request: Request) -> dict[str, Any]:
        """Two at a time, so that whoever wants all has to turn pages."""
        after = request.query_params.get("after")
        start = next((n + 1 for n, item in enumerate(items) if item["id"] == after), 0)
        page = items[start : start + 2]
        more = start + 2 < len(items)
        return {"object": "list", "data": page, "last_id": page[-1]["id"], "has_more": more}
