"""Documents: stored once, claimed by one, fenced for all others."""

import asyncio
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import chunks, claims, collections, documents, drafts
from db.claims import Fenced
from db.collections import Collection
from db.corpus import Strategy
from db.documents import StoredDocument
from db.tenancy import as_tenant
from queue_schemas.states import DOCUMENT_MOVES, DocumentStage, DocumentState
from tests.integration.db.corpus_acts import (
    LEASE,
    Cut,
    add,
    claimed,
    collection_of,
    fresh,
    new_document,
    published,
    put,
    tenant_named,
)

S = DocumentState
ERROR = {"code": "no_text", "message": "it has pictures only", "status": 422}


async def in_state(
    connection: AsyncConnection, collection: Collection, state: DocumentState
) -> StoredDocument:
    document = await add(connection, collection, f"a document that is {state}")
    if state is not S.WAITING:
        document = await claimed(connection, document)
    if state is S.READY:
        await put(connection, document, ["words"])
    if state is S.FAILED:
        assert await claims.fail(connection, document.id, document.attempt, ERROR)
    return await again_found(connection, document)


async def again_found(connection: AsyncConnection, document: StoredDocument) -> StoredDocument:
    found = await documents.find(connection, document.tenant, document.id)
    assert found is not None
    return found


async def lose_lease(connection: AsyncConnection, document: StoredDocument) -> None:
    query = "UPDATE millrace.documents SET lease_until = now() - interval '1 s' WHERE id = :id"
    await connection.execute(text(query), {"id": document.id})


async def test_the_same_content_is_one_document(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)
    new = new_document(collection, "content", metadata={"shelf": 3})
    async with as_tenant(engine, tenant) as connection:
        first, created = await documents.add(connection, tenant, new, b"content")
        second, created_again = await documents.add(connection, tenant, new, b"content")
        assert (created, created_again) == (True, False)
        assert first == second
        assert (first.state, first.metadata, first.byte_count) == (S.WAITING, {"shelf": 3}, 7)
        assert await documents.body(connection, first.id) == b"content"


async def test_the_same_content_at_once_is_one_document(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)

    async def store() -> tuple[StoredDocument, bool]:
        async with as_tenant(engine, tenant) as connection:
            new = new_document(collection, "content")
            return await documents.add(connection, tenant, new, b"content")

    answers = await asyncio.gather(*[store() for _ in range(4)])
    assert len({document.id for document, _ in answers}) == 1
    assert sorted(created for _, created in answers) == [False, False, False, True]


async def test_the_same_content_in_another_collection_is_another_document(
    engine: AsyncEngine, tenant: UUID
) -> None:
    one = await collection_of(engine, tenant, name="one")
    two = await collection_of(engine, tenant, name="two")
    async with as_tenant(engine, tenant) as connection:
        assert (await add(connection, one, "x")).id != (await add(connection, two, "x")).id


async def test_a_document_that_failed_waits_again_when_it_comes_again(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant)
    async with as_tenant(engine, tenant) as connection:
        failed = await in_state(connection, collection, S.FAILED)
        assert (failed.error, failed.tries) == (ERROR, 1)
        again = await add(connection, collection, f"a document that is {S.FAILED}")
        assert (again.id, again.state, again.tries, again.error) == (failed.id, S.WAITING, 0, None)
        assert again.attempt == failed.attempt


@pytest.mark.parametrize("state", list(DocumentState))
async def test_only_what_may_run_and_is_due_is_claimed(
    engine: AsyncEngine, tenant: UUID, state: DocumentState
) -> None:
    collection = await collection_of(engine, tenant)
    async with as_tenant(engine, tenant) as connection:
        document = await in_state(connection, collection, state)
        found = await claims.claim(connection, tenant, document.id, LEASE)
        assert (found is not None) == (state is S.WAITING)
        if state is S.RUNNING:
            await lose_lease(connection, document)
            later = await claims.claim(connection, tenant, document.id, LEASE)
            assert later is not None
            assert (later.attempt, later.tries, later.state) == (2, 2, S.RUNNING)


async def moved_to(
    connection: AsyncConnection, document: StoredDocument, target: DocumentState
) -> bool:
    match target:
        case S.RUNNING:
            found = await claims.claim(connection, document.tenant, document.id, LEASE)
            return found is not None
        case S.READY:
            try:
                await put(connection, document, ["words"])
            except Fenced:
                return False
            return True
        case S.FAILED:
            return await claims.fail(connection, document.id, document.attempt, ERROR)
        case S.WAITING if document.state is S.RUNNING:
            return await claims.again(connection, document.id, document.attempt, 0, ERROR)
        case _:
            changed = await collections.change(connection, document.tenant, document.collection)
            return changed is not None and document.state is not S.WAITING


