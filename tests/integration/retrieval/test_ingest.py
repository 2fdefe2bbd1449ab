"""From stored content to chunks that can be found, with everything that may come in between."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from db import claims, collections, documents, drafts
from db.corpus import Origin, Strategy
from db.documents import NewDocument
from db.tenancy import as_tenant
from master.batch.embedded import EmbeddedIngest
from master.retrieval.ingest import Outcome, due, ingest
from millrace.chaos.engine import Reply, serve
from millrace.chaos.stack import until
from queue_schemas.states import DocumentStage, DocumentState
from tests.doubles.embedding_engine import EmbeddingEngine
from tests.integration.retrieval.ingests import WORDS, Bench, bench

FEW = {"ingest_batch": 3, "ingest_max_attempts": 3, "ingest_retry_seconds": 600}
"""A pause that no machine that stands still outlasts; who wants it to be over says so."""
SMALL = {"method": "words", "size": 4, "overlap": 0}
TEXT = " ".join(f"word{n}" for n in range(40))
TEN = [" ".join(f"word{n}" for n in range(start, start + 4)) for start in range(0, 40, 4)]


class Switch:
    """One server for all tests, each with an engine of its own."""

    engine = EmbeddingEngine()

    async def __call__(self, scope: object, receive: object, send: object) -> None:
        await self.engine(scope, receive, send)  # type: ignore[arg-type]  # ASGI's are Any


def gated(engine: EmbeddingEngine, first: int = 0) -> threading.Event:
    """It answers only while this is set, and the first calls in any case."""
    may, answer = threading.Event(), engine.answer
    may.set()

    async def later(call: Any, send: Any) -> None:
        while not may.is_set() and len(engine.calls) > first:  # noqa: ASYNC110 - another thread's
            await asyncio.sleep(0.01)
        await answer(call, send)

    engine.answer = later  # type: ignore[method-assign]  # to wait is all it is for
    return may


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long lease, which no machine that stands still outlasts, is renewed ten times a second."""
    monkeypatch.setattr("master.retrieval.ingest._RENEWALS", 600)


@pytest.fixture(scope="module")
def switch() -> Iterator[tuple[Switch, str]]:
    made = Switch()
    with serve(made) as url:
        yield made, url


@pytest.fixture
async def here(
    engine: AsyncEngine, tenant: UUID, switch: tuple[Switch, str]
) -> AsyncGenerator[Bench]:
    made, url = switch
    made.engine = EmbeddingEngine()
    async with bench(engine, tenant, made.engine, url, **FEW) as ready:
        yield ready


async def test_a_document_is_cut_embedded_and_stored_and_every_stage_is_timed(here: Bench) -> None:
    document = await here.add(TEXT, chunking=SMALL)
    assert await here.ingest(document) is Outcome.READY
    assert await here.texts(document) == TEN
    now = await here.now(document)
    assert (now.state, now.chunk_count, now.embedded_count) == (DocumentState.READY, 10, 10)
    assert set(now.timings) == set(DocumentStage)
    assert all(value >= 0 for value in now.timings.values())
    models = await here.rows("SELECT DISTINCT embedded_by FROM millrace.chunks")
    assert [row[0] for row in models] == ["mill"]
    (dimension,) = await here.rows("SELECT dimension FROM millrace.collections")
    assert dimension[0] == here.model.dimension
    assert await here.rows("SELECT 1 FROM millrace.drafts") == []


async def test_without_vectors_no_model_is_asked(here: Bench) -> None:
    document = await here.add(TEXT, chunking=SMALL, strategy=WORDS, embedding_model=None)
    assert await here.ingest(document) is Outcome.READY
    assert await here.texts(document) == TEN
    assert here.model.calls == []
    assert set((await here.now(document)).timings) == {"parse", "chunk", "store"}


async def test_a_document_is_done_once_however_often_it_is_asked_for(here: Bench) -> None:
    document = await here.add(TEXT, chunking=SMALL)
    outcomes = await asyncio.gather(*(here.ingest(document) for _ in range(4)))
    assert sorted(outcomes) == [Outcome.NOT_OURS] * 3 + [Outcome.READY]
    assert await here.ingest(document) is Outcome.NOT_OURS
    assert await here.texts(document) == TEN
    assert await ingest(here.work, uuid4(), document.id) is Outcome.NOT_OURS
    assert await ingest(here.work, here.tenant, uuid4()) is Outcome.NOT_OURS


