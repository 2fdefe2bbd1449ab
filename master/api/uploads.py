"""The body of `POST /v1/documents`: files, a text or a URL, read within limits and looked into."""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from db.corpus import Origin
from master.api import errors
from master.api.bodies import parsed
from master.api.corpus_bodies import DocumentRequest, DocumentSettings, is_web
from master.api.strict_json import JsonLimits, parse_object, read_json
from master.retrieval.fetch import UrlNotAllowed
from master.retrieval.parsing.formats import sniff
from master.retrieval.parsing.parsed import ParseError
from master.settings import MasterSettings

MOST_FILES: Final = 100
_MOST_FIELDS: Final = 20
_SECONDS: Final = 300.0
_LONGEST_NAME: Final = 512
_SHOWN: Final = 200
"""Characters of a name in an error."""
_MOST_NAMED: Final = 20
_NAMELESS: Final = f"a document needs a name of 1 to {_LONGEST_NAME} characters"
_FILES: Final = frozenset({"files", "files[]", "file"})
_OBJECTS: Final = frozenset({"metadata", "chunking"})
_BOOLEANS: Final = {"true": True, "false": False}
_OBJECT_LIMITS: Final = JsonLimits(max_bytes=65_536)


@dataclass(frozen=True)
class Incoming:
    """A document as it came. `body`: None for a URL, which is fetched when it is ingested."""

    name: str
    origin: Origin
    body: bytes | None
    url: str | None = None
    media_type: str | None = None

    @property
    def digest(self) -> bytes:
        """The same digest is the same document."""
        # A text may be a URL too, and is another document than what the URL leads to.
        hashed = f"url\0{self.url}".encode() if self.body is None else self.body
        return hashlib.sha256(hashed).digest()


