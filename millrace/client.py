"""A client of a running master, over its public API."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2

from millrace.problems import Problem, one_line, place, reason

REQUEST_ID = "x-millrace-request-id"
CONVERSATION = "x-millrace-conversation"

_START_IT = "Start it with `millrace up` or set MILLRACE_URL."
# A stream may be silent for as long as a model loads; the master ends it at its deadline.
_TIMEOUT = httpx2.Timeout(10.0, read=None)
_READ_SECONDS = 10.0
_UPLOAD = httpx2.Timeout(10.0, read=120.0, write=120.0)


class Refused(Problem):
    """The master answered with an error."""

    def __init__(self, said: str, code: str, status: int, remedy: str = "") -> None:
        super().__init__(f"the master refused: {said} ({code}).{remedy}")
        self.said = said + remedy
        self.code = code
        self.status = status


@dataclass
class Answer:
    """A chat request that the master accepted, while its text arrives."""

    request_id: str | None
    response: httpx2.Response

    @property
    def conversation(self) -> str | None:
        """The conversation that it is a part of."""
        return self.response.headers.get(CONVERSATION)

    async def texts(self) -> AsyncIterator[str]:
        """The text in pieces. Raises `Problem` when the stream ends in an error, or without end."""
        finished = False
        async for event in httpx2.EventSource(self.response):
            if event.data == "[DONE]":
                return
            chunk = _object(event.data)
            if "error" in chunk:
                raise _refusal(chunk, self.response.status_code)
            for choice in chunk.get("choices") or ():
                finished = finished or bool(choice.get("finish_reason"))
                if text := (choice.get("delta") or {}).get("content"):
                    yield text
        if not finished:
            raise Problem(f"the stream broke off before its end (request {self.request_id}).")


class Master:
    """One master's API. Use it as an async context manager."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        """Raises `Problem` when the URL is none."""
        self.url = url.rstrip("/").removesuffix("/v1")
        if urlsplit(self.url).scheme not in {"http", "https"}:
            raise Problem(
                f"MILLRACE_URL must begin with http:// or https://, not {one_line(url)!r}."
            )
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # A proxy of the environment cannot reach this machine's loopback.
        trust = not is_loopback(self.url)
        self._http = httpx2.AsyncClient(headers=headers, timeout=_TIMEOUT, trust_env=trust)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._http.aclose()

    async def get(self, path: str, *, refused: bool = True) -> dict[str, Any]:
        """The JSON at a path. With `refused=False`, an error's JSON is returned as well."""
        with self._reaching():
            response = await self._http.get(self.url + path, timeout=_READ_SECONDS)
        if refused:
            _accept(response)
        return _object(response.text)

    async def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The JSON answer to a request with or without a JSON body."""
        with self._reaching():
            response = await self._http.request(
                method, self.url + path, json=body, params=query, timeout=_READ_SECONDS
            )
        _accept(response)
        return _object(response.text)

    async def upload(self, file: Path, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Have a file ingested; the document that was made of it. Raises OSError as well."""
        form = {k: v if isinstance(v, str) else json.dumps(v) for k, v in fields.items()}
        content = await asyncio.to_thread(file.read_bytes)
        with self._reaching():
            response = await self._http.post(
                self.url + "/v1/documents",
                files={"files": (name, content)},
                data=form,
                timeout=_UPLOAD,
            )
        _accept(response)
        document: dict[str, Any] = _object(response.text)["data"][0]
        return document

    async def chat(self, body: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """A chat answer in one piece, and the id of its request."""
        with self._reaching():
            response = await self._http.post(self.url + "/v1/chat/completions", json=body)
        _accept(response)
        return response.headers.get(REQUEST_ID), _object(response.text)

    @asynccontextmanager
    async def stream(self, body: Mapping[str, Any]) -> AsyncIterator[Answer]:
        """A chat answer as it is written. Leaving early cancels the request."""
        url, streamed = self.url + "/v1/chat/completions", {**body, "stream": True}
        with self._reaching():
            async with self._http.stream("POST", url, json=streamed) as response:
                if response.is_error:
                    await response.aread()
                _accept(response)
                yield Answer(response.headers.get(REQUEST_ID), response)

    async def record(self, request_id: str) -> dict[str, Any]:
        """State, plan, subtasks, times and cost of a request."""
        return await self.get(f"/v1/requests/{request_id}")

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        where = place(self.url)
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            why = reason(_cause(error))
            raise Problem(f"cannot reach the master at {where}: {why}. {_START_IT}") from error
        except httpx2.TimeoutException as error:
            raise Problem(f"the master at {where} gave no answer in time.") from error
        except httpx2.HTTPError as error:
            raise Problem(f"the connection to the master at {where} was cut.") from error
        except httpx2.InvalidURL as error:
            raise Problem(f"MILLRACE_URL is not a URL: {reason(error)}.") from error


def _accept(response: httpx2.Response) -> None:
    if response.is_error:
        raise _refusal(_object(response.text), response.status_code)


def _refusal(body: Mapping[str, Any], status: int) -> Refused:
    error = body.get("error")
    error = error if isinstance(error, dict) else {"message": error or f"HTTP {status}"}
    code = str(error.get("code") or status)
    message = one_line(str(error.get("message") or "no reason was given")).rstrip(".")
    remedy = ""
    if status == 401:
        remedy = " Set MILLRACE_API_KEY or give --api-key; `millrace keys create` makes a key."
    return Refused(message, code, status, remedy)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Problem(
            "this is not a Millrace master: it answered something else than JSON objects."
        )
    return value


def _cause(error: BaseException) -> BaseException:
    """The operating system's error below those of the HTTP library and of its attempts."""
    best, below = error, [error]
    while below:
        this = below.pop()
        if isinstance(this, OSError) and this.errno is not None:
            best = this
        if isinstance(this, BaseExceptionGroup):
            below += this.exceptions
        below += [deeper for deeper in (this.__cause__ or this.__context__,) if deeper is not None]
    return best


def is_loopback(url: str) -> bool:
    """Whether this address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
