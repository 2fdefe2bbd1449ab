"""What an engine's own words and status codes say about a failure.

Engines agree on the words of an error more than on its status: running out of memory is a 500
here and a 400 there. The words decide first, then the status.
"""

import re
from typing import Final

from queue_schemas.messages import ErrorKind
from worker.providers.protocol import ProviderError

Diagnosis = tuple[ErrorKind, str]

BUSY: Final = (ErrorKind.TRANSIENT, "engine_busy")
FAULT: Final = (ErrorKind.TRANSIENT, "engine_error")
MALFORMED: Final = (ErrorKind.TRANSIENT, "upstream_malformed")
TIMEOUT: Final = (ErrorKind.TRANSIENT, "engine_timeout")
TRUNCATED: Final = (ErrorKind.TRANSIENT, "upstream_truncated")
UNREACHABLE: Final = (ErrorKind.TRANSIENT, "engine_unreachable")
LOADING: Final = (ErrorKind.TRANSIENT, "model_load_failed")
BAD_REQUEST: Final = (ErrorKind.PERMANENT, "bad_request")
MISCONFIGURED: Final = (ErrorKind.PERMANENT, "engine_misconfigured")
NO_MODEL: Final = (ErrorKind.PERMANENT, "model_not_found")
TOO_LONG: Final = (ErrorKind.PERMANENT, "context_length_exceeded")
UNAUTHORIZED: Final = (ErrorKind.PERMANENT, "engine_unauthorized")
UNSUPPORTED: Final = (ErrorKind.PERMANENT, "unsupported_by_model")
CRASHED: Final = (ErrorKind.POISON, "engine_crashed")
OUT_OF_MEMORY: Final = (ErrorKind.POISON, "engine_out_of_memory")

_SICK = (CRASHED, LOADING, MISCONFIGURED, NO_MODEL, OUT_OF_MEMORY, UNAUTHORIZED, UNREACHABLE)
SICKNESS: Final = frozenset(code for _, code in _SICK)
"""Failures that say more about the engine than about the subtask."""

_WORDS: Final[tuple[tuple[re.Pattern[str], Diagnosis], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE), diagnosis)
    for pattern, diagnosis in (
        (r"out of memory|cudamalloc|more system memory|insufficient memory", OUT_OF_MEMORY),
        (r"timed out waiting for .*(runner|server)|loading model|(failed|unable) to load", LOADING),
        (r"runner .*(terminated|stopped)|cuda error|segmentation fault", CRASHED),
        (r"context[ _](length|window|size|limit)|maximum context|exceeds .*context", TOO_LONG),
        (r"server busy|maximum pending|overloaded|at capacity", BUSY),
        (r"does not support (tools|thinking|images|vision|chat|insert|generate)", UNSUPPORTED),
        (r"model .*not found|no such model|model .*does not exist", NO_MODEL),
    )
)

_STATUS: Final[dict[int, Diagnosis]] = {
    401: UNAUTHORIZED,
    403: UNAUTHORIZED,
    404: NO_MODEL,
    408: TIMEOUT,
    409: BUSY,
    413: TOO_LONG,
    425: BUSY,
    429: BUSY,
    500: FAULT,
    502: UNREACHABLE,
    503: BUSY,
    504: TIMEOUT,
}


def diagnose(text: str, status: int | None = None) -> Diagnosis:
    """Judge an error by its words, then by its HTTP status; None: it came within the stream."""
    for pattern, diagnosis in _WORDS:
        if pattern.search(text):
            return diagnosis
    if status is None or status >= 500:
        return _STATUS.get(status or 500, FAULT)
    return _STATUS.get(status, BAD_REQUEST)


def failure(
    diagnosis: Diagnosis, message: str, retry_after_seconds: float | None = None
) -> ProviderError:
    """The error to raise. Long messages are cut: an engine may send a whole page."""
    kind, code = diagnosis
    return ProviderError(kind, code, message[:2000] or code, retry_after_seconds)
