"""Sources of an answer in the words of each API. Pure."""

from collections.abc import Sequence
from typing import Any

from master.aggregation.citations import marks
from master.api import sse
from master.planning.plan import Source


def open_webui(sources: Sequence[Source]) -> bytes:
    """Events for Open WebUI, whose n-th source is what `[n]` in the answer points to."""
    return b"".join(
        sse.source(
            source.label,
            [source.text],
            identity=f"chunk-{source.chunk}",
            url=source.url,
            distances=[source.rerank_score],
        )
        for source in sources
    )


def url_citations(text: str, sources: Sequence[Source]) -> list[dict[str, Any]]:
    """The `annotations` of a chat message: where which document is cited."""
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": start,
                "end_index": end,
                "title": source.label,
                "url": source.url or f"/v1/documents/{source.document}",
            },
        }
        for start, end, source in marks(text, {one.number: one for one in sources})
    ]


def file_citations(text: str, sources: Sequence[Source]) -> list[dict[str, Any]]:
    """The `annotations` of a response's text."""
    return [
        {
            "type": "file_citation",
            "file_id": str(source.document),
            "filename": source.name,
            "index": start,
        }
        for start, _, source in marks(text, {one.number: one for one in sources})
    ]


def listed(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """The sources themselves: a field of our own, beside what the API knows."""
    return [source.model_dump(mode="json") for source in sources]
