"""`/docs`: the API reference, with nothing from elsewhere; also where the console is off."""

import asyncio

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from master.api import errors
from master.console.assets import Asset, as_answer, asset_of, assets, static
from master.console.frame import HEADERS
from master.console.pages import whole
from master.console.reference import reference

ROOT = "/docs"
_STATIC = frozenset({"console.css", "reference.css", "mark.svg"})


def install(app: FastAPI, *, console: bool) -> None:
    """Serve the reference of this application. `console`: there are other pages to go to."""
    kept: list[Asset] = []

    async def show_reference(request: Request) -> Response:
        """The page: made once, because what it describes does not change."""
        if not kept:
            # About two seconds: nobody's stream is to stand still meanwhile.
            kept.append(await asyncio.to_thread(_written, app, console=console))
        return _answer(kept[-1], request)

    app.router.routes += [
        Route(ROOT, show_reference, include_in_schema=False),
        Route(f"{ROOT}/static/{{name}}", show_style, include_in_schema=False),
    ]


def _written(app: FastAPI, *, console: bool) -> Asset:
    addresses = {name: static(name, ROOT) for name in _STATIC}
    told = reference(app.openapi())
    page = whole("reference.html", told=told, assets=addresses, console=console)
    return asset_of("reference.html", page.encode())


async def show_style(request: Request) -> Response:
    """What the page needs of the console's static files. Raises `ApiError` 404."""
    name = request.path_params["name"]
    if name not in _STATIC:
        raise errors.not_found("this file")
    return _answer(assets()[name], request)


def _answer(asset: Asset, request: Request) -> Response:
    answer = as_answer(asset, request)
    answer.headers.update(HEADERS)
    return answer
