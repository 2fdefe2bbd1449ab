"""Overview, workers, dead letters, keys and usage, over real HTTP."""

import asyncio
import time
from collections.abc import AsyncGenerator
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlalchemy import event, text

from master.console.snapshot import FRESH_SECONDS
from millrace.chaos.stack import until
from tests.integration.console.browsing import Person, a_tenant, signed_in, words
from tests.integration.master.mill import Mill, a_script, installation

HOSTILE = "<script>alert(1)</script>"
BROKEN = [{"kind": "fail", "contains": "break", "message": HOSTILE}]
PRICE = {"price": {"prompt": 1_000_000, "completion": 2_000_000}}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installed(shared_url: str) -> AsyncGenerator[Mill]:
    models = (
        a_script(faults=BROKEN, entry=PRICE),
        a_script("other", text="mended", entry={"min_workers": 0}),
    )
    async with installation(shared_url, *models, max_attempts=1) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def neighbour(installed: Mill) -> AsyncGenerator[Person]:
    async with a_tenant(installed) as mill, signed_in(mill.url, mill.key) as made:
        yield made


async def dead_letter(mill: Mill, content: str = "break") -> str:
    """The id of a subtask that failed for good."""
    assert (await mill.ask(content)).status_code == 502
    query = "SELECT id FROM millrace.subtasks WHERE state = 'dead' ORDER BY finished_at DESC"
    return str((await mill.rows(query))[0][0])


async def test_the_overview_says_what_is_and_to_each_tenant_only_its_own(
    mill: Mill, person: Person, neighbour: Person
) -> None:
    await mill.ask()
    await dead_letter(mill)
    page = words(await person.get("/console"))
    assert "1 dead letter is waiting for a decision." in page
    assert "Answered 1 0.02 a minute" in page
    assert "No answer 1" in page
    theirs = words(await neighbour.get("/console"))
    assert "Everything is fine." in theirs
    assert "Answered 0" in theirs
    assert "mill" in theirs  # the machines serve everybody


async def test_many_who_look_cost_one_look_a_second(mill: Mill, person: Person) -> None:
    statements: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "FROM millrace.requests WHERE tenant_id" in statement and "waiting" in statement:
            statements.append(statement)

    event.listen(mill.running.engine.sync_engine, "before_cursor_execute", note)
    lines: list[str] = []
    began = time.monotonic()
    async with (
        signed_in(mill.url, mill.key) as other,
        person.http.stream("GET", "/console/live/overview") as one,
        other.http.stream("GET", "/console/live/overview") as two,
    ):
        assert one.headers["content-type"].startswith("text/event-stream")
        for stream in (one, two):
            async for line in stream.aiter_lines():
                lines.append(line)
                if not line:
                    break
        await asyncio.gather(*(person.get("/console") for _ in range(20)))
    assert lines[0] == 'data: <section aria-label="Is everything fine?" aria-live="polite">'
    assert "csrf" not in "".join(lines)
    looks = (time.monotonic() - began) / FRESH_SECONDS + 1
    assert 0 < len(statements) <= looks


async def test_workers_are_shown_with_their_slots(person: Person) -> None:

    async def at_rest() -> bool:  # a heartbeat may still tell of what an earlier test asked
        page = words(await person.get("/console/workers"))
        return "mill-1 live" in page and "0 / 8" in page

    await until(at_rest, 30)
    async with person.http.stream("GET", "/console/live/workers") as stream:
        async for line in stream.aiter_lines():
            assert line.startswith("data: <section")
            break


async def test_a_dead_letter_is_inspected_and_done_again(mill: Mill, person: Person) -> None:
    assert "No dead letter waits" in await person.get("/console/dead")
    letter = await dead_letter(mill, f"break {HOSTILE}")
    listed = await person.get("/console/dead")
    assert HOSTILE not in listed
    assert "engine_busy" in words(listed)
    page = await person.get(f"/console/dead/{letter}")
    assert HOSTILE not in page
    assert f"break {HOSTILE}" in words(page)
    answer = await person.post(f"/console/dead/{letter}/again", model="other")
    again = answer.headers["location"].removeprefix("/console/requests/")
    record = await mill.until_state(again, "completed", seconds=30)
    assert [subtask["model"] for subtask in record["subtasks"]] == ["other"]
    assert letter not in await person.get("/console/dead")
    assert f"/console/requests/{again}" in await person.get("/console/dead?settled=1")
    twice = await person.post(f"/console/dead/{letter}/again")
    assert twice.headers["location"] == answer.headers["location"]


async def test_a_dead_letter_whose_plan_is_broken_says_why_it_is_not_done_again(
    mill: Mill, person: Person
) -> None:
    letter = await dead_letter(mill)
    async with mill.running.engine.begin() as connection:
        query = "UPDATE millrace.requests SET plan = '{}' FROM millrace.subtasks s"
        where = "WHERE s.request_id = requests.id AND s.id = :letter RETURNING requests.id"
        found = await connection.execute(text(f"{query} {where}"), {"letter": letter})
        request = found.scalar_one()
    refused = await person.post(f"/console/dead/{letter}/again", status=409)
    assert "the plan cannot be read" in words(refused.text)
    again = await mill.http.post(f"/v1/requests/{request}/retry")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "not_retriable")


async def test_a_dead_letter_is_put_away(mill: Mill, person: Person) -> None:
    letter = await dead_letter(mill)
    await person.post(f"/console/dead/{letter}/away")
    assert letter not in await person.get("/console/dead")
    assert "put away" in words(await person.get("/console/dead?settled=1&model=mill"))
    assert letter not in await person.get("/console/dead?settled=1&model=other")
    await person.post(f"/console/dead/{letter}/away")


async def test_dead_letters_of_others_do_not_exist(
    mill: Mill, person: Person, neighbour: Person
) -> None:
    letter = await dead_letter(mill)
    assert letter not in await neighbour.get("/console/dead?settled=1")
    await neighbour.get(f"/console/dead/{letter}", 404)
    await neighbour.post(f"/console/dead/{letter}/again", 404)
    await neighbour.post(f"/console/dead/{letter}/away", 404)
    for nobody in (str(uuid4()), "nothing", "%00"):
        await person.get(f"/console/dead/{nobody}", 404)
    await person.post(f"/console/dead/{letter}/again", 404, model="no such model")
    assert letter in await person.get("/console/dead")


async def test_what_cannot_be_done_again_says_why(mill: Mill, person: Person) -> None:
    letter = await dead_letter(mill)
    async with mill.running.engine.begin() as connection:
        await connection.exec_driver_sql(
            """UPDATE millrace.requests SET question = question || '{"erased": true}'"""
        )
    refused = await person.post(f"/console/dead/{letter}/again", 409)
    assert "It is not done again: request" in words(refused.text)


async def test_usage_is_the_bill_of_this_tenant(
    mill: Mill, person: Person, neighbour: Person
) -> None:
    assert "Nothing was used in the last 7 days." in await person.get("/console/usage")
    await mill.ask("one two three")
    page = words(await person.get("/console/usage?days=30"))
    (spent,) = await mill.rows(
        """SELECT a.prompt_tokens, a.completion_tokens FROM millrace.attempts a
             JOIN millrace.api_keys k ON k.tenant_id = a.tenant_id WHERE k.prefix = :prefix""",
        prefix=mill.key[:11],
    )
    cost = f"{spent[0] + 2 * spent[1]:.2f}"
    assert f"mill {spent[0]} {spent[1]}" in page
    assert cost in page
    assert "Cost in" in page
    assert "Nothing was used" in await neighbour.get("/console/usage?days=nonsense")
