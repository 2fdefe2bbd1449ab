"""Setting Open WebUI up, over the API of its administrators."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx2
from pydantic_core import from_json

from millrace import openwebui_settings
from millrace.client import is_loopback
from millrace.openwebui_settings import HEADERS, Change, Json
from millrace.problems import Problem, one_line, place, reason

_SECONDS: Final = httpx2.Timeout(30.0, connect=5.0)
_API_KEY: Final = "/api/v1/auths/api_key"
_ADMIN_CONFIG: Final = "/api/v1/auths/admin/config"


class Refused(Problem):
    """Open WebUI answered with an error."""

    def __init__(self, said: str, status: int) -> None:
        super().__init__(said)
        self.status = status


class Admin:
    """Open WebUI with the rights of an administrator. Use it as an async context manager."""

    def __init__(self, url: str, token: str | None = None) -> None:
        """Raises `Problem` when the URL is none."""
        self.url = url.rstrip("/")
        if urlsplit(self.url).scheme not in {"http", "https"}:
            raise Problem(f"Open WebUI's URL must begin with http:// or https://, not {url!r}.")
        self._http = httpx2.AsyncClient(timeout=_SECONDS, trust_env=not is_loopback(self.url))
        if token:
            self._http.headers["Authorization"] = f"Bearer {token}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._http.aclose()

    async def sign_in(self, email: str, password: str) -> None:
        """Be this administrator. Raises `Problem`."""
        body = {"email": email, "password": password}
        token = (await self.post("/api/v1/auths/signin", body)).get("token")
        if not isinstance(token, str):
            raise Problem("Open WebUI gave no token; sign in with --admin-key instead.")
        self._http.headers["Authorization"] = f"Bearer {token}"

    async def get(self, path: str) -> Json:
        """The object at a path. Raises `Problem`."""
        return _object(await self._ask("GET", path))

    async def get_list(self, path: str) -> list[Json]:
        """The list of objects at a path. Raises `Problem`."""
        found = await self._ask("GET", path)
        if not isinstance(found, list):
            raise Problem(f"{path} of Open WebUI is no list; its version may not be supported.")
        return [each for each in found if isinstance(each, dict)]

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> Json:
        """The answer to a JSON body. Raises `Problem`."""
        return _object(await self._ask("POST", path, body))

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        where = place(self.url)
        try:
            answer = await self._http.request(method, self.url + path, json=body)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise Problem(f"cannot reach Open WebUI at {where}: {reason(error)}.") from error
        if not answer.is_success:
            remedy = ""
            if answer.status_code in {401, 403}:
                remedy = " It takes the API key or the token of an administrator."
            said = f"Open WebUI refused {path} with {answer.status_code}: {_said(answer)}.{remedy}"
            raise Refused(said, answer.status_code)
        try:
            return from_json(answer.content)
        except ValueError as error:
            raise Problem(f"{where} is no Open WebUI: {path} is no JSON.") from error


def _object(found: Any) -> Json:
    if not isinstance(found, dict):
        raise Problem("Open WebUI answered something else than expected; is its version supported?")
    return found


def _said(answer: httpx2.Response) -> str:
    try:
        found = from_json(answer.content)
    except ValueError:
        return str(answer.status_code)
    detail = found.get("detail") if isinstance(found, dict) else None
    return one_line(str(detail or answer.status_code), 200).rstrip(".")


@dataclass(frozen=True)
class Wish:
    """How Open WebUI is to be connected."""

    master: str
    """The address of the master's API, as Open WebUI sees it."""
    key: str | None
    """Of the master; None: the one that the connection has."""
    task_model: str | None = None
    """For background prompts, whatever is set; None: ours, where none is set."""


@dataclass(frozen=True)
class Connected:
    """What was changed, or would be, and what the master needs to read ratings."""

    changes: tuple[Change, ...]
    models: tuple[str, ...]
    """That the connection has; empty while it is not made."""
    api_key: str | None
    """Of the administrator; None: there is none yet."""


