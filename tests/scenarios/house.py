"""An installation that documents are thrown at, and an engine that embeds as it is told."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

import httpx2

from millrace.chaos.engine import Call, Send, serve
from millrace.chaos.stack import until
from tests import servers
from tests.doubles.embedding_engine import EmbeddingEngine
from tests.integration.master.mill import Mill, a_script, installation
from tests.integration.retrieval.ingests import embedding_entry

MOST_BYTES = 2_000_000
SPARSE = {"strategy": "sparse"}
Vectors = list[Any]


class Moody(EmbeddingEngine):
    """An engine that is good until it is told otherwise."""

    spoil: Callable[[Vectors], Any] | None = None
    page: bytes | None = None
    hangs = False

    async def answer(self, call: Call, send: Send) -> None:
        if self.hangs:
            await asyncio.sleep(30)
        if self.page is None:
            await super().answer(call, send)
            return
        headers = [(b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.page})

    def _vectors(self, texts: Any) -> Any:
        good = super()._vectors(texts)
        return self.spoil(good) if self.spoil else good


@dataclass
class House:
    """The installation, and the engine that embeds for it."""

    mill: Mill
    engine: Moody

    async def send(
        self, *files: tuple[str, bytes], collection: str = "papers", **fields: str
    ) -> httpx2.Response:
        form = [("files", file) for file in files]
        data = SPARSE | {"collection": collection} | fields
        return await self.mill.http.post("/v1/documents", files=form, data=data)

    async def say(self, **body: Any) -> httpx2.Response:
        return await self.mill.http.post("/v1/documents", json=body)

    async def end_of(self, answer: httpx2.Response) -> dict[str, Any]:
        """The one document of an answer, once it is ready or has failed."""
        assert answer.status_code == 202, answer.text
        [sent] = answer.json()["data"]

        async def ended() -> dict[str, Any] | None:
            found: dict[str, Any] = (await self.mill.http.get(f"/v1/documents/{sent['id']}")).json()
            return found if found["state"] in {"ready", "failed"} else None

        return await until(ended, 60)

    async def found(self, query: str, collection: str = "papers") -> list[str]:
        body = {"query": query, "collection": collection, "top": 20, "candidates": 20}
        answer = await self.mill.http.post("/v1/search", json=body)
        assert answer.status_code == 200, answer.text
        return [hit["text"] for hit in answer.json()["hits"]]

    async def stored(self, *tables: str, document: str) -> dict[str, int]:
        """How many rows of a document each table has, where it has any."""
        counts = {}
        for table in tables:
            query = f"SELECT count(*) FROM millrace.{table} WHERE document_id = :id"
            counts[table] = (await self.mill.rows(query, id=document))[0][0]
        return {table: count for table, count in counts.items() if count}

    async def still_works(self, collection: str = "papers", **fields: str) -> None:
        """A good document is ready soon, and is found by a word that only it has."""
        word = "sluice" + secrets.token_hex(4)
        text = f"The gate {word} turns."
        sent = await self.send((f"{word}.txt", text.encode()), collection=collection, **fields)
        assert (await self.end_of(sent))["state"] == "ready"
        assert text in await self.found(word, collection)


@contextlib.asynccontextmanager
async def a_house(postgres_url: str, template: str) -> AsyncGenerator[House]:
    """One installation on a database of its own, and one tenant, with quick retries."""
    url = servers.create_database(postgres_url, template=template)
    engine = Moody()
    try:
        with serve(engine) as engine_url:
            hasty = embedding_entry(engine_url, "hasty") | {"first_token_seconds": 1}
            async with installation(
                url,
                a_script(text="{prompt}"),
                {"name": "quoter", "provider": "extractive", "slots": 4},
                embedding_entry(engine_url, "vectors"),
                hasty,
                max_document_bytes=MOST_BYTES,
                max_upload_bytes=2 * MOST_BYTES,
                ingest_seconds=0.2,
                ingest_max_attempts=2,
                ingest_retry_seconds=0.05,
            ) as made:
                yield House(made, engine)
    finally:
        servers.drop_database(postgres_url, url)


def code(answer: httpx2.Response) -> tuple[int, str]:
    error = answer.json()["error"]
    return answer.status_code, error["code"]
