"""What to do about a document that failed. Pure; docs/operations.md says more."""

from collections.abc import Mapping
from typing import Any, Final

_DAMAGED: Final = "Open it with the program that made it, save it again and upload that."
_SPLIT: Final = "Split it into smaller documents and upload those."
_OTHER_KIND: Final = "Save it as PDF, Word, HTML, Markdown, text, CSV or JSON."
_LOG: Final = "See the log of the server; then try again."

_REMEDIES: Final[Mapping[str, str]] = {
    "embedding_unavailable": "Start or mend the embedding model, then try again.",
    "embedding_model_mismatch": "Embed the collection anew: millrace reindex {collection}",
    "bad_embedding": "See the log of the embedding model's engine; then try again.",
    "dimension_too_large": "Use an embedding model with fewer dimensions.",
    "url_not_allowed": "Only public web addresses are fetched, unless MILLRACE_FETCH_PRIVATE=true.",
    "fetch_failed": "Look at the address in a browser; then try again.",
    "no_text": "It has only pictures: recognise its text first, and upload that.",
    "pdf_encrypted": "Save it without a password and upload that.",
    "pdf_empty": _DAMAGED,
    "pdf_truncated": _DAMAGED,
    "docx_damaged": _DAMAGED,
    "parse_failed": _DAMAGED,
    "bad_csv": _DAMAGED,
    "bad_json": _DAMAGED,
    "zip_bomb": _DAMAGED,
    "zip_unsafe": _DAMAGED,
    "bad_media_type": _OTHER_KIND,
    "parse_limit": _SPLIT,
    "pdf_too_large": _SPLIT,
    "too_large": _SPLIT,
    "too_many_chunks": "Split it, or choose larger chunks for its collection.",
    "ingest_lost": "See the log of masters or Celery workers; then try again.",
    "internal_error": _LOG,
}


def remedy(error: Mapping[str, Any] | None, collection: str) -> str | None:
    """A sentence; None without an error, and for one that passes by itself."""
    if error is None:
        return None
    said = _REMEDIES.get(str(error.get("code")))
    if said is None:
        return _LOG if error.get("status") == 500 else None
    return said.replace("{collection}", collection)
