"""What tells that somebody asks again, which says something of the earlier answer. Pure."""

import hashlib
from collections.abc import Sequence
from typing import Final

from pydantic import JsonValue
from pydantic_core import to_json

from db.asked import Asked, Message

_ANSWERED_AGAIN_SECONDS: Final = 30 * 24 * 3600.0
"""Open WebUI's button stays beside the answer, and says what it is for."""
_ASKED_AGAIN_SECONDS: Final = 3600.0
"""Who asks the same on another day may just want to know it again."""


def asked(
    messages: Sequence[dict[str, JsonValue]], end_user: str | None, message: Message | None
) -> Asked | None:
    """What is stored of a question that a person asks; None where nobody is known to ask it."""
    if message is not None and message.question is not None:
        named = "\0".join(("open webui", message.chat or "", message.question))
        return Asked(_digest(named.encode()), _ANSWERED_AGAIN_SECONDS, message)
    if end_user:
        return Asked(_digest(to_json(messages)), _ASKED_AGAIN_SECONDS, message)
    return Asked(message=message) if message else None


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
