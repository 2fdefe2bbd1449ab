"""The body of `/v1/chat/completions`: from JSON to a valid request or a clear refusal.

Parameters that we do not know are left out and named in a warning, so that a typing error is
seen; with `strict` they are refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import ErrorDetails

from master.api import errors
from master.api.chat_schema import REFUSED, WITHOUT_EFFECT, ChatRequest
from master.planning.question import Retrieval
from master.planning.remembered import Wish

MAX_TEXT_BYTES = 2_000_000
STRICT_HEADER = "x-millrace-strict"
WARNING_HEADER = "x-millrace-warning"

_NOT_PARAMETERS = WITHOUT_EFFECT | frozenset(
    {"model", "messages", "stream", "stream_options", "user", "metadata", "retrieval", "cache"}
    | {"conversation", "memory"}
)

_Body = TypeVar("_Body", bound=BaseModel)


@dataclass(frozen=True)
class ChatBody:
    """A valid chat request."""

    model: str
    messages: tuple[dict[str, JsonValue], ...]
    """As they came."""
    stream: bool
    include_usage: bool
    """The client wants a usage chunk at the end of the stream."""
    parameters: dict[str, JsonValue]
    """For the engine, without nulls."""
    user: str | None
    metadata: dict[str, str]
    images: int
    retrieval: Retrieval | None
    cache_seconds: int | None
    """How old an answer to the same may be; None: as the master is set."""
    wish: Wish | None
    """The conversation that it is a part of; None: of none."""
    warnings: tuple[str, ...]
    """For the `x-millrace-warning` header: printable ASCII."""


def parsed(model: type[_Body], raw: Mapping[str, JsonValue]) -> _Body:
    """A body as this model. Raises `ApiError` 400."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise refusal(error) from None


def parse_chat(body: Mapping[str, JsonValue], *, strict: bool = False) -> ChatBody:
    """Check the body of a chat completion. Raises `ApiError` 400 or 413."""
    chat = parsed(ChatRequest, body)
    _check_text_size(chat)
    unknown = unknown_fields(body, ChatRequest)
    warnings = warn_of(unknown, strict=strict)
    leave_out = _NOT_PARAMETERS.union(unknown)
    return ChatBody(
        model=chat.model,
        messages=tuple(cast(list[dict[str, JsonValue]], body["messages"])),
        stream=bool(chat.stream),
        include_usage=bool(chat.stream_options and chat.stream_options.include_usage),
        parameters={k: v for k, v in body.items() if k not in leave_out and v is not None},
        user=chat.user,
        metadata=chat.metadata or {},
        images=sum(message.images for message in chat.messages),
        retrieval=_retrieval(chat),
        cache_seconds=chat.cache,
        wish=_wish(chat),
        warnings=warnings,
    )


def _retrieval(chat: ChatRequest) -> Retrieval | None:
    if chat.retrieval is None:
        return None
    return Retrieval.model_validate(chat.retrieval.model_dump(exclude_none=True))


def _wish(chat: ChatRequest) -> Wish | None:
    if chat.conversation is None:
        return None
    return Wish(chat.conversation, chat.memory.recall if chat.memory else None)


def may_train(metadata: Mapping[str, str]) -> bool:
    """Whether a client lets its chat be used for training: anything but a yes is a no."""
    return str(metadata.get("millrace_training", "yes")).lower() in {"yes", "true", "on", "1"}


def unknown_fields(body: Mapping[str, JsonValue], model: type[BaseModel]) -> list[str]:
    """What a body has and its model does not know."""
    return sorted(body.keys() - model.model_fields.keys())


def warn_of(unknown: Sequence[str], *, strict: bool) -> tuple[str, ...]:
    """Printable ASCII for the `x-millrace-warning` header. Raises 400 where that is wanted."""
    if unknown and strict:
        message = f"unknown parameters: {_listed(unknown)}"
        raise errors.invalid_value(message, _shown(unknown[0]), "unknown_parameter")
    return (f"ignored unknown parameters: {_listed(unknown)}",) if unknown else ()


def _check_text_size(chat: ChatRequest) -> None:
    if sum(message.text_bytes for message in chat.messages) > MAX_TEXT_BYTES:
        raise errors.request_too_large(MAX_TEXT_BYTES, "the text of the messages", "messages")


_CODES = {"missing": "missing_required_parameter", "literal_error": "invalid_value"}
_WORDS = {
    "missing": "is required",
    "bool_type": "must be true or false",
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be a string",
    "list_type": "must be an array",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "literal_error": "must be one of: {expected}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "uuid_type": "must be a UUID",
    "uuid_parsing": "must be a UUID",
    "string_unicode": "contains invalid unicode",
    "too_short": "must not be empty",
    "too_long": "must have at most {max_length} items",
    "extra_forbidden": "is not known here",
    "value_error": "is not valid: {error}",
    REFUSED: "{words}",
}


def refusal(error: ValidationError) -> errors.ApiError:
    """The first thing that is wrong with a body, as a client is told."""
    first = error.errors(include_url=False, include_input=False)[0]
    context = first.get("ctx", {})
    param = _param(first)
    words = _WORDS[first["type"]].format(**context) if first["type"] in _WORDS else first["msg"]
    code = "invalid_type" if first["type"].endswith("_type") else "invalid_value"
    code = _CODES.get(first["type"], code)
    return errors.invalid_value(f"{param or 'the body'} {words}", param or None, code)


def _param(details: ErrorDetails) -> str:
    """The path of an error as a client would write it."""
    path = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}"
        for part in details["loc"]
        if not str(part).startswith("<")  # the tag of a union, not a field
    )
    field = details.get("ctx", {}).get("field", "")
    return f"{path}.{field}".strip(".")


def _listed(names: Sequence[str]) -> str:
    return ", ".join([_shown(name) for name in names[:20]] + ["..."] * (len(names) > 20))


def _shown(name: str) -> str:
    """A stranger's word, fit for a header: printable ASCII, and short."""
    return ascii(name)[1:-1][:64]
