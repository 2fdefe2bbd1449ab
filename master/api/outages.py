"""An outage of what the master stands on is a 503 that says what is away, on every route."""

import contextlib
from collections.abc import Iterator

import structlog

from bus.protocol import BusError
from master.api import errors
from master.outages import is_busy, is_outage, said

log = structlog.get_logger(__name__)


def being_written() -> errors.ApiError:
    """Somebody else's transaction holds what this one wants."""
    message = "what this would change is being written by others just now; ask again soon"
    return errors.service_unavailable(message)


@contextlib.contextmanager
def answered() -> Iterator[None]:
    """Turn an outage of database or broker into the error that clients try again after."""
    try:
        yield
    except BusError as error:
        log.warning("api.outage", dependency="broker", error=said(error))
        raise errors.service_unavailable("the message broker does not answer") from error
    except Exception as error:
        if is_busy(error):
            log.warning("api.busy", error=said(error))
            raise being_written() from error
        if not is_outage(error):
            raise
        log.warning("api.outage", dependency="database", error=said(error))
        raise errors.service_unavailable("the database does not answer") from error
