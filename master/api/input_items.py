"""`GET /v1/responses/{id}/input_items`: what a response was made from, as OpenAI lists it."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.requests import Request

from master.api import errors
from master.api.answers import InputItemList
from master.api.openapi import success
from master.api.responses_schema import Message
from master.api.state import ring, running
from master.api.stored import find_response, said_in

router = APIRouter(tags=["OpenAI"])

_Item = dict[str, Any]
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}

Limit = Annotated[int, Query(ge=1, le=100, description="The most to list at once.")]
After = Annotated[str | None, Query(max_length=128, description="List what follows this item.")]


@router.get(
    "/v1/responses/{response_id}/input_items",
    response_model=None,
    responses=success(InputItemList, 400, 401, 404, 503),
)
async def list_input_items(
    response_id: str,
    request: Request,
    limit: Limit = 20,
    order: Literal["asc", "desc"] = "desc",
    after: After = None,
) -> dict[str, Any]:
    """What a response of yours was made from, with the conversation that it goes on."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    stored, _ = await find_response(master, response_id, key.tenant)
    items = list(as_items(stored.id, said_in(stored)))
    if order == "desc":
        items.reverse()
    rest = items[_place(items, after) :]
    page = rest[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(rest) > len(page),
    }


def _place(items: Sequence[_Item], after: str | None) -> int:
    if after is None:
        return 0
    for place, item in enumerate(items, start=1):
        if item["id"] == after:
            return place
    raise errors.invalid_value("this is no input item of this response", "after")


def as_items(request: UUID, messages: Iterable[Message]) -> Iterator[_Item]:
    """Chat messages as the items of an input, with ids that are the same each time."""
    plain = (item for message in messages for item in _items(message))
    for number, item in enumerate(plain):
        prefix = _PREFIXES[item["type"]]
        yield {"id": f"{prefix}_{request.hex}_in_{number}", "status": "completed"} | item


def as_output(request: UUID, answer: Message) -> Iterator[_Item]:
    """The answer to a request as items, with the ids that its response gave them."""
    calls = 0
    for item in _items(answer):
        if item["type"] == "function_call":
            named, calls = f"fc_{request.hex}_{calls}", calls + 1
        else:
            named = f"msg_{request.hex}"
        yield {"id": named, "status": "completed"} | item


def _items(message: Message) -> Iterator[_Item]:
    said: Any = message.get("content")
    if message["role"] == "tool":
        output = said if isinstance(said, str) else [_part(part, "input") for part in said or ()]
        yield {
            "type": "function_call_output",
            "call_id": message.get("tool_call_id"),
            "output": output,
        }
        return
    if said:
        yield _message(str(message["role"]), said)
    calls: Any = message.get("tool_calls") or ()
    for call in calls:
        function = call["function"]
        yield {
            "type": "function_call",
            "call_id": call["id"],
            "name": function["name"],
            "arguments": function["arguments"],
        }


def _message(role: str, said: Any) -> _Item:
    kind = "output" if role == "assistant" else "input"
    parts = [{"type": "text", "text": said}] if isinstance(said, str) else said
    return {"type": "message", "role": role, "content": [_part(part, kind) for part in parts]}


def _part(part: _Item, kind: str) -> _Item:
    if part["type"] == "image_url":
        image = part["image_url"]
        url = {"image_url": image["url"], "detail": image.get("detail") or "auto"}
        return {"type": "input_image", **url}
    if part["type"] == "refusal":
        return {"type": "refusal", "refusal": part["refusal"]}
    more: _Item = {"annotations": []} if kind == "output" else {}
    return {"type": f"{kind}_text", "text": part["text"], **more}
