"""Row 10: documents through the whole pipeline of a master, against its parts alone."""

import asyncio
import hashlib
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from bench.effort import Effort
from bench.retrieval_api import Api
from bench.retrieval_corpus import DIMENSION, Synthetic
from bench.retrieval_filling import filling
from bench.retrieval_search import EMBEDDING, MODELS
from bench.samples import Findings, Row, ratios
from bench.site import Millrace
from db import chunks, claims, collections, documents, drafts
from db.collections import Collection, NewCollection
from db.corpus import Origin, Strategy
from db.documents import NewDocument
from db.engine import create_engine
from db.tenancy import as_tenant
from master.retrieval.chunking import Draft
from master.retrieval.embedders.local_models import is_installed
from master.retrieval.embedders.registry import make_embedder
from queue_schemas.registry import Model

_WORDS: Final = 3000
"""Of a document, about."""
_CHUNKING: Final = {"method": "words", "size": 150, "overlap": 20}
_CHUNKS_ALONE: Final = 20
_DOCUMENTS_ALONE: Final = 20
"""That are published without the rest of the pipeline; the model alone reads a part of them."""
_DOCUMENTS_EMBEDDED: Final = 5
_STAGES: Final = ("parse", "chunk", "embed", "store")
_POLL_SECONDS: Final = 0.1
_SECONDS: Final = 1200.0
_LEASE_SECONDS: Final = 600.0


def ingest(mill: Millrace, effort: Effort) -> Findings:
    """Documents and chunks a second through a master, by words alone and with vectors."""
    ways = [Strategy.SPARSE]
    notes: list[str] = []
    if is_installed(EMBEDDING):
        ways.append(Strategy.HYBRID)
    else:
        notes.append(f"nothing was embedded: {EMBEDDING} is not installed")
    rows: list[Row] = []
    with closing(Api(mill)) as api:
        for way in ways:
            fresh, more = _through(mill, api, way, effort.documents)
            rows += fresh
            notes += more
    return Findings(tuple(rows), notes=tuple(notes))


def _through(mill: Millrace, api: Api, way: Strategy, count: int) -> tuple[list[Row], list[str]]:
    name = f"ingested-{way}"
    model = {} if way is Strategy.SPARSE else {"embedding_model": EMBEDDING}
    settings = {"strategy": way, "chunking": _CHUNKING, **model}
    api.send("POST", "/v1/collections", {"name": name, **settings})
    texts = _texts(count + 1)
    _ingest(api, name, texts[-1:])  # loads the parser and the model
    began = time.perf_counter()
    done = _ingest(api, name, texts[:count])
    seconds = time.perf_counter() - began
    cut = sum(each["progress"]["chunks"] for each in done)
    stages = {
        stage: sum(each["timings_ms"].get(stage, 0.0) for each in done) / cut for stage in _STAGES
    }
    published, embedded = asyncio.run(_alone(mill, way))
    parts = ", ".join(f"{stage} {number:.2f}" for stage, number in stages.items())
    alone = f"publishing alone {published:.2f}"
    if way is not Strategy.SPARSE:
        alone += f", the model alone {embedded:.2f}"
    rate, documents_rate = (cut / seconds,), (count / seconds,)
    bare = (1000 / (published + embedded),)
    rows = [
        Row("10", f"ingest, {way}", "documents per s", documents_rate),
        Row(
            *("10", f"ingest, {way}", "chunks per s", rate, "parts alone", bare),
            judged=ratios(rate, bare),
        ),
    ]
    return rows, [f"ingest, {way}, ms a chunk of {cut}: {parts}; {alone}"]


def _texts(count: int) -> list[str]:
    made = Synthetic(7)
    return ["\n\n".join(made.document(_WORDS // 150)) for _ in range(count)]


def _ingest(api: Api, collection: str, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Send documents and wait until all are ready."""
    sent = []
    for number, text in enumerate(texts):
        body = {"text": text, "name": f"{number}.txt", "collection": collection}
        sent += api.send("POST", "/v1/documents", body)["data"]
    end = time.monotonic() + _SECONDS
    done = []
    for each in sent:
        while (now := api.send("GET", f"/v1/documents/{each['id']}"))["state"] != "ready":
            if now["state"] == "failed" or time.monotonic() > end:
                raise RuntimeError(f"{now['name']} is {now['state']}: {now['error']}")
            time.sleep(_POLL_SECONDS)
        done.append(now)
    return done


async def _alone(mill: Millrace, way: Strategy) -> tuple[float, float]:
    """Milliseconds a chunk of publishing, and of the model, with nothing around them."""
    made = Synthetic(8)
    texts = [made.document(_CHUNKS_ALONE) for _ in range(_DOCUMENTS_ALONE)]
    engine = create_engine(mill.database_url, pool_size=1, name="bench")
    try:
        async with filling(mill.database_url) as connection:
            tenant = await connection.fetchval("SELECT tenant_id FROM millrace.api_keys")
        collection = await _collection(engine, tenant, way)
        times = [await _publish(engine, collection, made, some) for some in texts]
    finally:
        await engine.dispose()
    published = statistics.median(times) / _CHUNKS_ALONE
    return published, 0.0 if way is Strategy.SPARSE else await _embed(texts)


async def _collection(engine: AsyncEngine, tenant: UUID, way: Strategy) -> Collection:
    model = None if way is Strategy.SPARSE else EMBEDDING
    new = NewCollection(f"published-{way}", way, model)
    async with as_tenant(engine, tenant) as connection:
        collection = await collections.ensure(connection, tenant, new)
        if model is None:
            return collection
        return await collections.fix_dimension(connection, collection, DIMENSION)


async def _publish(
    engine: AsyncEngine, collection: Collection, made: Synthetic, texts: Sequence[str]
) -> float:
    """Milliseconds, with the commit. In one transaction, or the master would take the document."""
    digest = hashlib.sha256("".join(texts).encode()).digest()
    new = NewDocument(collection.id, "published", Origin.TEXT, digest)
    cut = [Draft(position, text, (), None) for position, text in enumerate(texts)]
    async with as_tenant(engine, collection.tenant) as connection:
        added, _ = await documents.add(connection, collection.tenant, new, b"")
        claimed = await claims.claim(connection, collection.tenant, added.id, _LEASE_SECONDS)
        assert claimed is not None
        await drafts.replace(connection, added.id, claimed.attempt, cut)
        if collection.dimension is not None:
            vectors = dict(enumerate(made.vectors(len(texts)).tolist()))
            await drafts.put_vectors(connection, added.id, claimed.attempt, vectors)
        began = time.perf_counter()
        await chunks.publish(connection, added.id, claimed.attempt, collection.embedding_model)
    return 1000 * (time.perf_counter() - began)


async def _embed(texts: Sequence[Sequence[str]]) -> float:
    """Milliseconds a chunk, in batches as the ingest sends them."""
    embedder = make_embedder(Model.model_validate(MODELS[0]))
    try:
        await embedder.check()
        times = []
        for some in texts[:_DOCUMENTS_EMBEDDED]:
            began = time.perf_counter()
            await embedder.embed(some)
            times.append(1000 * (time.perf_counter() - began))
    finally:
        await embedder.aclose()
    return statistics.median(times) / _CHUNKS_ALONE
