"""The console's static files: in memory, and named by what is in them."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from master.api import errors

router = APIRouter(prefix="/console", include_in_schema=False)

_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
_FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Asset:
    """One file."""

    content: bytes
    zipped: bytes
    media_type: str
    version: str
    """Of the content."""


@cache
def assets() -> Mapping[str, Asset]:
    """All files, by name."""
    folder = files("master.console") / "static"
    return {file.name: asset_of(file.name, file.read_bytes()) for file in folder.iterdir()}


def asset_of(name: str, content: bytes) -> Asset:
    """A file of this name and content."""
    kind = _TYPES.get(name.rpartition(".")[2], "application/octet-stream")
    version = hashlib.sha256(content).hexdigest()[:12]
    return Asset(content, gzip.compress(content, mtime=0), kind, version)


def static(name: str, root: str = "/console") -> str:
    """The URL of a file, another one as soon as its content is another. Raises KeyError."""
    return f"{root}/static/{name}?v={assets()[name].version}"


@router.get("/static/{name}")
async def show_asset(name: str, request: Request) -> Response:
    """A file; for good where its version was asked for."""
    asset = assets().get(name)
    if asset is None:
        raise errors.not_found("this file")
    return as_answer(asset, request)


def as_answer(asset: Asset, request: Request) -> Response:
    """A file as this request takes it."""
    current = request.query_params.get("v") == asset.version
    headers = {"Cache-Control": _FOREVER if current else "no-cache", "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        zipped = headers | {"Content-Encoding": "gzip"}
        return Response(asset.zipped, headers=zipped, media_type=asset.media_type)
    return Response(asset.content, headers=headers, media_type=asset.media_type)
