"""What the body of `POST /v1/responses` may contain, and the same question as a chat.

Everything that chat completions check is checked there too, after the translation.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, Tag, model_validator
from pydantic_core import PydanticCustomError

from master.api.chat_schema import (
    MAX_MESSAGES,
    MAX_TOOLS,
    REFUSED,
    MemoryRequest,
    RetrievalRequest,
)
from master.planning.remembered import NAME as CONVERSATION_NAME

Message = dict[str, JsonValue]

WITHOUT_EFFECT = frozenset(
    {
        "include",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "stream_options",
        "truncation",
    }
)


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class _Unsupported(_Strict):
    """Whatever has a type that we do not know."""

    type: str = ""

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, value: object) -> object:
        kind = value.get("type") if isinstance(value, dict) else type(value).__name__
        words = f"has a type that is not supported here: {str(kind)[:64]!a}"
        raise PydanticCustomError(REFUSED, "{words}", {"words": words})

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: object, handler: object) -> dict[str, Any]:
        return {"not": {}}


def _tag(known: Iterable[str], absent: str = "<unsupported>") -> Discriminator:
    names = frozenset(known)

    def choose(value: object) -> str:
        kind = value.get("type", None) if isinstance(value, dict) else None
        if kind is None and isinstance(value, dict):
            return absent
        return f"<{kind}>" if isinstance(kind, str) and kind in names else "<unsupported>"

    return Discriminator(choose)


def _shape_tag(value: object) -> str:
    return "<list>" if isinstance(value, list) else "<text>"


class _TextPart(_Strict):
    type: Literal["input_text", "output_text"]
    text: str

    def as_chat(self) -> Message:
        return {"type": "text", "text": self.text}


class _ImagePart(_Strict):
    type: Literal["input_image"]
    image_url: str
    detail: Literal["auto", "low", "high"] | None = None

    def as_chat(self) -> Message:
        detail: Message = {"detail": self.detail} if self.detail else {}
        return {"type": "image_url", "image_url": {"url": self.image_url, **detail}}


class _RefusalPart(_Strict):
    type: Literal["refusal"]
    refusal: str

    def as_chat(self) -> Message:
        return {"type": "refusal", "refusal": self.refusal}


_Part = Annotated[
    Annotated[_TextPart, Tag("<input_text>")]
    | Annotated[_TextPart, Tag("<output_text>")]
    | Annotated[_ImagePart, Tag("<input_image>")]
    | Annotated[_RefusalPart, Tag("<refusal>")]
    | Annotated[_Unsupported, Tag("<unsupported>")],
    _tag(("input_text", "output_text", "input_image", "refusal")),
]
_Parts = Annotated[list[_Part], Field(min_length=1, max_length=4096, fail_fast=True)]
_Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[_Parts, Tag("<list>")], Discriminator(_shape_tag)
]


def _chat_content(content: str | list[Any]) -> JsonValue:
    """Parts as a chat has them; text alone is joined, which every engine understands."""
    if isinstance(content, str):
        return content
    if all(isinstance(part, _TextPart) for part in content):
        return "".join(part.text for part in content)
    return [part.as_chat() for part in content]


class _MessageItem(_Strict):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: _Content

    def as_chat(self) -> Message:
        return {"role": self.role, "content": _chat_content(self.content)}


class _FunctionCall(_Strict):
    type: Literal["function_call"]
    call_id: str = Field(min_length=1, max_length=256)
    name: str = Field(min_length=1, max_length=256)
    arguments: str

    def as_chat(self) -> Message:
        function: Message = {"name": self.name, "arguments": self.arguments}
        call: Message = {"id": self.call_id, "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}


class _FunctionCallOutput(_Strict):
    type: Literal["function_call_output"]
    call_id: str = Field(min_length=1, max_length=256)
    output: _Content

    def as_chat(self) -> Message:
        content = _chat_content(self.output)
        return {"role": "tool", "tool_call_id": self.call_id, "content": content}


class _Reasoning(_Strict):
    """What a model thought; clients send it back, and the next model makes its own thoughts."""

    type: Literal["reasoning"]


_Item = Annotated[
    Annotated[_MessageItem, Tag("<message>")]
    | Annotated[_FunctionCall, Tag("<function_call>")]
    | Annotated[_FunctionCallOutput, Tag("<function_call_output>")]
    | Annotated[_Reasoning, Tag("<reasoning>")]
    | Annotated[_Unsupported, Tag("<unsupported>")],
    _tag(("message", "function_call", "function_call_output", "reasoning"), "<message>"),
]
_Items = Annotated[list[_Item], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
_Input = Annotated[
    Annotated[str, Field(min_length=1), Tag("<text>")] | Annotated[_Items, Tag("<list>")],
    Discriminator(_shape_tag),
]


class _Tool(_Strict):
    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def as_chat(self) -> Message:
        function = self.model_dump(exclude={"type"}, exclude_none=True)
        return {"type": "function", "function": function}


class _NamedTool(_Strict):
    type: Literal["function"]
    name: str

    def as_chat(self) -> Message:
        return {"type": "function", "function": {"name": self.name}}


class _Format(_Strict):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None

    def as_chat(self) -> Message:
        if self.type != "json_schema":
            return {"type": self.type}
        fields = self.model_dump(exclude={"type"}, exclude_none=True, by_alias=True)
        return {"type": self.type, "json_schema": fields}


class _Text(_Strict):
    format: _Format | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class _Effort(_Strict):
    effort: Annotated[str, Field(max_length=32)] | None = None


class _StreamOptions(_Strict):
    include_obfuscation: bool | None = None


class _ConversationId(_Strict):
    id: str = Field(pattern=CONVERSATION_NAME)


_Conversation = Annotated[
    Annotated[str, Field(pattern=CONVERSATION_NAME), Tag("<text>")]
    | Annotated[_ConversationId, Tag("<object>")],
    Discriminator(lambda named: "<object>" if isinstance(named, dict) else "<text>"),
]
_ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<text>")]
    | Annotated[_NamedTool, Tag("<tool>")],
    Discriminator(lambda choice: "<tool>" if isinstance(choice, dict) else "<text>"),
]


class ResponsesRequest(_Strict):
    """The body of `POST /v1/responses`."""

    model: str = Field(min_length=1, max_length=1024)
    input: _Input
    instructions: str | None = None
    previous_response_id: Annotated[str, Field(max_length=128)] | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    tools: Annotated[list[_Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: _Text | None = None
    reasoning: _Effort | None = None
    metadata: dict[str, Any] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    retrieval: RetrievalRequest | None = None
    conversation: _Conversation | None = None
    memory: MemoryRequest | None = None
    # Accepted and without effect here; `WITHOUT_EFFECT` names them.
    include: Annotated[list[str], Field(max_length=64)] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None

    def as_chat(self, before: Sequence[Message]) -> dict[str, JsonValue]:
        """The same question as the body of a chat completion, after an earlier conversation."""
        text = self.text or _Text()
        fields: dict[str, JsonValue] = {
            "model": self.model,
            "messages": [*self._instructions(), *before, *self.messages()],
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_output_tokens,
            "tools": [tool.as_chat() for tool in self.tools] if self.tools else None,
            "tool_choice": _choice(self.tool_choice),
            "parallel_tool_calls": self.parallel_tool_calls,
            "response_format": text.format.as_chat() if text.format else None,
            "verbosity": text.verbosity,
            "reasoning_effort": self.reasoning.effort if self.reasoning else None,
            "metadata": self.metadata,
            "user": self.user,
            "seed": self.seed,
            "retrieval": self.retrieval.model_dump(exclude_none=True) if self.retrieval else None,
            "conversation": self.conversation_name,
            "memory": self.memory.model_dump(exclude_none=True) if self.memory else None,
        }
        return {name: value for name, value in fields.items() if value is not None}

    @model_validator(mode="after")
    def _goes_on_with_one_thing(self) -> Self:
        if self.conversation is not None and self.previous_response_id is not None:
            words = "cannot be combined with previous_response_id"
            raise PydanticCustomError(REFUSED, "{words}", {"words": words, "field": "conversation"})
        return self

    @property
    def conversation_name(self) -> str | None:
        """The conversation that it is to be a part of, as a chat names it."""
        named = self.conversation
        return named.id if isinstance(named, _ConversationId) else named

    def _instructions(self) -> list[JsonValue]:
        return [{"role": "system", "content": self.instructions}] if self.instructions else []

    def messages(self) -> list[Message]:
        """The input as chat messages."""
        if isinstance(self.input, str):
            return [{"role": "user", "content": self.input}]
        return list(_merged(item for item in self.input if not isinstance(item, _Reasoning)))


def _choice(choice: str | _NamedTool | None) -> JsonValue:
    return choice.as_chat() if isinstance(choice, _NamedTool) else choice


def _merged(items: Iterable[Any]) -> Iterator[Message]:
    """Calls that follow each other belong to one message of the assistant."""
    open_: Message | None = None
    for item in items:
        message: Message = item.as_chat()
        if open_ is not None and isinstance(item, _FunctionCall):
            calls, more = open_["tool_calls"], message["tool_calls"]
            open_["tool_calls"] = [*calls, *more]  # type: ignore[misc]  # both are lists
            continue
        if open_ is not None:
            yield open_
        open_ = message if isinstance(item, _FunctionCall) else None
        if open_ is None:
            yield message
    if open_ is not None:
        yield open_
