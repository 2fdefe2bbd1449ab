"""The real Open WebUI, as a process with a fresh data folder, and what its users do in it."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2

from millrace.chaos.stack import until

PROGRAM_ENV = "MILLRACE_TEST_OPENWEBUI"
"""The program `open-webui`; `make test-openwebui` sets it."""
PASSWORD = "a mill turns slowly"
_START_SECONDS = 300
_SETTINGS = {
    "WEBUI_SECRET_KEY": "only for tests",
    "OFFLINE_MODE": "True",
    "HF_HUB_OFFLINE": "1",
    "ENABLE_VERSION_UPDATE_CHECK": "False",
    "ENABLE_OLLAMA_API": "False",
    "OPENAI_API_BASE_URLS": "",
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "True",
}


@dataclass
class User:
    """Somebody who is signed in."""

    id: str
    http: httpx2.AsyncClient

    async def post(self, path: str, body: Any = None) -> Any:
        answer = await self.http.post(path, json=body)
        assert answer.is_success, f"{path}: {answer.status_code} {answer.text[:500]}"
        return answer.json()

    async def get(self, path: str) -> Any:
        answer = await self.http.get(path)
        assert answer.is_success, f"{path}: {answer.status_code} {answer.text[:500]}"
        return answer.json()

    async def models(self) -> set[str]:
        """What is offered to choose from."""
        return {model["id"] for model in (await self.get("/api/models"))["data"]}

    async def ask(self, model: str, content: str, chat: "Chat | None" = None) -> "Chat":
        """Ask in a new chat, or have the answer of a chat generated again, as the page does."""
        question = chat.question if chat else str(uuid4())
        body = {
            "model": model,
            "stream": True,
            "messages": [{"role": "user", "content": content}],
            "id": str(uuid4()),
            "session_id": str(uuid4()),
            "parent_id": None,
            "user_message": {
                "id": question,
                "parentId": None,
                "childrenIds": [],
                "role": "user",
                "content": content,
            },
        }
        if chat:
            body["chat_id"] = chat.id
        message, made = str(body["id"]), await self.post("/api/chat/completions", body)

        async def done() -> str | None:
            """It answers in the background, for the page, and keeps the answer in the chat."""
            found = await self.get(f"/api/v1/chats/{made['chat_id']}")
            answer = found["chat"]["history"]["messages"].get(message, {})
            assert not answer.get("error"), answer
            return answer["content"] if answer.get("done") else None

        return Chat(made["chat_id"], question, message, model, await until(done, 60))

    async def rate(self, chat: "Chat", thumb: int, **said: Any) -> str:
        """Click on a thumb, and then say more, as the page does: two requests. The rating's id."""
        rating = {
            "type": "rating",
            "data": {"rating": thumb, "model_id": chat.model, "sibling_model_ids": None},
            "meta": {
                "model_id": chat.model,
                "message_id": chat.message,
                "message_index": 2,
                "chat_id": chat.id,
                "base_models": {chat.model: None},
            },
            "snapshot": {"chat": {"id": chat.id, "chat": {"history": {"messages": {}}}}},
        }
        made = (await self.post("/api/v1/evaluations/feedback", rating))["id"]
        more = {**rating, "data": {**rating["data"], "details": {"rating": None}, **said}}
        await self.post(f"/api/v1/evaluations/feedback/{made}", more)
        return str(made)


@dataclass(frozen=True)
class Chat:
    """One question and one answer to it."""

    id: str
    question: str
    message: str
    model: str
    text: str


@dataclass
class FrontEnd:
    """A running Open WebUI with its administrator."""

    url: str
    admin: User
    stack: contextlib.AsyncExitStack

    async def user(self, name: str) -> User:
        """A new user, signed in."""
        email = f"{name}@example.org"
        body = {"name": name, "email": email, "password": PASSWORD, "role": "user"}
        await self.admin.post("/api/v1/auths/add", body)
        return await self.signed("in", {"email": email, "password": PASSWORD})

    async def signed(self, how: str, body: dict[str, str]) -> User:
        return await _signed(self.stack, self.url, how, body)


async def _signed(
    stack: contextlib.AsyncExitStack, url: str, how: str, body: dict[str, str]
) -> User:
    client = httpx2.AsyncClient(base_url=url, timeout=120, trust_env=False)
    http = await stack.enter_async_context(client)
    answer = await http.post(f"/api/v1/auths/sign{how}", json=body)
    assert answer.is_success, answer.text
    http.headers["Authorization"] = f"Bearer {answer.json()['token']}"
    http.cookies.clear()
    return User(answer.json()["id"], http)


def _environment(folder: Path) -> dict[str, str]:
    proxies = {"http_proxy", "https_proxy", "all_proxy"}
    kept = {name: v for name, v in os.environ.items() if name.lower() not in proxies}
    return {**kept, **_SETTINGS, "DATA_DIR": str(folder), "HOME": str(folder)}


@contextlib.asynccontextmanager
async def open_webui(folder: Path) -> AsyncGenerator[FrontEnd]:
    """Open WebUI on a free port. Its log is in the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            os.environ[PROGRAM_ENV],
            "serve",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            stdout=log,
            stderr=log,
            stdin=asyncio.subprocess.DEVNULL,
            env=_environment(folder),
            cwd=folder,
        )
    try:
        async with contextlib.AsyncExitStack() as stack:
            await until(lambda: _healthy(url, process, folder), _START_SECONDS)
            first = {"name": "Admin", "email": "admin@example.org", "password": PASSWORD}
            admin = await _signed(stack, url, "up", first)
            yield FrontEnd(url, admin, stack)
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _healthy(url: str, process: asyncio.subprocess.Process, folder: Path) -> bool:
    if process.returncode is not None:
        said = (folder / "log").read_text(errors="replace")[-2000:]
        raise AssertionError(f"Open WebUI ended: {said}")
    async with httpx2.AsyncClient(trust_env=False, timeout=2) as http:
        try:
            return (await http.get(f"{url}/health")).is_success
        except httpx2.HTTPError:
            await asyncio.sleep(0.5)
            return False
