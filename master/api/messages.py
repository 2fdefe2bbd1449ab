"""Which of Open WebUI's messages a request answers: by the headers of its connection."""

from starlette.datastructures import Headers

from db.asked import Message

TASK_HEADER = "x-millrace-task"
MESSAGE_HEADER = "x-millrace-message-id"
QUESTION_HEADER = "x-millrace-user-message-id"
CHAT_HEADER = "x-openwebui-chat-id"
USER_HEADER = "x-openwebui-user-id"

_MOST_CHARACTERS = 128
_MOST_OF_A_USER = 256


def message_id(headers: Headers) -> str | None:
    """The id of the message that is to be answered, if it is usable."""
    return _id(headers, MESSAGE_HEADER)


def message_of(headers: Headers) -> Message | None:
    """The message, where its rating could be told from a foreign one: its user must be known.

    Background prompts answer no message.
    """
    found, user = message_id(headers), headers.get(USER_HEADER)
    if found is None or not user or headers.get(TASK_HEADER):
        return None
    return Message(
        found,
        user[:_MOST_OF_A_USER],
        chat=_id(headers, CHAT_HEADER),
        question=_id(headers, QUESTION_HEADER),
    )


def _id(headers: Headers, name: str) -> str | None:
    """Variables without a value are sent as empty headers."""
    value = headers.get(name, "")
    return value if value and value.isprintable() and len(value) <= _MOST_CHARACTERS else None