async def connect(admin: Admin, wish: Wish, *, token: str | None, dry_run: bool) -> Connected:
    """Make or mend the connection; what is as it should be is left alone. Raises `Problem`."""
    config = await admin.get("/openai/config")
    wanted, index, changes = openwebui_settings.connection(config, wish.master, wish.key)
    if changes and not dry_run:
        await admin.post("/openai/config/update", wanted)
    tasks = await admin.get("/api/v1/tasks/config")
    wanted, more = openwebui_settings.task_model(tasks, wish.task_model)
    if more and not dry_run:
        await admin.post("/api/v1/tasks/config/update", wanted)
    changes += more
    models = openwebui_settings.own_models(await admin.get("/api/models?refresh=true"), index)
    if not models and not dry_run:
        raise Problem(
            f"Open WebUI finds no model at {wish.master}. From there the master must answer with "
            "this key: see --master-url and --api-key. (From a container it is not 127.0.0.1.)"
        )
    changes += await _open(admin, models, dry_run=dry_run)
    key, more = await _api_key(admin, token, dry_run=dry_run)
    return Connected((*changes, *more), tuple(models), key)


async def _open(admin: Admin, models: Sequence[str], *, dry_run: bool) -> list[Change]:
    """Let everybody use these models."""
    records = await admin.get_list("/api/v1/models/base")
    wanted = openwebui_settings.grants(records, models)
    for name, grants in wanted.items():
        if not dry_run:
            body = {"id": name, "name": name, "access_grants": grants}
            await admin.post("/api/v1/models/model/access/update", body)
    return [Change(f"access to {name}", "administrators", "everybody") for name in wanted]


async def _api_key(
    admin: Admin, token: str | None, *, dry_run: bool
) -> tuple[str | None, list[Change]]:
    """The administrator's API key, made if there is none; a token of a session would run out."""
    if token is not None and token.startswith("sk-"):
        return token, []
    changes: list[Change] = []
    config = await admin.get(_ADMIN_CONFIG)
    if not config.get("ENABLE_API_KEYS"):
        changes.append(Change("API keys", "off", "on"))
        if dry_run:
            return None, changes
        await admin.post(_ADMIN_CONFIG, {**config, "ENABLE_API_KEYS": True})
    try:
        found = (await admin.get(_API_KEY)).get("api_key")
    except Refused as refused:
        if refused.status != 404:
            raise
        found = None
    if not isinstance(found, str):
        changes.append(Change("API key of this administrator", "none", "made"))
        found = None if dry_run else (await admin.post(_API_KEY)).get("api_key")
    return (found if isinstance(found, str) else None), changes


@dataclass(frozen=True)
class Standing:
    """How Open WebUI is set up."""

    version: str
    connected: bool
    headers: tuple[str, ...]
    """Those that its connection has, of ours."""
    task_model: str
    models: tuple[str, ...]
    hidden: tuple[str, ...]
    """Models that only administrators see."""
    ratings: bool
    """Whether its users can rate."""


async def standing(admin: Admin, master: str) -> Standing:
    """How it is set up. Raises `Problem`."""
    version = str((await admin.get("/api/version")).get("version") or "unknown")
    config = await admin.get("/openai/config")
    index = openwebui_settings.place_of(config, master)
    tasks = await admin.get("/api/v1/tasks/config")
    settings = await admin.get(_ADMIN_CONFIG)
    models: list[str] = []
    own: Mapping[str, Any] = {}
    if index is not None:
        own = (config.get("OPENAI_API_CONFIGS") or {}).get(str(index)) or {}
        models = openwebui_settings.own_models(await admin.get("/api/models"), index)
    headers = own.get("headers") or {}
    records = await admin.get_list("/api/v1/models/base")
    return Standing(
        version,
        index is not None,
        tuple(name for name, value in HEADERS.items() if headers.get(name) == value),
        str(tasks.get("TASK_MODEL_EXTERNAL") or ""),
        tuple(models),
        tuple(openwebui_settings.grants(records, models)),
        bool(settings.get("ENABLE_MESSAGE_RATING", True)),
    )
