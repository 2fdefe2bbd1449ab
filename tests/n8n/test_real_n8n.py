"""The five workflows on the real n8n, against a running stack: rows, messages and proposals.

`make test-n8n` installs n8n and runs this; nothing here is a double but the page that alerts are
sent to and Open WebUI's ratings. One installation serves all tests, which run in this order.
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from bus import rabbitmq
from db import migrate
from db.engine import create_engine
from millrace.chaos.engine import serve
from millrace.chaos.local_postgres import LocalPostgres
from millrace.chaos.local_rabbitmq import LocalRabbit
from millrace.chaos.stack import Stack, until
from queue_schemas import topology
from tests.doubles.open_webui import KEY, OpenWebuiDouble
from tests.n8n.real_n8n import PROGRAM_ENV, WEBHOOK_KEY, AlertBoard, RealN8n, Site, rows, with_user

if PROGRAM_ENV not in os.environ:
    pytest.skip("the real n8n is tested by `make test-n8n`", allow_module_level=True)

pytestmark = pytest.mark.timeout(900)

BROKEN = [{"kind": "fail", "error_kind": "transient"}]
MODELS = {
    "models": [
        {"name": "mill", "provider": "scripted", "slots": 8, "options": {}},
        {"name": "broken", "provider": "scripted", "slots": 8, "options": {"faults": BROKEN}},
    ]
}
SETTINGS = {
    "MILLRACE_MAX_ATTEMPTS": "1",
    # Nobody but n8n proposes, and nothing but a message on `feedback` has the inbox looked into.
    "MILLRACE_LEARNING_SECONDS": "86400",
    "MILLRACE_FEEDBACK_SECONDS": "86400",
}
USER, PASSWORD = "n8n_workflows", "only-for-tests"


async def _make_databases(postgres: LocalPostgres) -> str:
    """One of n8n's own, and Millrace's with a login for the workflows. The URL of Millrace's."""
    for name in ("n8n", "millrace"):
        await rows(postgres.url(), f"CREATE DATABASE {name}")
    url = postgres.url("millrace")
    engine = create_engine(url)
    await migrate.upgrade(engine)
    await engine.dispose()
    await rows(url, f"CREATE USER {USER} IN ROLE millrace_n8n PASSWORD '{PASSWORD}'")
    return url


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Postgres, RabbitMQ, a master, two workers, and n8n, provisioned and running."""
    folder = tmp_path_factory.mktemp("n8n")
    alerts, open_webui = AlertBoard(), OpenWebuiDouble()
    with ExitStack() as stack:
        postgres = stack.enter_context(LocalPostgres())
        rabbit = stack.enter_context(LocalRabbit())
        alerts_url = stack.enter_context(serve(alerts))
        webui_url = stack.enter_context(serve(open_webui))
        url = asyncio.run(_make_databases(postgres))
        mill = Stack(folder, url, rabbit.url(), MODELS, SETTINGS)
        stack.callback(lambda: print(mill.logs()))
        stack.callback(mill.close)
        asyncio.run(mill.start(mill=1, broken=1))
        n8n = RealN8n(
            os.environ[PROGRAM_ENV],
            folder,
            postgres.url("n8n"),
            {
                "MILLRACE_N8N_DATABASE_URL": with_user(url, USER, PASSWORD),
                "MILLRACE_N8N_WEBHOOK_KEY": WEBHOOK_KEY,
                "MILLRACE_N8N_ALERT_URL": f"{alerts_url}/alerts",
                "MILLRACE_OPENWEBUI_URL": webui_url,
                "MILLRACE_OPENWEBUI_API_KEY": KEY,
                "MILLRACE_URL": mill.url,
                "MILLRACE_API_KEY": mill.key,
                "RABBITMQ_URL": rabbit.url(),
            },
        )
        for _ in range(2):  # the second time changes nothing
            n8n.provision()
        stack.callback(lambda: print(n8n.log()))
        stack.callback(n8n.stop)
        n8n.start()
        yield Site(mill, n8n, alerts, open_webui)


async def alert(site: Site, kind: str) -> Any:
    async def raised() -> Any:
        found = await site.rows("SELECT * FROM millrace.alerts WHERE kind = $1", kind)
        return found[0] if found else None

    return await until(raised, 60)


async def judged(site: Site, request: str) -> dict[str, Any]:
    async def first() -> dict[str, Any] | None:
        found = (await site.stack.record(request))["judgements"]
        return found[0] if found else None

    return await until(first, 30)


async def test_all_five_are_published_once_and_hold_no_secret(site: Site) -> None:
    flows = await site.n8n.rows("SELECT id, active, nodes::text FROM workflow_entity")
    assert len(flows) == 5
    assert all(flow["active"] for flow in flows)
    credentials = await site.n8n.rows("SELECT name, data FROM credentials_entity")
    assert len(credentials) == 5
    kept = json.dumps([list(map(str, row.values())) for row in [*flows, *credentials]])
    for secret in (WEBHOOK_KEY, PASSWORD, site.stack.key, KEY):
        assert secret not in kept


# --- (a) feedback-collect ------------------------------------------------------------------------


async def test_feedback_by_webhook_is_stored_and_reaches_the_answer(site: Site) -> None:
    request = await site.ask("Why is the sea salt?", **{"X-OpenWebUI-User-Id": "alice"})
    note = {"request": request, "rating": -1, "reason": "not, 'factual'", "user": "alice"}
    answer = await site.say(note)
    assert answer.status_code == 202, answer.text
    found = await judged(site, request)
    assert (found["rater"], found["score"], found["reason"]) == ("user:alice", 0.0, note["reason"])
    [row] = await site.rows(
        "SELECT state, source FROM millrace.feedback_inbox WHERE id = $1", answer.json()["id"]
    )
    assert tuple(row) == ("stored", "webhook")


@pytest.mark.parametrize(
    ("note", "key", "status"),
    [
        ({"request": "x", "rating": 1}, "somebody else's key", 403),
        ([1], WEBHOOK_KEY, 400),
        ({"rating": 1}, WEBHOOK_KEY, 400),
        ({"request": "0" * 32, "comment": "null \0"}, WEBHOOK_KEY, 400),
    ],
    ids=["wrong key", "a list", "no request", "null"],
)
async def test_the_webhook_refuses_strangers_and_nonsense(
    site: Site, note: Any, key: str, status: int
) -> None:
    assert (await site.say(note, key)).status_code == status


async def test_feedback_of_somebody_else_is_refused_by_the_master(site: Site) -> None:
    request = await site.ask("Mine?", **{"X-OpenWebUI-User-Id": "alice"})
    answer = await site.say({"request": request, "rating": 1, "user": "mallory"})
    assert answer.status_code == 202

    async def refused() -> Any:
        query = "SELECT problem FROM millrace.feedback_inbox WHERE id = $1 AND state = 'refused'"
        return await site.rows(query, answer.json()["id"])

    assert (await until(refused, 30))[0]["problem"] == "other_user"


async def test_ratings_of_open_webui_are_fetched_once_and_when_they_change(site: Site) -> None:
    headers = {
        "X-OpenWebUI-User-Id": "bob",
        "X-OpenWebUI-Chat-Id": "chat-1",
        "X-Millrace-Message-Id": "message-1",
    }
    request = await site.ask("Why?", **headers)
    rating = site.open_webui.rate("message-1", "bob", "chat-1", 1, comment="quotes '\" and, commas")
    assert await site.n8n.run("mrFeedbackCollect") == "success"
    found = await judged(site, request)
    assert (found["rater"], found["score"], found["source"]) == ("user:bob", 1.0, "openwebui")
    assert found["comment"] == "quotes '\" and, commas"
    site.open_webui.clock += 60
    site.open_webui.change(rating, rating=-1)
    assert await site.n8n.run("mrFeedbackCollect") == "success"

    async def changed() -> bool:
        return (await judged(site, request))["score"] == 0.0

    await until(changed, 30)
    notes = await site.rows("SELECT note FROM millrace.feedback_inbox WHERE source = 'openwebui'")
    assert len(notes) == 1
    assert json.loads(notes[0]["note"]) == {}  # its words are in the judgement


# --- (b) rules-update ----------------------------------------------------------------------------


async def test_complaints_become_a_proposed_rule_and_only_that(site: Site) -> None:
    for number in range(6):
        user = f"reader-{number % 3}"
        request = await site.ask(
            f"Tell me of mills, {number}.", "millrace/auto", **{"X-OpenWebUI-User-Id": user}
        )
        note = {"request": request, "rating": -1, "reason": "too_long", "user": user}
        assert (await site.say(note)).status_code == 202
        await judged(site, request)
    for _ in range(2):
        assert await site.n8n.run("mrRulesUpdate") == "success"
    [rule] = await site.rows("SELECT * FROM millrace.rules")
    assert (rule["name"], rule["version"]) == ("learned-too-long-auto", 1)
    assert (rule["kind"], rule["state"]) == ("prompt", "proposed")
    provenance = json.loads(rule["provenance"])
    assert (provenance["workflow"], provenance["by"]) == ("rules-update", f"role:{USER}")
    assert len(provenance["feedback"]) == 6
    url = with_user(site.stack.database_url, USER, PASSWORD)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await rows(url, "UPDATE millrace.rules SET state = 'active'")


# --- (c) activity-watch, (d) error-handling ------------------------------------------------------


async def test_what_fails_is_tried_again_once_and_then_told(site: Site) -> None:
    request = await site.ask("Fail.", "broken")
    assert await site.n8n.run("mrErrorHandling") == "success"

    async def again() -> Any:
        query = (
            "SELECT id FROM millrace.requests WHERE redriven_from = $1::uuid AND state = 'failed'"
        )
        return await site.rows(query, request)

    [retried] = await until(again, 60)
    assert await site.n8n.run("mrErrorHandling") == "success"
    told = await alert(site, "dead_letter")
    assert str(retried["id"]) in told["message"]

    async def sent() -> bool:
        return any(str(retried["id"]) in text for text in site.alerts.texts)

    if not await sent():
        assert await site.n8n.run("mrErrorHandling") == "success"
    await until(sent, 30)
    assert len([text for text in site.alerts.texts if str(retried["id"]) in text]) == 1


async def test_an_alert_that_could_not_be_sent_is_sent_later(site: Site) -> None:
    site.alerts.status = 500
    url = site.stack.database_url
    await rows(url, "SELECT millrace.raise_alert('test:later', 'test', 'to be sent later')")
    assert await site.n8n.run("mrErrorHandling") == "success"
    site.alerts.status = 200
    assert await site.n8n.run("mrErrorHandling") == "success"

    async def sent() -> bool:
        return any("to be sent later" in text for text in site.alerts.texts)

    await until(sent, 30)


async def test_many_failures_of_a_tenant_are_told(site: Site) -> None:
    ended = await site.rows("SELECT count(*) FROM millrace.requests")
    for number in range(ended[0][0] + 1):
        await site.ask(f"Fail {number}.", "broken")
    await counted(site)
    assert await site.n8n.run("mrActivityWatch") == "success"
    told = await alert(site, "requests_fail")
    assert "of acme failed or expired" in told["message"]


async def counted(site: Site) -> None:
    """Wait until every request that ended was counted, and see that none was counted twice."""

    async def numbers() -> tuple[int, int]:
        query = "SELECT count(*) FROM millrace.requests WHERE finished_at IS NOT NULL"
        activity = "SELECT sum(count)::int FROM millrace.activity WHERE type LIKE 'request.%'"
        ended, seen = await site.rows(query), await site.rows(activity)
        return ended[0][0], seen[0][0] or 0

    async def all_seen() -> bool:
        ended, seen = await numbers()
        return seen >= ended > 0

    await until(all_seen, 60)
    ended, seen = await numbers()
    assert seen == ended


@asynccontextmanager
async def broker(site: Site) -> AsyncGenerator[rabbitmq.RabbitBus, None]:
    bus = await rabbitmq.connect(site.stack.rabbitmq_url, name="tests")
    try:
        yield bus
    finally:
        await bus.aclose()


async def test_an_event_that_cannot_be_read_stops_nothing(site: Site) -> None:
    async with broker(site) as bus:
        for body in (b"no JSON", b"[]", b'{"type": "x"}', b"\xff\xfe"):
            await bus.publish(topology.N8N.name, body)
    told = await alert(site, "event_unreadable")
    assert told["times"] >= 1
    await site.ask("Still there?")
    await counted(site)


async def test_what_cannot_be_counted_is_put_back_and_in_the_end_told(site: Site) -> None:
    url = site.stack.database_url
    await rows(url, "REVOKE EXECUTE ON FUNCTION millrace.note_event FROM millrace_n8n")
    try:
        await site.ask("Count me later.")
        async with broker(site) as bus:
            body = json.dumps({"type": "test.lost", "at": "2026-01-31T12:00:00Z"}).encode()
            await bus.publish(topology.N8N.name, body, {"x-millrace-tries": "200"})
        told = await alert(site, "workflow_failed")
        assert "activity-watch failed at Give it up" in told["message"]
    finally:
        await rows(url, "GRANT EXECUTE ON FUNCTION millrace.note_event TO millrace_n8n")
    await counted(site)


async def test_n8n_down_for_a_while_loses_nothing(site: Site) -> None:
    site.n8n.stop()
    headers = {"X-OpenWebUI-User-Id": "carol", "X-OpenWebUI-Chat-Id": "chat-2"}
    requests = [
        await site.ask(
            f"While you were away, {n}", **headers, **{"X-Millrace-Message-Id": f"away-{n}"}
        )
        for n in range(8)
    ]
    for number in range(8):
        site.open_webui.rate(f"away-{number}", "carol", "chat-2", 1)
    async with broker(site) as bus:

        async def all_wait() -> bool:
            depth = await bus.depth(topology.N8N.name)
            return depth is not None and depth.ready >= len(requests)

        await until(all_wait, 30)
    site.n8n.start()
    await counted(site)
    assert await site.n8n.run("mrFeedbackCollect") == "success"
    for request in requests:
        assert (await judged(site, request))["rater"] == "user:carol"


# --- (e) weekly-report ---------------------------------------------------------------------------


async def test_the_week_is_told_with_a_mind_map(site: Site, tmp_path: Path) -> None:
    assert await site.n8n.run("mrWeeklyReport") == "success"
    [report] = await site.rows("SELECT text FROM millrace.reports")
    assert "```mermaid\nmindmap\n  root((acme))" in report["text"]
    assert "| mill |" in report["text"]
    assert "learned-too-long-auto" in report["text"]
    assert "too_long" in report["text"]


async def test_all_executions_ended_well_but_for_the_one_that_was_made_to_fail(site: Site) -> None:
    bad = await site.n8n.rows(
        'SELECT "workflowId", mode, count(*) FROM execution_entity'
        " WHERE status NOT IN ('success', 'running', 'new') GROUP BY 1, 2"
    )
    assert [tuple(row) for row in bad] == [("mrActivityWatch", "trigger", 1)]
