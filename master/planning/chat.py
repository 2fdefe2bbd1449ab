"""Reading and rewriting OpenAI chat messages."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

ChatMessage = dict[str, JsonValue]

_CHARACTERS_PER_TOKEN = 4
_FIRST_WIDE_CHARACTER = "\u2e80"
"""From here on (Chinese, Japanese, Korean, emoji) a character is about a token."""
_TOKENS_PER_MESSAGE = 4
_TOKENS_PER_IMAGE = 800


def text_of(message: Mapping[str, JsonValue]) -> str:
    """The text of a message; the text parts of a multimodal one, joined."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


def with_text(message: Mapping[str, JsonValue], text: str) -> ChatMessage:
    """The message with another text; images and other parts stay, after the text."""
    content = message.get("content")
    if not isinstance(content, list):
        return {**message, "content": text}
    others = [part for part in content if not _is_text(part)]
    return {**message, "content": [{"type": "text", "text": text}, *others]}


def in_words(message: Mapping[str, JsonValue]) -> ChatMessage:
    """The message with a note in the place of each image or other part."""
    content = message.get("content")
    if not isinstance(content, list):
        return dict(message)
    note: JsonValue = {"type": "text", "text": "[image]"}
    noted = [part if _is_text(part) else note for part in content]
    return {**message, "content": noted}


def last_user(messages: Sequence[Mapping[str, JsonValue]]) -> int | None:
    """The place of the last message of the user."""
    places = range(len(messages) - 1, -1, -1)
    return next((place for place in places if messages[place].get("role") == "user"), None)


def has_images(messages: Sequence[Mapping[str, JsonValue]]) -> bool:
    """Whether any message carries something else than text."""
    return any(
        isinstance(content := message.get("content"), list)
        and any(not _is_text(part) for part in content)
        for message in messages
    )


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has, for decisions and never for bills."""
    if text.isascii():
        return -(-len(text) // _CHARACTERS_PER_TOKEN)
    wide = sum(character >= _FIRST_WIDE_CHARACTER for character in text)
    return wide - (wide - len(text)) // _CHARACTERS_PER_TOKEN


def estimate_chat_tokens(messages: Sequence[Mapping[str, JsonValue]]) -> int:
    """About how many tokens a chat has as a prompt."""
    return sum(_message_tokens(message) for message in messages)


def _message_tokens(message: Mapping[str, JsonValue]) -> int:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    images = sum(not _is_text(part) for part in parts)
    return _TOKENS_PER_MESSAGE + estimate_tokens(text_of(message)) + images * _TOKENS_PER_IMAGE


def _is_text(part: JsonValue) -> bool:
    return isinstance(part, dict) and part.get("type") == "text"