async def test_a_model_that_does_not_answer_is_asked_again_later_and_then_given_up(
    here: Bench,
) -> None:
    document = await here.add(TEXT, chunking=SMALL)
    here.model.reply = Reply(status=503)
    for _ in range(2):
        assert await here.ingest(document) is Outcome.AGAIN
        now = await here.now(document)
        assert now.state is DocumentState.WAITING
        assert now.available_at > now.updated_at
        assert await due(here.work, 10) == []
        await here.due_now(document)
    assert await here.ingest(document) is Outcome.FAILED
    error = (await here.now(document)).error
    assert error is not None
    assert (error["code"], error["status"]) == ("embedding_unavailable", 503)
    here.model.reply = Reply()
    async with as_tenant(here.engine, here.tenant) as connection:
        assert await documents.retry(connection, here.tenant, document.id)
    assert await here.ingest(document) is Outcome.READY


async def test_what_was_embedded_is_not_embedded_again(here: Bench) -> None:
    document = await here.add(TEXT, chunking=SMALL)
    may = gated(here.model, first=4)  # not all of them: what the model is comes before
    may.clear()
    stopped = asyncio.create_task(here.ingest(document))

    async def some() -> bool:
        found = await here.rows("SELECT 1 FROM millrace.drafts WHERE embedding IS NOT NULL")
        return len(found) >= 3

    await until(some, 60)
    stopped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopped
    may.set()
    async with as_tenant(here.engine, here.tenant) as connection:
        _, embedded = await drafts.counts(connection, document.id)
    before = sum(len(batch) for batch in here.model.batches)
    # Given back at once, so nobody has to wait for its lease, and it is no try that failed.
    assert (await here.now(document)).tries == 0
    assert await here.ingest(document) is Outcome.READY
    asked = sum(len(batch) for batch in here.model.batches) - before
    assert asked == 10 - embedded
    assert await here.texts(document) == TEN


async def test_an_attempt_that_lost_its_document_writes_nothing_more(here: Bench) -> None:
    document = await here.add(TEXT, chunking=SMALL)
    async with as_tenant(here.engine, here.tenant) as connection:
        claimed = await claims.claim(connection, here.tenant, document.id, 60)
    assert claimed is not None
    assert await here.ingest(document) is Outcome.NOT_OURS
    await here.due_now(document)  # its lease ran out: somebody else takes it
    assert await here.ingest(document) is Outcome.READY
    async with as_tenant(here.engine, here.tenant) as connection:
        assert not await claims.fail(connection, document.id, claimed.attempt, {"code": "x"})
    assert await here.texts(document) == TEN


async def test_a_document_whose_ingests_all_died_is_given_up(here: Bench) -> None:
    document = await here.add(TEXT)
    for _ in range(3):
        async with as_tenant(here.engine, here.tenant) as connection:
            assert await claims.claim(connection, here.tenant, document.id, 60)
        await here.due_now(document)
    assert await here.ingest(document) is Outcome.FAILED
    assert (await here.now(document)).error == {
        "code": "ingest_lost",
        "message": "whoever ingested it ended before it was done, 3 times",
        "status": 500,
    }


@pytest.mark.usefixtures("often")
async def test_the_lease_is_kept_while_a_model_takes_its_time(
    engine: AsyncEngine, tenant: UUID, switch: tuple[Switch, str]
) -> None:
    made, url = switch
    made.engine = slow = EmbeddingEngine()
    may = gated(slow)
    async with bench(engine, tenant, slow, url, ingest_lease_seconds=60) as here:
        # What the model is asked once, and what renews the lease beside the clock, comes before.
        assert await here.ingest(await here.add("zero", "zero.txt")) is Outcome.READY
        may.clear()
        document, asked = await here.add("one two"), len(slow.calls)
        running = asyncio.create_task(here.ingest(document))
        await slow.wait_for(lambda: len(slow.calls) > asked)
        query = "SELECT lease_until FROM millrace.documents WHERE id = :id"
        seen: set[datetime] = set()

        async def kept() -> bool:
            [row] = await here.rows(query, id=document.id)
            seen.add(row.lease_until)
            return len(seen) > 2

        await until(kept, 60)
        assert await due(here.work, 10) == []
        may.set()
        assert await running is Outcome.READY


