"""Open WebUI's ratings, over its API: read as they are, and parsed into what we know of them."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx2
from pydantic_core import from_json, to_json

from master.outages import said

_SECONDS: Final = httpx2.Timeout(30.0, connect=5.0)
_MOST_CHARACTERS: Final = {"id": 256, "reason": 200, "comment": 4000, "tag": 100}
_MOST_TAGS: Final = 20
_BUSY: Final = frozenset({408, 425, 429, 502, 503, 504})
_FEEDBACK: Final = "/api/v1/evaluations"


class OpenWebuiError(Exception):
    """Open WebUI could not be read; the text says why."""

    def __init__(self, why: str, *, outage: bool) -> None:
        super().__init__(why)
        self.outage = outage
        """It may be better the next time, with nothing changed by a person."""


@dataclass(frozen=True)
class Rating:
    """One rating, without anything that cannot be stored. What it did not say is None."""

    id: str
    changed: int
    """Seconds of Open WebUI's clock."""
    kind: str | None
    """`rating`, or something else."""
    user: str | None
    message: str | None
    chat: str | None
    thumb: int | None
    """-1 or 1."""
    stars: int | None
    """1 to 10."""
    reason: str | None
    comment: str | None
    tags: tuple[str, ...]

    @property
    def digest(self) -> bytes:
        """Equal as long as it says the same: its version stays 0, and its clock has seconds."""
        said = [value for name, value in vars(self).items() if name not in {"id", "changed"}]
        return sha256(to_json(said)).digest()


@dataclass(frozen=True)
class Page:
    """Some ratings, the latest change first."""

    ratings: tuple[Rating, ...]
    count: int
    """With those that could not be read."""
    total: int
    """Of all pages."""


def rating_of(item: object) -> Rating | None:
    """Parse a rating as the API gives it; None if it has no id or no time."""
    found = _object(item)
    id_, changed = _text(found.get("id"), "id"), _integer(found.get("updated_at"))
    if id_ is None or changed is None or changed < 0:
        return None
    said, about = _object(found.get("data")), _object(found.get("meta"))
    stars = _integer(_object(said.get("details")).get("rating"))
    tags = said.get("tags")
    return Rating(
        id=id_,
        changed=changed,
        kind=_text(found.get("type"), "id"),
        user=_text(found.get("user_id"), "id"),
        message=_text(about.get("message_id"), "id"),
        chat=_text(about.get("chat_id"), "id"),
        thumb=_thumb(said.get("rating")),
        stars=stars if stars is not None and 1 <= stars <= 10 else None,
        reason=_text(said.get("reason"), "reason"),
        comment=_text(said.get("comment"), "comment"),
        tags=tuple(
            tag
            for each in (tags if isinstance(tags, list) else [])[:_MOST_TAGS]
            if (tag := _text(each, "tag")) is not None
        ),
    )


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _integer(value: object) -> int | None:
    fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62
    return value if fits and isinstance(value, int) else None


def _thumb(value: object) -> int | None:
    """It takes and gives numbers as texts, too."""
    return {"1": 1, "-1": -1}.get(str(value)) if isinstance(value, int | str) else None


def _text(value: object, what: str) -> str | None:
    """A text that Postgres can store; an id that would have to be changed is none of ours."""
    if not isinstance(value, str):
        return None
    clean = value.replace("\0", "").encode(errors="replace").decode().strip()
    most = _MOST_CHARACTERS[what]
    if what == "id" and (clean != value or len(clean) > most):
        return None
    return clean[:most] or None


class OpenWebui:
    """One Open WebUI, with the API key of one of its administrators."""

    def __init__(self, url: str, key: str) -> None:
        """Raises OpenWebuiError for what is no address."""
        self.url = url.strip().rstrip("/")
        try:
            self._http = httpx2.AsyncClient(
                base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=_SECONDS
            )
        except (httpx2.InvalidURL, UnicodeError, ValueError) as error:
            raise OpenWebuiError(f"{url!r} is no address: {error}", outage=False) from error
        if self._http.base_url.scheme not in {"http", "https"} or not self._http.base_url.host:
            raise OpenWebuiError(f"{url!r} is no http:// or https:// address", outage=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def page(self, number: int) -> Page:
        """One page; the first is number 1."""
        query: dict[str, str | int] = {
            "order_by": "updated_at",
            "direction": "desc",
            "page": number,
        }
        found = _object(await self._get(f"{_FEEDBACK}/feedbacks/list", query))
        items, total = found.get("items"), _integer(found.get("total"))
        if not isinstance(items, list) or total is None:
            raise OpenWebuiError("its list of ratings is none; is this Open WebUI?", outage=False)
        return Page(_ratings(items), len(items), total)

    async def ids(self) -> dict[str, int]:
        """Every rating there is, with the second of its last change."""
        found = await self._get(f"{_FEEDBACK}/feedbacks/all/ids")
        if not isinstance(found, list):
            raise OpenWebuiError("its list of ids is none; is this Open WebUI?", outage=False)
        return {rating.id: rating.changed for rating in _ratings(found)}

    async def one(self, id_: str) -> Rating | None:
        """One rating; None if it is gone."""
        path = f"{_FEEDBACK}/feedback/{quote(id_, safe='')}"
        return rating_of(await self._get(path, missing=True))

    async def _get(
        self, path: str, query: Mapping[str, str | int] | None = None, *, missing: bool = False
    ) -> Any:
        try:
            async with asyncio.timeout(_SECONDS.read):
                answer = await self._http.get(path, params=query)
        except (httpx2.HTTPError, TimeoutError) as error:
            why = said(error)
            raise OpenWebuiError(f"it does not answer: {why}", outage=True) from error
        if missing and answer.status_code == 404:
            return None
        if not answer.is_success:
            raise _refusal(answer.status_code)
        try:
            return from_json(answer.content)
        except ValueError as error:
            raise OpenWebuiError("it answers no JSON; is this Open WebUI?", outage=False) from error


def _ratings(items: list[object]) -> tuple[Rating, ...]:
    found = tuple(rating for item in items if (rating := rating_of(item)) is not None)
    if items and not found:
        raise OpenWebuiError("its ratings have no id or no time", outage=False)
    return found


def _refusal(status: int) -> OpenWebuiError:
    if status in {401, 403}:
        why = "its administrator's API key is not accepted"
        return OpenWebuiError(f"it refused with {status}: {why}", outage=False)
    return OpenWebuiError(f"it answered {status}", outage=status in _BUSY or status >= 500)
