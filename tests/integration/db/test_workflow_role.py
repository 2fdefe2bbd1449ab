"""What the role of n8n may do: call its functions, and nothing else."""

import json
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import inbox, tenants
from db.engine import create_engine
from db.n8n_tables import metadata

OWN = ("feedback_inbox", "watched_events", "activity", "alerts", "reports")


@pytest.fixture
async def engine(shared_url: str) -> AsyncGenerator[AsyncEngine, None]:
    """An engine on one database for all of these: nothing that they do is committed."""
    engine = create_engine(shared_url, pool_size=1)
    yield engine
    await engine.dispose()


@pytest.fixture
async def n8n(engine: AsyncEngine) -> AsyncGenerator[AsyncConnection, None]:
    """A connection as the workflows have it; what it does is committed by nobody."""
    async with engine.connect() as connection, connection.begin():
        await connection.execute(text("SET LOCAL ROLE millrace_n8n"))
        yield connection


async def call(n8n: AsyncConnection, function: str, **values: Any) -> list[dict[str, Any]]:
    """The rows that a function gives; dicts and lists are JSON."""
    named = ", ".join(f"{name} => CAST(:{name} AS {_type(v)})" for name, v in values.items())
    given = {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in values.items()}
    query = text(f"SELECT * FROM millrace.{function}({named})")
    return [dict(row) for row in (await n8n.execute(query, given)).mappings()]


def _type(value: object) -> str:
    types = {dict | list: "jsonb", bool: "boolean", int: "bigint", UUID: "uuid"}
    return next((name for kind, name in types.items() if isinstance(value, kind)), "text")


async def one(n8n: AsyncConnection, function: str, **values: Any) -> dict[str, Any]:
    [row] = await call(n8n, function, **values)
    return row


@pytest.mark.parametrize("table", [*OWN, "requests", "judgements", "rules"])
async def test_it_reads_no_table(n8n: AsyncConnection, table: str) -> None:
    assert f"millrace.{table}" in metadata.tables
    with pytest.raises(DBAPIError, match="permission denied"):
        await n8n.execute(text(f"SELECT count(*) FROM millrace.{table}"))


async def test_every_function_of_n8n_is_run_by_nobody_else(engine: AsyncEngine) -> None:
    query = text("""
        SELECT p.proname, array_remove(array_agg(DISTINCT coalesce(r.rolname, 'public')), o.rolname)
          FROM pg_proc p JOIN pg_roles o ON o.oid = p.proowner
         CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
          LEFT JOIN pg_roles r ON r.oid = a.grantee
         WHERE p.pronamespace = 'millrace'::regnamespace AND p.prosecdef
           AND has_function_privilege('millrace_n8n', p.oid, 'EXECUTE')
         GROUP BY 1, o.rolname
    """)
    async with engine.connect() as connection:
        callers: dict[str, list[str]] = dict(map(tuple, await connection.execute(query)))
    assert {"take_feedback", "note_event", "raise_alert", "propose_rule"} <= callers.keys()
    assert all(who == ["millrace_n8n"] for who in callers.values()), callers


# --- the inbox -----------------------------------------------------------------------------------


async def test_a_note_waits_in_the_inbox(n8n: AsyncConnection) -> None:
    said = {"request": str(uuid4()), "rating": 1}
    row = await one(n8n, "take_feedback", of_source="webhook", of_note=said)
    assert row["fresh"]
    assert row["problem"] is None
    await n8n.execute(text("RESET ROLE"))
    held = await inbox.hold(n8n, row["note"])
    assert held is not None
    assert json.loads(held.note) == said


@pytest.mark.parametrize(
    ("source", "note", "problem"),
    [
        ("elsewhere", {}, "source"),
        ("webhook", [1], "object"),
        ("webhook", {"comment": "x" * 200_001}, "too long"),
        ("webhook", {"of": [{"many": -(10**4000)}]}, "too large"),
    ],
    ids=["unknown source", "no object", "too long", "long number"],
)
async def test_what_is_no_note_is_refused_with_the_reason(
    n8n: AsyncConnection, source: str, note: Any, problem: str
) -> None:
    row = await one(n8n, "take_feedback", of_source=source, of_note=note)
    assert row["note"] is None
    assert problem in row["problem"]


async def test_a_rating_is_taken_once_and_again_when_it_says_something_else(
    n8n: AsyncConnection,
) -> None:
    async def take(thumb: int, changed: int) -> dict[str, Any]:
        note = {"id": "r1", "data": {"rating": thumb}}
        given = {"of_external": "r1", "of_changed": changed}
        return await one(n8n, "take_feedback", of_source="openwebui", of_note=note, **given)

    first, again, other = await take(1, 100), await take(1, 100), await take(-1, 101)
    assert [row["fresh"] for row in (first, again, other)] == [True, False, True]
    assert len({row["note"] for row in (first, again, other)}) == 1


