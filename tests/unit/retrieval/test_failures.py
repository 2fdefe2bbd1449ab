"""What a document is told of a failure, and when it is tried again."""

import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from db.chunks import DimensionTooLarge
from db.collections import DimensionMismatch
from master.retrieval.embedders.protocol import EmbeddingError
from master.retrieval.failures import failure_of, pause_seconds
from master.retrieval.fetch import FetchFailed, UrlNotAllowed
from master.retrieval.parsing.parsed import ParseError
from queue_schemas.messages import ErrorKind


def refused(sqlstate: str) -> DBAPIError:
    """What Postgres answers with that code."""
    cause = Exception("no")
    cause.sqlstate = sqlstate  # type: ignore[attr-defined] # as asyncpg's errors have it
    return DBAPIError("SELECT 1", None, cause)


AWAY = EmbeddingError(ErrorKind.TRANSIENT, "engine_unreachable", "http://10.0.0.7 is away")
BROKEN = EmbeddingError(ErrorKind.PERMANENT, "engine_unauthorized", "key sk-123 is wrong")
CASES: list[tuple[Exception, str, int, bool]] = [
    (ParseError("pdf_encrypted", "it has a password"), "pdf_encrypted", 422, False),
    (ParseError("bad_media_type", "not a PDF"), "bad_media_type", 415, False),
    (UrlNotAllowed(), "url_not_allowed", 400, False),
    (FetchFailed("fetch_failed", "404", status=404), "fetch_failed", 404, False),
    (FetchFailed("fetch_failed", "503", transient=True), "fetch_failed", 502, True),
    (AWAY, "embedding_unavailable", 503, True),
    (BROKEN, "engine_unauthorized", 422, False),
    (DimensionMismatch("8, not 16"), "embedding_model_mismatch", 409, False),
    (DimensionTooLarge("4096 dimensions"), "dimension_too_large", 422, False),
    (OperationalError("SELECT 1", None, OSError()), "database_unavailable", 503, True),
    (refused("55P03"), "collection_busy", 503, True),
    (refused("40P01"), "collection_busy", 503, True),
    (KeyError("secret"), "internal_error", 500, False),
]


@pytest.mark.parametrize(("error", "code", "status", "transient"), CASES, ids=lambda v: str(v)[:20])
def test_every_way_to_fail_has_a_code(
    error: Exception, code: str, status: int, transient: bool
) -> None:
    failure = failure_of(error, "letters")
    assert (failure.code, failure.status, failure.transient) == (code, status, transient)
    assert failure.as_json().keys() == {"code", "message", "status"}


@pytest.mark.parametrize("error", [AWAY, BROKEN, KeyError("secret")], ids=["away", "key", "bug"])
def test_what_is_inside_stays_inside(error: Exception) -> None:
    message = failure_of(error, "letters").message
    assert not {"10.0.0.7", "sk-123", "secret"} & set(message.replace("'", " ").split())


def test_pauses_grow_and_are_bounded() -> None:
    longest = [pause_seconds(tries, 5.0, chance=1.0) for tries in range(1, 8)]
    assert longest == [5, 15, 45, 135, 300, 300, 300]
    assert pause_seconds(1, 5.0, chance=0.0) == 2.5
    assert 2.5 <= pause_seconds(1, 5.0) <= 5.0