@pytest.mark.parametrize("target", list(DocumentState))
@pytest.mark.parametrize("state", list(DocumentState))
async def test_the_moves_are_those_of_the_table(
    engine: AsyncEngine, tenant: UUID, state: DocumentState, target: DocumentState
) -> None:
    collection = await collection_of(engine, tenant)
    async with as_tenant(engine, tenant) as connection:
        document = await in_state(connection, collection, state)
        if state is S.RUNNING:
            await lose_lease(connection, document)
        allowed = target in DOCUMENT_MOVES[state]
        assert await moved_to(connection, document, target) == allowed
        found = await again_found(connection, document)
        assert found.state is (target if allowed else state)


async def test_of_two_who_claim_at_once_one_gets_it(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)
    async with as_tenant(engine, tenant) as connection:
        document = await add(connection, collection, "wanted")

    async def want() -> StoredDocument | None:
        async with as_tenant(engine, tenant) as connection:
            return await claims.claim(connection, tenant, document.id, LEASE)

    answers = await asyncio.gather(*[want() for _ in range(4)])
    assert [found.attempt for found in answers if found] == [1]


async def test_an_old_attempt_can_write_nothing(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant, dimension=3)
    async with as_tenant(engine, tenant) as connection:
        old = await claimed(connection, await add(connection, collection, "x"))
        await drafts.replace(connection, old.id, old.attempt, [Cut(0, "kept")])
        await lose_lease(connection, old)
        new = await claimed(connection, old)
        assert not await claims.renew(connection, old.id, old.attempt, LEASE)
        assert not await claims.again(connection, old.id, old.attempt, 0, ERROR)
        assert not await claims.fail(connection, old.id, old.attempt, ERROR)
        with pytest.raises(Fenced):
            await drafts.replace(connection, old.id, old.attempt, [])
        with pytest.raises(Fenced):
            await drafts.put_vectors(connection, old.id, old.attempt, {0: [1, 0, 0]})
        with pytest.raises(Fenced):
            await claims.keep_body(connection, old.id, old.attempt, b"late", None)
        with pytest.raises(Fenced):
            await chunks.publish(connection, old.id, old.attempt, None)
        assert await again_found(connection, new) == new
        assert await drafts.without_vector(connection, new.id, 10) == [(0, "kept")]
        assert await documents.body(connection, new.id) == b"x"


async def test_a_document_that_is_gone_is_fenced(engine: AsyncEngine, tenant: UUID) -> None:
    await collection_of(engine, tenant)
    async with as_tenant(engine, tenant) as connection:
        assert not await claims.renew(connection, uuid4(), 1, LEASE)
        with pytest.raises(Fenced):
            await chunks.publish(connection, uuid4(), 1, None)


async def test_progress_is_told_and_times_are_added_up(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)
    async with as_tenant(engine, tenant) as connection:
        document = await claimed(connection, await add(connection, collection, "x"))
        key = (document.id, document.attempt, LEASE)
        assert await claims.renew(
            connection, *key, stage=DocumentStage.PARSE, timings={"parse": 3.5}, flags={"hidden": 2}
        )
        assert await claims.renew(
            connection, *key, stage=DocumentStage.EMBED, chunk_count=7, embedded_count=2,
            timings={"chunk": 1},
        )  # fmt: skip
        told = await again_found(connection, document)
        assert (told.stage, told.chunk_count, told.embedded_count) == (DocumentStage.EMBED, 7, 2)
        assert (told.timings, told.flags) == ({"parse": 3.5, "chunk": 1}, {"hidden": 2})
        assert told.lease_until is not None


async def test_what_is_tried_again_waits_for_its_time(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)
    async with as_tenant(engine, tenant) as connection:
        document = await claimed(connection, await add(connection, collection, "x"))
        assert await claims.again(connection, document.id, document.attempt, 3600, ERROR)
        assert await claims.claim(connection, tenant, document.id, LEASE) is None
        waits = await again_found(connection, document)
        assert (waits.state, waits.error, waits.tries) == (S.WAITING, ERROR, 1)
        assert waits.available_at > waits.created_at
    async with engine.begin() as connection:
        assert await claims.waiting(connection, 10) == []
        query = "UPDATE millrace.documents SET available_at = now() - interval '1 s'"
        await connection.execute(text(query))
        assert await claims.waiting(connection, 10) == [(tenant, document.id)]


