"""What a chat completion request may contain, parameter by parameter.

Types are strict (`"yes"` is not a bool, `true` is not an int), numbers have ranges, lists fail at
their first bad item: a long list of bad items must not make a long list of errors.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from master.api.images import BadImage, check_data_url
from master.planning.question import COLLECTION_NAME
from master.planning.remembered import NAME as CONVERSATION_NAME
from master.settings import MOST_CACHE_SECONDS

MAX_MESSAGES = 2048
MAX_TOOLS = 512
REFUSED = "millrace"
"""The type of validation errors that are in our own words."""


WITHOUT_EFFECT = frozenset(
    {"store", "service_tier", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"}
)


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


def _refuse(message: str, field: str = "") -> PydanticCustomError:
    """An error in our own words; `field` is appended to the path where it was raised."""
    return PydanticCustomError(REFUSED, "{words}", {"words": message, "field": field})


def _data_url(url: str) -> str:
    try:
        check_data_url(url)
    except BadImage as error:
        raise _refuse(str(error)) from None
    return url


def _bounded(most: int, longest_value: int) -> AfterValidator:
    def check(pairs: dict[str, Any]) -> dict[str, Any]:
        if len(pairs) > most or any(len(key) > 64 for key in pairs):
            raise _refuse(f"must have at most {most} keys of up to 64 characters")
        for key, value in pairs.items():
            if not isinstance(value, str) or len(value) > longest_value:
                raise _refuse(f"must be a string of up to {longest_value} characters", key)
        return pairs

    return AfterValidator(check)


Metadata = Annotated[dict[str, Any], _bounded(most=16, longest_value=512)]
"""As OpenAI has it."""


def _biases(pairs: dict[str, Any]) -> dict[str, Any]:
    if len(pairs) > 1024:
        raise _refuse("must have at most 1024 keys")
    for key, value in pairs.items():
        if type(value) not in {int, float} or not -100 <= value <= 100:
            raise _refuse("must be a number from -100 to 100", key[:64])
    return pairs


class _ImageUrl(_Strict):
    url: Annotated[str, AfterValidator(_data_url)]
    detail: Literal["auto", "low", "high"] | None = None


class _ContentPart(_Strict):
    type: Literal["text", "image_url", "refusal"]
    text: str | None = None
    image_url: _ImageUrl | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _has_what_it_says(self) -> Self:
        if getattr(self, self.type) is None:
            raise _refuse("is required", self.type)
        return self


def _content_tag(content: object) -> str:
    return "<parts>" if isinstance(content, list) else "<text>"


_Parts = Annotated[list[_ContentPart], Field(min_length=1, max_length=4096, fail_fast=True)]
_Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[_Parts, Tag("<parts>")], Discriminator(_content_tag)
]


class _CalledFunction(_Strict):
    name: str = Field(min_length=1, max_length=256)
    arguments: str


class _ToolCall(_Strict):
    id: str = Field(min_length=1, max_length=256)
    type: Literal["function"] = "function"
    function: _CalledFunction


class _Message(_Strict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: _Content | None = None
    name: str | None = Field(default=None, max_length=256)
    tool_calls: Annotated[list[_ToolCall], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = (
        None
    )
    tool_call_id: str | None = Field(default=None, min_length=1, max_length=256)

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        if self.role == "tool" and self.tool_call_id is None:
            raise _refuse("is required in a tool message", "tool_call_id")
        if self.tool_calls and self.role != "assistant":
            raise _refuse("is only for assistant messages", "tool_calls")
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise _refuse("is required", "content")
        if isinstance(self.content, list) and self.role != "user":
            for index, part in enumerate(self.content):
                if part.type == "image_url":
                    raise _refuse("images are only for user messages", f"content[{index}]")
        return self

    @property
    def images(self) -> int:
        """How many images it has."""
        return sum(part.image_url is not None for part in self.parts)

    @property
    def parts(self) -> Sequence[_ContentPart]:
        """Its content as parts; none when it is a string."""
        return self.content if isinstance(self.content, list) else ()

    @property
    def text_bytes(self) -> int:
        """How much an engine has to read."""
        texts = [self.content] if isinstance(self.content, str) else []
        texts += [part.text or part.refusal or "" for part in self.parts]
        texts += [call.function.arguments for call in self.tool_calls or ()]
        return sum(len(t) if t.isascii() else len(t.encode("utf-8", "replace")) for t in texts)


class _Function(_Strict):
    name: str = Field(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(_Strict):
    type: Literal["function"]
    function: _Function


class _FunctionName(_Strict):
    name: str


class _NamedTool(_Strict):
    type: Literal["function"]
    function: _FunctionName


class _Schema(_Strict):
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class _ResponseFormat(_Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None

    @model_validator(mode="after")
    def _has_a_schema(self) -> Self:
        if self.type == "json_schema" and self.json_schema is None:
            raise _refuse("is required", "json_schema")
        return self


class _StreamOptions(_Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


def _choice_tag(choice: object) -> str:
    return "<name>" if isinstance(choice, str) else "<function>"


def _stop_tag(stop: object) -> str:
    return "<list>" if isinstance(stop, list) else "<text>"


_ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<name>")]
    | Annotated[_NamedTool, Tag("<function>")],
    Discriminator(_choice_tag),
]
_StopText = Annotated[str, Field(min_length=1, max_length=1024)]
_Stop = Annotated[
    Annotated[_StopText, Tag("<text>")]
    | Annotated[list[_StopText], Field(max_length=16, fail_fast=True), Tag("<list>")],
    Discriminator(_stop_tag),
]
_Penalty = Annotated[float, Field(ge=-2, le=2)]
_Tokens = Annotated[int, Field(ge=1, le=1_000_000)]
_Share = Annotated[float, Field(ge=0, le=1)]


class RetrievalRequest(_Strict):
    """What a chat is to look up in documents; `{}` takes the defaults."""

    collection: str | None = Field(default=None, pattern=COLLECTION_NAME)
    top: Annotated[int, Field(ge=1, le=50)] | None = None
    candidates: Annotated[int, Field(ge=1, le=200)] | None = None
    filter: dict[str, Any] | None = None
    only: bool | None = None


class MemoryRequest(_Strict):
    """What a chat of a conversation is to remember beside it."""

    recall: bool | None = None


class ChatRequest(_Strict):
    """The body of `/v1/chat/completions`."""

    model: str = Field(min_length=1, max_length=1024)
    messages: Annotated[
        list[_Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)
    ]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    user: str | None = Field(default=None, max_length=512)
    metadata: Metadata | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: _Share | None = None
    top_k: Annotated[int, Field(ge=-1, le=1_000_000)] | None = None
    n: int | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    stop: _Stop | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: Annotated[dict[str, Any], AfterValidator(_biases)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    tools: Annotated[list[_Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: _ResponseFormat | None = None
    reasoning_effort: Annotated[str, Field(max_length=32)] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=8)] | None = None
    # Not OpenAI's, but widely sent, and understood by the engines.
    min_p: _Share | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    think: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    # Ours: what to look up in documents before answering.
    retrieval: RetrievalRequest | None = None
    # Ours: how many seconds old an answer to the same question may be; 0 is never.
    cache: Annotated[int, Field(ge=0, le=MOST_CACHE_SECONDS)] | None = None
    # Ours: the conversation that it goes on with; `new`, an id, or a name of the client's own.
    conversation: str | None = Field(default=None, pattern=CONVERSATION_NAME)
    memory: MemoryRequest | None = None
    # OpenAI's, accepted and without effect here; `WITHOUT_EFFECT` names them.
    store: bool | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.n not in {None, 1}:
            raise _refuse("must be 1: one request gives one choice", "n")
        if self.top_logprobs is not None and not self.logprobs:
            raise _refuse("needs `logprobs: true`", "top_logprobs")
        if isinstance(self.tool_choice, _NamedTool):
            name = self.tool_choice.function.name
            if name not in {tool.function.name for tool in self.tools or ()}:
                raise _refuse("is not among the tools", "tool_choice.function.name")
        elif self.tool_choice == "required" and not self.tools:
            raise _refuse("needs tools", "tool_choice")
        if self.memory is not None and self.conversation is None:
            raise _refuse("needs a conversation", "memory")
        return self
