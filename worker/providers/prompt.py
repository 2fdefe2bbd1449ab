"""Reading OpenAI chat messages."""

from collections.abc import Iterable, Mapping

from pydantic import JsonValue


def text_of(content: JsonValue) -> str:
    """The text of a message's content, whether it is a string or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


def question_of(messages: Iterable[Mapping[str, JsonValue]]) -> str:
    """The text of the last user message."""
    asked = [m for m in messages if m.get("role") == "user"]
    return text_of(asked[-1].get("content")) if asked else ""