async def read_documents(
    request: Request, settings: MasterSettings
) -> tuple[DocumentSettings, list[Incoming]]:
    """What was sent. Raises `ApiError` 400, 408, 413 or 415 unless all of it is good."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        return await read_form(request, settings, _fields)
    if media_type == "application/json":
        body = parsed(DocumentRequest, await read_json(request))
        return body, [await from_json(body, settings)]
    message = "Content-Type must be multipart/form-data or application/json"
    raise errors.unsupported_media_type(message)


async def from_json(body: DocumentRequest, settings: MasterSettings) -> Incoming:
    """A text or a URL as a document. Raises `ApiError` 400, 413 or 415."""
    if body.url is not None:
        if not is_web(body.url):
            message = "url must begin with http:// or https:// and name a host"
            raise errors.invalid_value(message, "url", UrlNotAllowed.code)
        name = _plain(body.name or body.url, "name")
        return Incoming(name, Origin.URL, None, url=body.url)
    content, name = (body.text or "").encode(), _plain(body.name or "text.txt", "name")
    return await _looked_into(name, Origin.TEXT, content, settings, "text")


class _Form(MultiPartParser):
    """Refuses a form without its last boundary: the end may be missing, and a file with it."""

    ended = False

    def on_end(self) -> None:
        """The last boundary."""
        self.ended = True

    async def whole(self, pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        """The pieces, as long as they are followed by an end."""
        async for piece in pieces:
            yield piece
        if not self.ended:
            raise MultiPartException("the form ends before its last boundary")


async def read_form(
    request: Request,
    settings: MasterSettings,
    fields: Callable[[Mapping[str, str]], Mapping[str, JsonValue]],
) -> tuple[DocumentSettings, list[Incoming]]:
    """A form with files; `fields` makes settings of its texts, before any file is looked into.

    Raises what `fields` does, and `ApiError` 400, 408, 413 or 415.
    """
    _check_kind(request)
    pieces = _bounded(request, settings.max_upload_bytes)
    parser = _Form(
        request.headers,
        pieces,
        max_files=MOST_FILES,
        max_fields=_MOST_FIELDS,
        max_part_size=_OBJECT_LIMITS.max_bytes,
    )
    parser.stream = parser.whole(pieces)
    try:
        async with asyncio.timeout(_SECONDS):
            form = await parser.parse()
    except MultiPartException as error:
        raise errors.invalid_value(error.message.rstrip("."), code="invalid_form") from None
    except TimeoutError:
        raise errors.request_timeout(_SECONDS) from None
    try:
        texts, files = _sorted(form)
        return parsed(DocumentSettings, fields(texts)), await _read(files, settings)
    finally:
        await form.close()


def _check_kind(request: Request) -> None:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise errors.unsupported_media_type("Content-Type must be multipart/form-data")
    # The parser takes any codec of Python's: some make half characters, some raise what they like.
    if options.get(b"charset", b"utf-8").lower() not in {b"utf-8", b"utf8"}:
        raise errors.unsupported_media_type("the charset must be utf-8")


async def _bounded(request: Request, limit: int) -> AsyncGenerator[bytes]:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit:
        raise errors.request_too_large(limit)
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise errors.request_too_large(limit)
        yield piece


def _sorted(form: FormData) -> tuple[dict[str, str], list[UploadFile]]:
    """The texts and the files of a form. Raises 400."""
    texts: dict[str, str] = {}
    files: list[UploadFile] = []
    for name, value in form.multi_items():
        if name in _FILES:
            if isinstance(value, str):
                raise errors.invalid_value(f"{name} must be a file with a filename", name)
            files.append(value)
        elif isinstance(value, UploadFile):
            message = f"send files as `files`, not as {name[:64]!a}"
            raise errors.invalid_value(message, "files")
        elif "\0" in value:
            raise errors.invalid_value(f"{name[:64]!a} must not contain NUL characters", name)
        elif name in texts:
            raise errors.invalid_value(f"{name[:64]!a} is there twice", code="duplicate_key")
        else:
            texts[name] = value
    if not files:
        raise errors.invalid_value("files is required", "files", "missing_required_parameter")
    return texts, files


def _fields(texts: Mapping[str, str]) -> Mapping[str, JsonValue]:
    return {name: _field(name, value) for name, value in texts.items()}


def _field(name: str, value: str) -> JsonValue:
    if name == "replace":
        return _BOOLEANS.get(value.strip().lower(), value)
    if name not in _OBJECTS:
        return value
    try:
        found: Mapping[str, JsonValue] = parse_object(value.encode(), _OBJECT_LIMITS)
    except errors.ApiError as error:
        words = error.message.replace("the body", name)
        raise errors.invalid_value(words, name, error.code) from None
    return dict(found)


async def _read(files: list[UploadFile], settings: MasterSettings) -> list[Incoming]:
    """All of them, or none: the error names every file that cannot be taken."""
    found: list[Incoming] = []
    refused: list[errors.ApiError] = []
    for index, file in enumerate(files):
        try:
            found.append(await _looked_at(file, settings, f"files[{index}]"))
        except errors.ApiError as error:
            refused.append(error)
    if refused:
        raise _none_taken(refused, len(files))
    return found


async def _looked_at(file: UploadFile, settings: MasterSettings, where: str) -> Incoming:
    name = _name(file.filename or "", where)
    if (file.size or 0) > settings.max_document_bytes:
        raise _too_large(settings, where, f"{name[:_SHOWN]!a}")
    return await _looked_into(name, Origin.UPLOAD, await file.read(), settings, where)


def _none_taken(refused: Sequence[errors.ApiError], files: int) -> errors.ApiError:
    """The first error, which says all others too."""
    first = refused[0]
    if files == 1:
        return first
    said = [error.message for error in refused[:_MOST_NAMED]]
    if len(refused) > len(said):
        said.append(f"and {len(refused) - len(said)} more")
    message = f"none of the {files} files was taken: {'; '.join(said)}"
    return errors.ApiError(first.status, first.code, message, param=first.param)


async def _looked_into(
    name: str, origin: Origin, body: bytes, settings: MasterSettings, where: str
) -> Incoming:
    if len(body) > settings.max_document_bytes:
        raise _too_large(settings, where)
    try:
        # The client's own media type is not asked: it is guessed from the name, and often wrong.
        media_type = await asyncio.to_thread(sniff, body, name)
    except ParseError as error:
        message = f"{name[:_SHOWN]!a}: {error.message}"
        status = 400 if error.status == 422 else error.status
        raise errors.ApiError(status, error.code, message, param=where) from None
    return Incoming(name, origin, body, media_type=media_type.value)


def _too_large(settings: MasterSettings, where: str, what: str = "a document") -> errors.ApiError:
    return errors.request_too_large(settings.max_document_bytes, what, where)


def _name(filename: str, where: str) -> str:
    """A relative path with slashes: only a label, so nothing of it may look like another place."""
    path = re.sub(r"^[A-Za-z]:", "", _plain(filename, where)).replace("\\", "/")
    parts = [part.strip() for part in path.split("/")]
    plain = "/".join(part for part in parts if part not in {"", ".", ".."})
    if not 1 <= len(plain) <= _LONGEST_NAME:
        raise errors.invalid_value(_NAMELESS, where)
    return plain


def _plain(name: str, where: str) -> str:
    """On one line, and as it looks: names stand above their text in prompts and lists."""
    plain = "".join(c if c.isprintable() else " " if c.isspace() else "" for c in name).strip()
    if not plain:
        raise errors.invalid_value(_NAMELESS, where)
    return plain