async def test_what_is_due_is_found_across_tenants(engine: AsyncEngine, tenant: UUID) -> None:
    expected = set()
    for owner in (tenant, await tenant_named(engine, "other")):
        collection = await collection_of(engine, owner)
        async with as_tenant(engine, owner) as connection:
            expected.add((owner, (await add(connection, collection, "waits")).id))
            lost = await claimed(connection, await add(connection, collection, "lost"))
            await lose_lease(connection, lost)
            expected.add((owner, lost.id))
            await claimed(connection, await add(connection, collection, "runs"))
            await in_state(connection, collection, S.FAILED)
    async with engine.begin() as connection:
        assert set(await claims.waiting(connection, 10)) == expected
        assert len(await claims.waiting(connection, 2)) == 2


async def test_pages_go_from_new_to_old_without_a_gap(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)
    other = await collection_of(engine, tenant, name="other")
    async with as_tenant(engine, tenant) as connection:
        # All in one transaction, so all of one age: the ids decide.
        made = [(await add(connection, collection, f"document {n}")).id for n in range(7)]
        await add(connection, other, "elsewhere")
        await in_state(connection, other, S.FAILED)
        seen: list[UUID] = []
        while True:
            last = seen[-1] if seen else None
            page = await documents.page(
                connection, tenant, collection="default", limit=3, after=last
            )
            seen += [document.id for document in page]
            if len(page) < 3:
                break
        failed = await documents.page(connection, tenant, state=S.FAILED)
        assert [document.collection for document in failed] == ["other"]
        assert len(await documents.page(connection, tenant)) == 9
        assert await documents.page(connection, tenant, after=uuid4()) == []
    assert len(seen) == len(set(seen))
    assert set(seen) == set(made)


async def test_deleting_takes_everything_along(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)
    document = await published(engine, collection, "x", ["some words", "more words"])
    async with as_tenant(engine, tenant) as connection:
        assert await documents.remove(connection, tenant, document.id)
        assert not await documents.remove(connection, tenant, document.id)
        assert await documents.find(connection, tenant, document.id) is None
        for table in ("document_bodies", "chunks", "chunk_terms", "terms"):
            assert await connection.scalar(text(f"SELECT count(*) FROM millrace.{table}")) == 0
    emptied = await fresh(engine, collection)
    assert (emptied.chunk_count, emptied.word_count, emptied.average_length) == (0, 0, 0)


async def test_what_was_fetched_is_kept(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)
    async with as_tenant(engine, tenant) as connection:
        new = new_document(collection, "url", url="https://example.org/page")
        document, _ = await documents.add(connection, tenant, new, None)
        assert await documents.body(connection, document.id) is None
        document = await claimed(connection, document)
        for content in (b"first", b"second time"):
            await claims.keep_body(connection, document.id, document.attempt, content, "text/html")
        assert await documents.body(connection, document.id) == b"second time"
        told = await again_found(connection, document)
        assert (told.byte_count, told.media_type, told.url) == (11, "text/html", new.url)


@pytest.mark.parametrize(
    "change",
    [
        "lease_until = now()",
        "state = 'running'",
        "state = 'ready'",
        "ready_at = now()",
        "state = 'failed'",
        "state = 'lost'",
        "stage = 'dance'",
        "digest = 'short'",
        "metadata = '[1]'",
    ],
)
async def test_half_a_move_cannot_be_stored(engine: AsyncEngine, tenant: UUID, change: str) -> None:
    collection = await collection_of(engine, tenant)
    async with as_tenant(engine, tenant) as connection:
        await add(connection, collection, "x")
    async with engine.connect() as connection:
        with pytest.raises(IntegrityError):
            await connection.execute(text(f"UPDATE millrace.documents SET {change}"))


async def test_another_tenants_document_is_not_there(engine: AsyncEngine, tenant: UUID) -> None:
    document = await published(engine, await collection_of(engine, tenant), "x", ["words"])
    other = await tenant_named(engine, "other")
    async with as_tenant(engine, other) as connection:
        for owner in (other, tenant):
            assert await documents.find(connection, owner, document.id) is None
            assert not await documents.remove(connection, owner, document.id)
            assert await claims.claim(connection, owner, document.id, LEASE) is None
            assert await documents.page(connection, owner) == []
        assert await documents.body(connection, document.id) is None
        assert await collections.change(connection, tenant, "default") is None
        assert not await collections.remove(connection, tenant, "default")


async def test_a_reindex_takes_a_running_document_away(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)
    await published(engine, collection, "ready", ["words"])
    async with as_tenant(engine, tenant) as connection:
        running = await claimed(connection, await add(connection, collection, "running"))
        await drafts.replace(connection, running.id, running.attempt, [Cut(0, "draft")])
        await collections.change(connection, tenant, "default", strategy=Strategy.SPARSE)
        assert not await claims.renew(connection, running.id, running.attempt, LEASE)
        assert await drafts.counts(connection, running.id) == (0, 0)
        page = await documents.page(connection, tenant)
        assert {(d.state, d.tries) for d in page} == {(S.WAITING, 0)}
