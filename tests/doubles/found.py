"""Pieces of documents as retrieval finds them."""

from uuid import UUID

from master.planning.plan import Source


def a_source(chunk: int, text: str = "", **fields: object) -> Source:
    return Source.model_validate(
        {
            "number": 99,
            "chunk": chunk,
            "document": UUID(int=chunk // 10),
            "name": f"doc-{chunk // 10}.md",
            "position": chunk % 10,
            "text": text or f"What piece {chunk} says.",
            "score": 0.5,
            "rerank_score": 0.4,
            "steps": (),
            **fields,
        }
    )
