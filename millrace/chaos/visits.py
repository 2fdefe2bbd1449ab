"""What clients saw: the records that invariants are checked on."""

from dataclasses import dataclass, field
from enum import StrEnum


class Errand(StrEnum):
    """What a client came for."""

    STREAM = "streamed chat"
    WHOLE = "chat in one piece"
    SPLIT = "split into three"
    RESPONSE = "background response"
    POLL = "polled response"
    LEAVE = "client that leaves"
    TWICE = "same key twice"


class Closing(StrEnum):
    """How the connection of a stream ended."""

    CLEAN = "clean"
    """The server ended it in order."""
    CUT = "cut"
    """It broke."""
    LEFT = "left"
    """The client went."""


@dataclass
class StreamSeen:
    """One opened stream."""

    url: str
    """The master."""
    terminals: list[str] = field(default_factory=list)
    """Its terminal events; there should be one."""
    done: int | None = None
    """How often it said `[DONE]`; None where the format has no such line."""
    asked_at: float | None = None
    """When it was asked for; None where nobody noted it."""
    closing: Closing | None = None
    """None: it is still open."""
    closed_at: float = 0.0
    reason: str = ""


@dataclass
class Visit:
    """One client and the one request that it wants answered."""

    errand: Errand
    prompt: str
    began_at: float
    key: str | None = None
    """Its Idempotency-Key."""
    request: str | None = None
    """The id, once the request was accepted."""
    streams: list[StreamSeen] = field(default_factory=list)
    text: str = ""
    state: str | None = None
    """The terminal state of the request as the client was told it."""
    code: str | None = None
    """The code of the error that it was told."""
    polled: list[str] = field(default_factory=list)
    """The states it saw, in order."""
    refusals: int = 0
    """Answers before the request was accepted, such as 503, and connections that failed."""
    left: bool = False
    first_text_seconds: float | None = None
    seconds: float | None = None
    """Until it was told the terminal state."""
    odd: list[str] = field(default_factory=list)
    """What the client could not make sense of."""
