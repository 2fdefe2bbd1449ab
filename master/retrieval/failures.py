"""What became of an attempt that failed, and when there is another. Pure."""

import random
from dataclasses import dataclass
from typing import Any, Final

from db.chunks import DimensionTooLarge
from db.collections import DimensionMismatch
from master.outages import is_busy, is_outage
from master.retrieval.embedders.protocol import EmbeddingError
from master.retrieval.fetch import FetchFailed, UrlNotAllowed
from master.retrieval.parsing.parsed import ParseError
from master.retrieval.parsing.parser_process import ParserUnavailable
from queue_schemas.messages import ErrorKind

UNAVAILABLE: Final = "embedding_unavailable"
MISMATCH: Final = "embedding_model_mismatch"
LONGEST_PAUSE_SECONDS: Final = 300.0
_OURS: Final = frozenset({"bad_embedding", "model_not_found"})
"""Codes whose messages we wrote."""


@dataclass(frozen=True)
class Failure:
    """Why a document is not ready. `status`: as HTTP would say it."""

    code: str
    message: str
    status: int
    transient: bool = False

    def as_json(self) -> dict[str, Any]:
        """What is kept with the document."""
        return {"code": self.code, "message": self.message, "status": self.status}


_AWAY: Final = Failure("database_unavailable", "the database did not answer", 503, transient=True)
_BUSY: Final = Failure(
    "collection_busy", "others wrote into the same collection at this time", 503, transient=True
)
_NO_PARSER: Final = Failure(
    "parser_unavailable", "no process for reading documents starts now", 503, transient=True
)
_BUG: Final = Failure("internal_error", "the server had an error; see its log", 500)


def failure_of(error: Exception, collection: str) -> Failure:
    """What went wrong; whatever nobody foresaw is a bug, and trying again does not mend it."""
    match error:
        case ParseError() | UrlNotAllowed():
            message = getattr(error, "message", "this URL is not fetched")
            return Failure(error.code, message, error.status)
        case FetchFailed():
            return Failure(error.code, error.message, error.status, error.transient)
        case EmbeddingError():
            return _embedding(error)
        case DimensionMismatch():
            return Failure(MISMATCH, _mismatch(collection), 409)
        case DimensionTooLarge():
            return Failure("dimension_too_large", str(error), 422)
    return _here(error)


def _here(error: Exception) -> Failure:
    """What went wrong on our side."""
    if isinstance(error, ParserUnavailable):
        return _NO_PARSER
    if is_busy(error):
        return _BUSY
    return _AWAY if is_outage(error) else _BUG


def lost_too_often(tries: int) -> Failure:
    """The document ends whoever ingests it, or they are ended for another reason."""
    message = f"whoever ingested it ended before it was done, {tries} times"
    return Failure("ingest_lost", message, 500)


def pause_seconds(tries: int, first_seconds: float, chance: float | None = None) -> float:
    """Until the next attempt: three times as long each time, with up to half of jitter."""
    longest = min(first_seconds * 3.0 ** (tries - 1), LONGEST_PAUSE_SECONDS)
    return longest * (0.5 + 0.5 * (random.random() if chance is None else chance))


def _embedding(error: EmbeddingError) -> Failure:
    # The engine's own words may name addresses, and stay in the log.
    if error.kind is ErrorKind.TRANSIENT:
        message = f"the embedding model does not answer now ({error.code})"
        return Failure(UNAVAILABLE, message, 503, transient=True)
    if error.code in _OURS:
        return Failure(error.code, error.message, 422)
    return Failure(error.code, f"the embedding model cannot be used ({error.code})", 422)


def _mismatch(collection: str) -> str:
    return (
        f"the embedding model gives vectors of another dimension than the collection {collection} "
        f"has; embed all of it anew with `millrace reindex {collection}`"
    )
