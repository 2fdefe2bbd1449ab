"""The fields of a posted form, bounded and plain."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from master.api import errors
from master.api.strict_json import JsonLimits, read_body

_MOST_FIELDS = 200
_LIMITS = JsonLimits(max_bytes=2_000_000)
_URLENCODED = "application/x-www-form-urlencoded"


async def fields(request: Request) -> Mapping[str, str]:
    """The text fields of a posted form; of several with one name the last. Raises `ApiError` 4xx.

    Forms with files are not read here: strangers may post to the sign-in page.
    """
    kept: Mapping[str, str] | None = getattr(request.state, "fields", None)
    if kept is None:
        kept = request.state.fields = await _read(request)
    return kept


async def _read(request: Request) -> Mapping[str, str]:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    body = await read_body(request, _LIMITS)
    if body and kind != _URLENCODED:
        raise errors.unsupported_media_type("a form is sent as application/x-www-form-urlencoded")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError as error:  # of which UnicodeDecodeError is one
        raise errors.invalid_value("the form cannot be read") from error
    return _plain(pairs)


def _plain(pairs: list[tuple[str, str]]) -> Mapping[str, str]:
    for name, value in pairs:
        if "\0" in value:
            raise errors.invalid_value(f"{name[:100]!a} holds a NUL character", name[:100])
    return dict(pairs)
