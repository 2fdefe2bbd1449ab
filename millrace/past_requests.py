"""Requests that a master has, over its API."""

import re
from collections.abc import Mapping
from typing import Any

from millrace.client import Master
from millrace.problems import Problem, one_line

SHORTEST_ID = 4
_WHOLE = 32

Request = Mapping[str, Any]


async def newest(
    master: Master, limit: int, *, state: str | None = None, after: str | None = None
) -> list[Request]:
    """The newest requests, or those that are older than one of them."""
    given = {"limit": limit, "state": state, "after": after}
    query = {name: value for name, value in given.items() if value is not None}
    found: list[Request] = (await master.send("GET", "/v1/requests", query=query))["data"]
    return found


async def find(master: Master, wanted: str) -> dict[str, Any]:
    """The record of the one request that an id or its beginning means. Raises `Problem`."""
    beginning = hexadecimal(wanted)
    if len(beginning) == _WHOLE:
        return await master.record(beginning)
    query = {"id": beginning, "limit": 5}
    several = (await master.send("GET", "/v1/requests", query=query))["data"]
    if len(several) == 1:
        return await master.record(several[0]["id"])
    if not several:
        raise Problem(f"there is no request {one_line(wanted)!r}; `millrace requests` lists them.")
    ids = ", ".join(each["id"] for each in several)
    raise Problem(f"{wanted!r} may be several requests: {ids}.")


def hexadecimal(wanted: str) -> str:
    """An id or its beginning without hyphens. Raises `Problem` for what cannot be one."""
    plain = wanted.strip().lower().replace("-", "")
    if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST_ID},{_WHOLE}}}", plain):
        raise Problem(
            f"{one_line(wanted)!r} is no id: hexadecimal digits, the first {SHORTEST_ID} at least."
        )
    return plain
