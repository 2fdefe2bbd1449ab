"""Conversations that a master remembers, over its API."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from millrace.client import Master
from millrace.problems import Problem, one_line

_PAGE = 100
_PREFIX = "conv_"
_SHORTEST_ID = 4

Conversation = Mapping[str, Any]


async def conversations(master: Master, user: str | None) -> AsyncIterator[Conversation]:
    """All conversations of this user, the one that was used last first."""
    async for each in _pages(master, "/v1/conversations", _of(user)):
        yield each


async def first(master: Master, user: str | None, limit: int) -> list[Conversation]:
    """The conversations that were used last."""
    query = _of(user) | {"limit": min(limit, _PAGE)}
    found = await master.send("GET", "/v1/conversations", query=query)
    listed: list[Conversation] = found["data"]
    return listed


async def find(master: Master, wanted: str, user: str | None) -> Conversation:
    """The one conversation that an id, its beginning or its name means. Raises `Problem`."""
    beginning = wanted if wanted.startswith(_PREFIX) else _PREFIX + wanted
    if len(beginning) == len(_PREFIX) + 32:
        return await master.send("GET", f"/v1/conversations/{beginning}", query=_of(user))
    several = [
        each
        async for each in conversations(master, user)
        if each["name"] == wanted or _begins(each["id"], beginning)
    ]
    named = [each for each in several if each["name"] == wanted] or several
    if len(named) == 1:
        return named[0]
    if not named:
        least = f"an id needs its first {_SHORTEST_ID} characters at least"
        raise Problem(f"there is no conversation {one_line(wanted)!r}; {least}.")
    ids = ", ".join(each["id"] for each in named[:5])
    raise Problem(f"{wanted!r} may be {len(named)} conversations: {ids}.")


def _begins(identity: str, beginning: str) -> bool:
    return len(beginning) >= len(_PREFIX) + _SHORTEST_ID and identity.startswith(beginning)


async def messages(master: Master, identity: str, user: str | None) -> list[dict[str, str]]:
    """What was said in a conversation: `role` and `content`, oldest first."""
    path, query = f"/v1/conversations/{identity}/items", _of(user) | {"order": "asc"}
    return [_message(item) async for item in _pages(master, path, query)]


async def delete(master: Master, identity: str, user: str | None) -> None:
    """Have every word of a conversation deleted."""
    await master.send("DELETE", f"/v1/conversations/{identity}", query=_of(user))


def _of(user: str | None) -> dict[str, Any]:
    return {"user": user} if user else {}


async def _pages(master: Master, path: str, query: Mapping[str, Any]) -> AsyncIterator[Any]:
    after: dict[str, Any] = {}
    while True:
        page = await master.send("GET", path, query={**query, "limit": _PAGE, **after})
        for each in page["data"]:
            yield each
        if not page["has_more"]:
            return
        after = {"after": page["last_id"]}


def _message(item: Mapping[str, Any]) -> dict[str, str]:
    if item["type"] == "function_call":
        return {"role": "assistant", "content": f"[calls {item['name']}({item['arguments']})]"}
    if item["type"] == "function_call_output":
        return {"role": "tool", "content": _text(item["output"])}
    return {"role": str(item["role"]), "content": _text(item["content"])}


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text") or f"[{part['type']}]" for part in content)