async def test_only_ratings_that_are_new_or_changed_are_wanted(n8n: AsyncConnection) -> None:
    for id_ in ("old", "changed"):
        given = {"of_external": id_, "of_changed": 100}
        await one(n8n, "take_feedback", of_source="openwebui", of_note={"id": id_}, **given)
    listed = [
        {"id": "old", "updated_at": 100},
        {"id": "changed", "updated_at": 101},
        {"id": "new", "updated_at": 50},
        {"id": "../users", "updated_at": 50},
    ]
    rows = await call(n8n, "wanted_ratings", listed=listed)
    assert [row["id"] for row in rows] == ["new", "changed"]
    assert await call(n8n, "wanted_ratings", listed={"id": "no list"}) == []


# --- events, alerts, reports ---------------------------------------------------------------------


def event(happened: str = "request.failed", **more: Any) -> dict[str, Any]:
    return {"type": happened, "at": "2026-01-31T12:30:00+00:00", "detail": {}, **more}


async def test_an_event_counts_once_however_often_it_comes(n8n: AsyncConnection) -> None:
    said = event(request=str(uuid4()))
    rows = [await one(n8n, "note_event", event=said) for _ in range(2)]
    rows.append(await one(n8n, "note_event", event=event(request=str(uuid4()))))
    assert [row["fresh"] for row in rows] == [True, False, True]
    await n8n.execute(text("RESET ROLE"))
    counted = await n8n.execute(text("SELECT hour::text, type, count FROM millrace.activity"))
    assert [tuple(row)[1:] for row in counted] == [("request.failed", 2)]


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"type": "request.failed"},
        event(at="yesterday's mill"),
        event(at="infinity"),
        event(tenant="nobody"),
        event("Request Failed!"),
        event(detail={"text": "x" * 20_000}),
    ],
    ids=["empty", "no time", "odd time", "no end", "odd tenant", "odd type", "too long"],
)
async def test_what_is_no_event_is_named_and_not_counted(
    n8n: AsyncConnection, said: dict[str, Any]
) -> None:
    row = await one(n8n, "note_event", event=said)
    assert not row["fresh"]
    assert row["problem"]


async def test_the_same_alert_is_one_row_and_is_sent_once(n8n: AsyncConnection) -> None:
    said = {"of_key": "k", "of_kind": "test", "of_message": "it happened"}
    rows = [await one(n8n, "raise_alert", **said) for _ in range(3)]
    assert [row["times"] for row in rows] == [1, 2, 3]
    [unsent] = await call(n8n, "unsent_alerts")
    assert (unsent["message"], unsent["times"]) == ("it happened", 3)
    assert await call(n8n, "alert_sent", of_alert=unsent["alert"]) == [{"alert_sent": True}]
    assert await call(n8n, "alert_sent", of_alert=unsent["alert"]) == [{"alert_sent": False}]
    await one(n8n, "raise_alert", **said)
    assert await call(n8n, "unsent_alerts") == []


async def test_a_week_without_anything_can_be_reported(n8n: AsyncConnection) -> None:
    await n8n.execute(text("RESET ROLE"))
    tenant = await tenants.ensure_tenant(n8n, "acme")
    await n8n.execute(text("SET LOCAL ROLE millrace_n8n"))
    query = text("""
        SELECT week FROM millrace.week_of(:tenant, now() - interval '7 days', now())
    """)
    week = await n8n.scalar(query, {"tenant": tenant})
    assert week["requests"] == 0
    assert week["strategies"] == week["models"] == week["rules"] == []
    store = text("""
        SELECT millrace.store_report(:tenant, now() - interval '7 days', now(), CAST(:text AS text))
    """)
    for said in ("first", "second"):
        await n8n.execute(store, {"tenant": tenant, "text": said})
    await n8n.execute(text("RESET ROLE"))
    assert [(r.tenant, r.text) for r in await inbox.latest_reports(n8n)] == [("acme", "second")]
    assert await inbox.latest_reports(n8n, "nobody") == []


async def test_quiet_functions_can_be_called_on_an_empty_database(n8n: AsyncConnection) -> None:
    assert await call(n8n, "dead_letters") == []
    assert await call(n8n, "learning_tenants") == []
    assert await call(n8n, "forget_watched") == [{"forget_watched": 0}]
    assert (await n8n.execute(text("SELECT * FROM millrace.endings('15 minutes')"))).all() == []