@pytest.mark.parametrize(
    ("body", "name", "code", "status"),
    [
        (b"%PDF-1.7 and then nothing", "broken.pdf", "pdf_truncated", 422),
        (b" \n\t ", "blank.txt", "empty_document", 422),
        (b"{not json", "bad.json", "bad_json", 422),
    ],
)
async def test_what_cannot_be_read_fails_at_once_with_its_reason(
    here: Bench, body: bytes, name: str, code: str, status: int
) -> None:
    document = await here.add(body, name)
    assert await here.ingest(document) is Outcome.FAILED
    now = await here.now(document)
    assert now.error is not None
    assert (now.state, now.error["code"], now.error["status"]) == ("failed", code, status)
    assert now.tries == 1


async def test_another_dimension_fails_with_the_command_that_helps(here: Bench) -> None:
    assert await here.ingest(await here.add(TEXT, collection="letters")) is Outcome.READY
    here.model.dimension = 8
    document = await here.add("other words", collection="letters")
    assert await here.ingest(document) is Outcome.FAILED
    error = (await here.now(document)).error
    assert error is not None
    assert (error["code"], error["status"]) == ("embedding_model_mismatch", 409)
    assert "`millrace reindex letters`" in error["message"]
    async with as_tenant(here.engine, here.tenant) as connection:
        await collections.change(connection, here.tenant, "letters", embedding_model="mill")
    for tenant, identity in await due(here.work, 10):
        assert await ingest(here.work, tenant, identity) is Outcome.READY
    dimensions = "SELECT DISTINCT extensions.vector_dims(embedding) FROM millrace.chunks"
    assert [row[0] for row in await here.rows(dimensions)] == [8]


async def test_a_model_that_left_the_registry_is_named(here: Bench) -> None:
    document = await here.add(TEXT, embedding_model="gone")
    assert await here.ingest(document) is Outcome.FAILED
    error = (await here.now(document)).error
    assert error is not None
    assert error["code"] == "model_not_found"
    assert "'gone'" in error["message"]


async def test_vectors_without_a_direction_are_refused(here: Bench) -> None:
    here.model.vectors = [[0.0] * 16]
    document = await here.add("one two three")
    assert await here.ingest(document) is Outcome.FAILED
    error = (await here.now(document)).error
    assert error is not None
    assert error["code"] == "bad_embedding"


async def test_a_url_of_this_machine_is_not_fetched(here: Bench) -> None:
    document = await here.add("unused", strategy=Strategy.SPARSE, embedding_model=None)
    url = "http://127.0.0.1:1/secret"
    new = NewDocument(document.collection_id, url, Origin.URL, b"u" * 32, url=url)
    async with as_tenant(here.engine, here.tenant) as connection:
        stored, _ = await documents.add(connection, here.tenant, new, None)
    assert await here.ingest(stored) is Outcome.FAILED
    error = (await here.now(stored)).error
    assert error is not None
    assert (error["code"], error["status"]) == ("url_not_allowed", 400)
    assert "127.0.0.1" not in error["message"]


async def test_a_document_that_is_deleted_meanwhile_leaves_nothing(here: Bench) -> None:
    document = await here.add(TEXT, chunking=SMALL)
    running = asyncio.create_task(here.ingest(document))

    async def cut() -> bool:
        return bool(await here.rows("SELECT 1 FROM millrace.drafts"))

    await until(cut, 60)
    async with as_tenant(here.engine, here.tenant) as connection:
        await documents.remove(connection, here.tenant, document.id)
    assert await running in {Outcome.NOT_OURS, Outcome.READY}
    for table in ("documents", "drafts", "chunks", "chunk_terms", "terms"):
        assert await here.rows(f"SELECT 1 FROM millrace.{table}") == [], table


