"""The rules that a replica knows: read once for all who ask, and not lost with the database."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import rules, tenants
from db.rules import NewRule, StoredRule
from db.tenancy import as_tenant
from master.rulebook import EVERY_SECONDS, Rulebook
from millrace.chaos.stack import until
from queue_schemas.states import RuleState

Reading = Callable[[AsyncConnection, UUID], Any]


async def approve(engine: AsyncEngine, tenant: UUID, name: str, words: str = "Be brief.") -> None:
    async with as_tenant(engine, tenant) as connection:
        new = NewRule(name, "prompt", {"kind": "prompt", "text": words}, {"topic": ["sea"]})
        stored = await rules.propose(connection, tenant, new)
        assert await rules.move(connection, tenant, stored.id, RuleState.ACTIVE, by="system")


def a_book(engine: AsyncEngine, every_seconds: float = EVERY_SECONDS) -> Rulebook:
    """One for which a machine that stands still for seconds is no outage."""
    return Rulebook(engine, every_seconds, patience_seconds=60)


async def names(book: Rulebook, tenant: UUID) -> list[str]:
    return [rule.name for rule in await book.in_force(tenant)]


class Reads:
    """Reads of the database that are counted, and can be held up or refused."""

    def __init__(self, real: Reading) -> None:
        self._real = real
        self.count = 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.error: Exception | None = None

    async def __call__(self, connection: AsyncConnection, tenant: UUID) -> list[StoredRule]:
        self.count += 1
        if self.error is not None:
            raise self.error
        found: list[StoredRule] = await self._real(connection, tenant)
        await self.go_on.wait()
        return found


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    counted = Reads(rules.in_force)
    monkeypatch.setattr(rules, "in_force", counted)
    return counted


async def test_a_rule_is_known_as_it_was_stored(engine: AsyncEngine, tenant: UUID) -> None:
    await approve(engine, tenant, "brief")
    [rule] = await a_book(engine).in_force(tenant)
    assert (rule.name, rule.version, rule.state) == ("brief", 1, RuleState.ACTIVE)
    assert rule.scope.topic == ("sea",)
    assert rule.change.model_dump() == {"kind": "prompt", "text": "Be brief."}


async def test_each_tenant_has_its_own(engine: AsyncEngine, tenant: UUID) -> None:
    async with engine.begin() as connection:
        other = await tenants.ensure_tenant(connection, "other")
    await approve(engine, tenant, "brief")
    book = a_book(engine)
    assert await names(book, tenant) == ["brief"]
    assert await names(book, other) == []


async def test_one_read_serves_all_who_ask(engine: AsyncEngine, tenant: UUID, reads: Reads) -> None:
    book = a_book(engine, 60)
    reads.go_on.clear()
    asking = [asyncio.create_task(book.in_force(tenant)) for _ in range(20)]
    gone = asyncio.create_task(book.in_force(tenant))
    await until(lambda: _true(reads.count == 1), 30)
    gone.cancel()
    reads.go_on.set()
    assert await asyncio.gather(*asking) == [()] * 20
    assert await book.in_force(tenant) == ()
    assert reads.count == 1


async def test_what_was_changed_here_counts_at_once_even_while_it_is_read(
    engine: AsyncEngine, tenant: UUID, reads: Reads
) -> None:
    book = a_book(engine, 60)
    reads.go_on.clear()
    before = asyncio.create_task(book.in_force(tenant))
    await until(lambda: _true(reads.count == 1), 30)
    await approve(engine, tenant, "brief")
    book.forget(tenant)
    after = asyncio.create_task(book.in_force(tenant))
    await until(lambda: _true(reads.count == 2), 30)
    reads.go_on.set()
    assert await before == ()
    assert [rule.name for rule in await after] == ["brief"]
    assert await names(book, tenant) == ["brief"]


async def test_what_was_changed_elsewhere_counts_soon(engine: AsyncEngine, tenant: UUID) -> None:
    book = a_book(engine, 0.02)
    assert await names(book, tenant) == []
    await approve(engine, tenant, "brief")
    await until(lambda: names(book, tenant), 30)


async def test_without_the_database_the_known_rules_go_on(
    engine: AsyncEngine, tenant: UUID, reads: Reads
) -> None:
    await approve(engine, tenant, "brief")
    book = a_book(engine, 60)
    assert await names(book, tenant) == ["brief"]
    book.forget(tenant)
    reads.error = ConnectionRefusedError("it is away")
    assert await names(book, tenant) == ["brief"]
    assert await names(book, tenant) == ["brief"]
    assert reads.count == 2, "it is asked again soon, and not for every question"
    with pytest.raises(ConnectionRefusedError):
        await book.in_force(uuid4())


async def test_a_read_that_hangs_is_an_outage(
    engine: AsyncEngine, tenant: UUID, reads: Reads
) -> None:
    await approve(engine, tenant, "brief")
    impatient = Rulebook(engine, patience_seconds=0.2)
    reads.go_on.clear()
    with pytest.raises(TimeoutError):
        await impatient.in_force(tenant)
    reads.go_on.set()
    impatient._patience_seconds = 30  # a read that does not hang may take its time
    assert await names(impatient, tenant) == ["brief"]


async def test_a_fault_is_no_outage_and_the_next_question_tries_again(
    engine: AsyncEngine, tenant: UUID, reads: Reads
) -> None:
    book = a_book(engine)
    reads.error = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        await book.in_force(tenant)
    reads.error = None
    assert await names(book, tenant) == []


@pytest.mark.parametrize(
    ("scope", "change"),
    [
        ("{}", '{"kind": "prompt", "text": ""}'),
        ("{}", '{"kind": "prompt", "text": "x", "loud": true}'),
        ('{"planet": "Mars"}', '{"kind": "prompt", "text": "x"}'),
    ],
)
async def test_a_rule_that_cannot_be_read_is_left_out(
    engine: AsyncEngine, tenant: UUID, scope: str, change: str
) -> None:
    await approve(engine, tenant, "brief")
    async with engine.begin() as connection:
        await connection.execute(
            text("""
                INSERT INTO millrace.rules (id, tenant_id, name, version, kind, scope, change,
                                            state, decided_by, decided_at)
                VALUES (:id, :tenant, 'odd', 1, 'prompt', CAST(:scope AS jsonb),
                        CAST(:change AS jsonb), 'active', 'system', now())
            """),
            {"id": uuid4(), "tenant": tenant, "scope": scope, "change": change},
        )
    assert await names(a_book(engine), tenant) == ["brief"]


async def _true(value: bool) -> bool:
    return value
