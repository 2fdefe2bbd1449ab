"""What goes wrong when something is looked up, as errors of the API."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from master.api import errors
from master.retrieval.embedders.protocol import EmbeddingError
from master.retrieval.search import EmbeddingModelMismatch, UnknownCollection, WithoutVectors
from queue_schemas.messages import ErrorKind

log = structlog.get_logger(__name__)


@contextmanager
def answered(collection: str) -> Iterator[None]:
    """Raise the search's errors as `ApiError`."""
    try:
        yield
    except UnknownCollection:
        raise collection_not_found(collection) from None
    except WithoutVectors:
        message = f"the collection {collection!r} is sparse: it has words and no vectors"
        raise errors.invalid_value(message, "strategy") from None
    except EmbeddingModelMismatch as mismatch:
        raise errors.ApiError(409, "embedding_model_mismatch", str(mismatch)) from None
    except EmbeddingError as error:
        raise embedding_failure(error, f"the embedding model of {collection!r}") from error


def collection_not_found(name: str) -> errors.ApiError:
    """Also for one that is somebody else's."""
    message = f"there is no collection {name!r}; `millrace ingest` or POST /v1/documents makes it"
    return errors.ApiError(404, "collection_not_found", message, param="collection")


def embedding_failure(error: EmbeddingError, model: str) -> errors.ApiError:
    """What a client is told; the engine's own words may name addresses, and stay in the log."""
    if error.code == "context_length_exceeded":
        message = f"an input is longer than what {model} reads"
        return errors.invalid_value(message, "input", error.code)
    log.warning("embedding.failed", model=model, code=error.code, message=error.message)
    if error.kind is ErrorKind.TRANSIENT:
        return errors.service_unavailable(f"{model} does not answer now ({error.code})")
    message = f"{model} cannot embed ({error.code}); see the log of the server"
    return errors.ApiError(502, error.code, message, headers={"x-should-retry": "false"})
