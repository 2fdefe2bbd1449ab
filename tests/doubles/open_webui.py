"""The part of Open WebUI 0.12.4 that Millrace reads and sets, as it was measured.

Its clock is `clock`, in whole seconds; a rating's version stays 0 whatever happens to it.
"""

import copy
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

Json = dict[str, Any]
PAGE = 30
KEY = "sk-admin"
EMAIL, PASSWORD, TOKEN = "admin@example.org", "a mill turns", "eyJ.a.session"


class OpenWebuiDouble:
    """An ASGI application; its state is changed by tests as its users would."""

    def __init__(self) -> None:
        self.reset()
        ratings, own, both = "/api/v1/evaluations", "/api/v1/auths", ["GET", "POST"]
        self._app = Starlette(
            routes=[
                Route(f"{ratings}/feedbacks/list", self._list),
                Route(f"{ratings}/feedbacks/all/ids", self._ids),
                Route(f"{ratings}/feedback/{{id}}", self._one),
                Route("/openai/config", self._connections),
                Route("/openai/config/update", self._connections, methods=["POST"]),
                Route("/api/v1/tasks/config", self._tasks),
                Route("/api/v1/tasks/config/update", self._tasks, methods=["POST"]),
                Route(f"{own}/admin/config", self._admin, methods=both),
                Route(f"{own}/api_key", self._api_key, methods=both),
                Route("/api/models", self._models),
                Route("/api/v1/models/base", self._records),
                Route("/api/v1/models/model/access/update", self._access, methods=["POST"]),
                Route("/api/version", self._version),
            ]
        )

    def reset(self) -> None:
        """A fresh installation."""
        self.clock = 1_795_220_000
        self.ratings: dict[str, Json] = {}
        self.asked: list[str] = []
        """Path and query of every call."""
        self.status: int | None = None
        """Answer everything with this status."""
        self.body: bytes | None = None
        """Answer everything with this body."""
        self.connections: Json = {
            "ENABLE_OPENAI_API": True,
            "OPENAI_API_BASE_URLS": ["https://api.openai.com/v1"],
            "OPENAI_API_KEYS": [""],
            "OPENAI_API_CONFIGS": {},
        }
        self.tasks: Json = {"TASK_MODEL": "", "TASK_MODEL_EXTERNAL": ""}
        self.admin: Json = {"ENABLE_API_KEYS": False, "ENABLE_MESSAGE_RATING": True}
        self.api_key: str | None = None
        self.served = ["mill", "millrace/auto"]
        """Models that it finds at the last connection."""
        self.records: dict[str, Json] = {}
        self.gone: set[str] = set()
        """Users that were deleted: the list leaves their ratings out, and nothing else does."""
        self.before_page: Callable[[int], None] = lambda number: None
        self.before_call: Callable[[], object] = lambda: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.before_call()
        query = scope["query_string"].decode()
        self.asked.append(scope["path"] + (f"?{query}" if query else ""))
        if self.status is not None or self.body is not None:
            content = self.body if self.body is not None else b'{"detail": "refused"}'
            answer = Response(content, self.status or 200, media_type="application/json")
        elif scope["path"] == "/api/v1/auths/signin":
            answer = await self._sign_in(Request(scope, receive))
        elif not self._knows(Request(scope).headers.get("authorization")):
            answer = JSONResponse({"detail": "Not authenticated"}, 401)
        else:
            await self._app(scope, receive, send)
            return
        await answer(scope, receive, send)

    def _knows(self, header: str | None) -> bool:
        keys = (KEY, TOKEN, *((self.api_key,) if self.api_key else ()))
        return header in {f"Bearer {key}" for key in keys}

    # --- what its users do ----------------------------------------------------------------------

    def rate(self, message: str, user: str, chat: str | None, thumb: int, **said: Any) -> str:
        """A click on a thumb; `said` are further fields of `data`. The rating's id."""
        id_ = str(uuid4())
        self.ratings[id_] = {
            "id": id_,
            "user_id": user,
            "version": 0,
            "type": "rating",
            "data": {
                "rating": thumb,
                "model_id": "mill",
                "sibling_model_ids": None,
                "reason": "",
                "comment": "",
                "details": {"rating": None},
                "tags": ["General"],
            }
            | said,
            "meta": {
                "model_id": "mill",
                "message_id": message,
                "message_index": 2,
                "chat_id": chat,
                "base_models": {"mill": None},
            },
            "snapshot": {"chat": {"id": chat, "history": {"messages": {}}}},
            "created_at": self.clock,
            "updated_at": self.clock,
        }
        return id_

    def change(self, id_: str, **said: Any) -> None:
        """What a further step of the user makes of a rating."""
        self.ratings[id_]["data"] |= said
        self.ratings[id_]["updated_at"] = self.clock

    def delete(self, id_: str) -> None:
        """An administrator deletes a rating."""
        del self.ratings[id_]

    # --- what administrators read ---------------------------------------------------------------

    async def _list(self, request: Request) -> Response:
        assert dict(request.query_params).keys() == {"order_by", "direction", "page"}
        assert request.query_params["order_by"] == "updated_at"
        number = int(request.query_params["page"])
        self.before_page(number)
        is_last_first = request.query_params["direction"] == "desc"
        there = [each for each in self.ratings.values() if each["user_id"] not in self.gone]
        found = sorted(there, key=lambda each: each["updated_at"], reverse=is_last_first)
        items = [
            {name: value for name, value in rating.items() if name != "snapshot"}
            | {"user": {"id": rating["user_id"], "name": "Somebody", "role": "user"}}
            for rating in found[(number - 1) * PAGE : number * PAGE]
        ]
        return JSONResponse({"items": items, "total": len(found)})

    async def _ids(self, request: Request) -> Response:
        names = ("id", "user_id", "created_at", "updated_at")
        return JSONResponse(
            [{name: rating[name] for name in names} for rating in self.ratings.values()]
        )

    async def _one(self, request: Request) -> Response:
        found = self.ratings.get(request.path_params["id"])
        if found is None:
            return JSONResponse({"detail": "We could not find what you're looking for :/"}, 404)
        return JSONResponse(copy.deepcopy(found))

    # --- what administrators set ----------------------------------------------------------------

    async def _sign_in(self, request: Request) -> Response:
        if await request.json() != {"email": EMAIL, "password": PASSWORD}:
            return JSONResponse({"detail": "The email or password provided is incorrect."}, 400)
        return JSONResponse({"token": TOKEN, "token_type": "Bearer", "role": "admin"})

    async def _connections(self, request: Request) -> Response:
        if request.method == "POST":
            self.connections = await request.json()
        return JSONResponse(self.connections)

    async def _tasks(self, request: Request) -> Response:
        if request.method == "POST":
            self.tasks = await request.json()
        return JSONResponse(self.tasks)

    async def _admin(self, request: Request) -> Response:
        if request.method == "POST":
            self.admin = await request.json()
        return JSONResponse(self.admin)

    async def _api_key(self, request: Request) -> Response:
        if not self.admin["ENABLE_API_KEYS"]:
            return JSONResponse({"detail": "API key creation is not allowed"}, 403)
        if request.method == "POST":
            self.api_key = f"sk-{uuid4().hex}"
        if self.api_key is None:
            return JSONResponse({"detail": "Oops! It looks like there's a hiccup."}, 404)
        return JSONResponse({"api_key": self.api_key})

    async def _models(self, request: Request) -> Response:
        last = len(self.connections["OPENAI_API_BASE_URLS"]) - 1
        found = [{"id": name, "name": name, "urlIdx": last} for name in self.served]
        return JSONResponse({"data": found if last > 0 else []})

    async def _records(self, request: Request) -> Response:
        return JSONResponse(list(self.records.values()))

    async def _access(self, request: Request) -> Response:
        body = await request.json()
        self.records[body["id"]] = {
            "id": body["id"],
            "base_model_id": None,
            "access_grants": [{"id": str(uuid4()), **grant} for grant in body["access_grants"]],
        }
        return JSONResponse(self.records[body["id"]])

    async def _version(self, request: Request) -> Response:
        return JSONResponse({"version": "0.12.4", "deployment_id": ""})