async def test_two_loops_share_what_waits_and_each_document_is_done_once(here: Bench) -> None:
    waiting = [await here.add(f"text number {n}", f"{n}.txt") for n in range(8)]
    loops = [EmbeddedIngest(here.work), EmbeddedIngest(here.work)]
    tasks = [asyncio.create_task(loop.run()) for loop in loops]

    async def all_ready() -> bool:
        states = await here.rows("SELECT state, tries, attempt FROM millrace.documents")
        return all(row.state == "ready" for row in states)

    await until(all_ready, 60)
    late = await here.add("one more", "late.txt")
    loops[0].announce([(here.tenant, late.id)])
    await until(all_ready, 60)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for document in [*waiting, late]:
        assert len(await here.texts(document)) == 1
        assert (await here.now(document)).attempt == 1


@pytest.mark.usefixtures("often")
async def test_who_finds_its_lease_taken_stops_at_once(
    engine: AsyncEngine, tenant: UUID, switch: tuple[Switch, str]
) -> None:
    made, url = switch
    made.engine = slow = EmbeddingEngine()
    may = gated(slow)
    async with bench(engine, tenant, slow, url, ingest_lease_seconds=60) as here:
        # The model is checked before, so that what it never answers is about the document.
        assert await here.ingest(await here.add("zero", "zero.txt")) is Outcome.READY
        may.clear()
        document = await here.add(TEXT)
        running = asyncio.create_task(here.ingest(document))

        async def cut() -> bool:
            return bool(await here.rows("SELECT 1 FROM millrace.drafts"))

        await until(cut, 60)
        async with as_tenant(here.engine, here.tenant) as connection:
            await collections.change(connection, here.tenant, "default", language="german")
        assert await running is Outcome.NOT_OURS
        now = await here.now(document)
        assert (now.state, now.attempt) == (DocumentState.WAITING, 1)


async def test_a_text_of_more_tokens_than_the_model_takes_is_one_chunk_all_the_same(
    here: Bench,
) -> None:
    here.model.longest = 60
    codes = " ".join(f"PN-{number:04}/B" for number in range(20))
    document = await here.add(codes + " the end", chunking=SMALL | {"size": 20})
    assert await here.ingest(document) is Outcome.READY
    assert await here.texts(document) == [codes, "the end"]
    rows = await here.rows("SELECT extensions.vector_norm(embedding) FROM millrace.chunks")
    assert [row[0] for row in rows] == [pytest.approx(1), pytest.approx(1)]


async def test_a_collection_with_chunks_that_are_not_allowed_any_more_is_cut_within_bounds(
    here: Bench,
) -> None:
    old = {"method": "words", "size": 100_000, "overlap": 99_999}
    words = {"strategy": WORDS, "embedding_model": None, "chunking": old}
    document = await here.add("weir " * 9_000, **words)
    assert await here.ingest(document) is Outcome.READY
    assert [len(text.split()) for text in await here.texts(document)] == [2000] * 8


async def test_a_document_of_too_many_chunks_fails_and_says_what_helps(here: Bench) -> None:
    one_word = {"method": "words", "size": 1, "overlap": 0}
    words = {"strategy": WORDS, "embedding_model": None, "chunking": one_word}
    document = await here.add("a " * 60_000, **words)
    assert await here.ingest(document) is Outcome.FAILED
    error = (await here.now(document)).error
    assert error is not None
    assert (error["code"], error["status"]) == ("too_many_chunks", 422)
    assert "larger chunks" in error["message"]
    assert await here.rows("SELECT 1 FROM millrace.drafts") == []


async def test_settings_that_change_after_the_claim_have_the_document_done_again(
    here: Bench,
) -> None:
    await here.ingest(await here.add("something else", chunking=SMALL))
    larger = {"method": "words", "size": 20, "overlap": 0}
    async with as_tenant(here.engine, here.tenant) as changing:
        await collections.change(changing, here.tenant, "default", chunking=larger)
        document = await here.add(TEXT)
        ingesting = asyncio.create_task(here.ingest(document))

        async def about_to_store() -> bool:
            return (await here.now(document)).stage is DocumentStage.STORE

        await until(about_to_store, 60)
    assert await ingesting is Outcome.AGAIN
    now = await here.now(document)
    assert (now.state, now.tries, now.error) == (DocumentState.WAITING, 0, None)
    assert await here.ingest(document) is Outcome.READY
    assert [len(text.split()) for text in await here.texts(document)] == [20, 20]
