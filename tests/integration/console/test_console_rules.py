"""Rules and feedback in the console, over real HTTP."""

import re
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from sqlalchemy import text

from db import judgements
from db.judgements import NewJudgement
from db.models import JudgementKind, JudgementSource
from db.tenancy import as_tenant
from master.rules.rule import Arm
from millrace.one_machine import make_key
from tests.integration.console.browsing import Person, signed_in, tenant_of, words
from tests.integration.db.rated import answered, human, used, voted
from tests.integration.master.mill import Mill, a_script, installation

RULES, FEEDBACK = "/console/rules", "/console/feedback"
HOSTILE = '</dd><script>alert("1")</script>'

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installed(shared_url: str) -> AsyncGenerator[Mill]:
    async with installation(shared_url, a_script()) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def acme(mill: Mill) -> UUID:
    """The tenant of the test."""
    return await tenant_of(mill)


async def propose(mill: Mill, words: str = "Be brief.", **more: Any) -> dict[str, Any]:
    body = {"name": "brief", "change": {"kind": "prompt", "text": words}, **more}
    answer = await mill.http.post("/v1/rules", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def state(mill: Mill, rule: dict[str, Any]) -> tuple[str, float | None, str | None]:
    found = (await mill.http.get(f"/v1/rules/{rule['id']}")).json()
    return found["state"], found["share"], found["note"]


async def test_a_proposal_is_compared_approved_and_rolled_back(mill: Mill, person: Person) -> None:
    assert "There are no rules yet." in await person.get(RULES)
    first = await propose(mill)
    await person.post(f"{RULES}/{first['id']}/approve", note=" people ask for it ")
    assert await state(mill, first) == ("active", None, "people ask for it")
    second = await propose(mill, "Be very brief.", scope={"strategy": "rag"})
    page = await person.get(f"{RULES}/{second['id']}")
    assert "What changes from version 1 (active)" in page
    assert "Be<ins> very</ins> brief." in page
    assert "<del>everywhere</del><ins>strategy rag</ins>" in page
    assert "version 1 retires" in page
    moved = await person.post(f"{RULES}/{second['id']}/approve")
    assert moved.headers["location"] == f"{RULES}/{second['id']}?done"
    done = words(await person.get(moved.headers["location"]))
    assert "Version 2 of brief is active now." in done
    assert "by key:tests (mr-" in done
    back = await person.post(f"{RULES}/brief/rollback", version="", note="too short")
    assert back.headers["location"] == f"{RULES}/{first['id']}?done"
    assert (await state(mill, first))[0] == "active"
    listed = words(await person.get(RULES))
    assert "Active Rule" in listed
    assert "Retired Rule" in listed
    assert "brief@2" not in words(await person.get(f"{RULES}?state=active"))
    none = await person.post(f"{RULES}/brief/rollback", version="0")
    assert none.status_code == 303
    again = await person.post(f"{RULES}/brief/rollback", version="2")
    assert again.headers["location"] == f"{RULES}/{second['id']}?done"
    against = words(await person.get(f"{RULES}/{second['id']}?against=1"))
    assert "What changes from version 1 (retired)" in against


async def test_a_proposal_is_tried_and_rejected_with_a_reason(mill: Mill, person: Person) -> None:
    rule = await propose(mill)
    await person.post(f"{RULES}/{rule['id']}/try", share="")
    assert (await state(mill, rule))[0] == "shadow"
    await person.post(f"{RULES}/{rule['id']}/try", share="20")
    assert (await state(mill, rule))[:2] == ("canary", 0.2)
    assert "for 20 % of what fits" in await person.get(f"{RULES}/{rule['id']}")
    await person.post(f"{RULES}/{rule['id']}/reject", note="it leaves too much out")
    assert await state(mill, rule) == ("rejected", None, "it leaves too much out")
    assert "decide-title" not in await person.get(f"{RULES}/{rule['id']}")


async def test_what_cannot_be_decided_is_refused_with_the_words_of_the_api(
    mill: Mill, person: Person
) -> None:
    rule = await propose(mill)
    at = f"{RULES}/{rule['id']}"
    for path, form, status, said in (
        (f"{at}/try", {"share": "many"}, 400, "number of per cent"),
        (f"{at}/try", {"share": "nan"}, 400, "share"),
        (f"{at}/try", {"share": "0"}, 400, "share"),
        (f"{at}/try", {"share": "101"}, 400, "share"),
        (f"{at}/approve", {"note": "x" * 2001}, 400, "note"),
        (f"{at}/approve", {"csrf": "forged"}, 403, "not of this session"),
        (f"{RULES}/brief/rollback", {"version": "-1"}, 400, "whole number"),
        (f"{RULES}/brief/rollback", {"version": "999999999999"}, 400, "whole number"),
        (f"{RULES}/brief/rollback", {}, 409, "nothing to take back"),
        (f"{RULES}/nothing/rollback", {}, 404, "not_found"),
        (f"{RULES}/nothing/approve", {}, 404, "not_found"),
        (f"{RULES}/{uuid4()}/approve", {}, 404, "not_found"),
    ):
        answer = await person.post(path, status=status, **form)
        assert said in words(answer.text), (path, form)
    for path, status in (
        (f"{RULES}?state=asleep", 400),
        (f"{RULES}/nothing", 404),
        (f"{at}?against=many", 200),
        (f"{FEEDBACK}?verdict=fine", 400),
        (f"{FEEDBACK}?kind=none", 400),
        (f"{FEEDBACK}?before=yesterday", 400),
        (f"{FEEDBACK}?before=2026-01-01T00:00:00~{uuid4()}", 400),
    ):
        assert "</html>" in await person.get(path, status=status)
    assert (await state(mill, rule))[0] == "proposed"


async def test_a_trial_is_drawn_with_its_numbers_and_in_words(
    mill: Mill, person: Person, acme: UUID
) -> None:
    rule = await propose(mill)
    await person.post(f"{RULES}/{rule['id']}/try", share="50")
    assert "no votes yet" in await person.get(f"{RULES}/{rule['id']}")
    for arm, good, bad in ((Arm.CANARY, 9, 1), (Arm.CONTROL, 4, 6)):
        fitted = used(UUID(rule["id"]), arm)
        await voted(mill.running.engine, acme, fitted, good=good, bad=bad, raters=10)
    page = await person.get(f"{RULES}/{rule['id']}")
    assert page.count('<svg class="lift"') == 2
    assert "with it 0.90, between 0.60 and 0.98, of 10 votes" in page
    assert "Not decided: 0.90 with it (10 votes, 10 raters)" in page
    assert "With it 0.90 0.60 and 0.98 10 10" in words(page)
    assert "style=" not in page


async def test_evidence_leads_to_requests_and_back(mill: Mill, person: Person, acme: UUID) -> None:
    engine = mill.running.engine
    request = await answered(engine, acme, human("ann", 0.0, comment="far too long"), by="ann")
    query = "SELECT id FROM millrace.judgements WHERE tenant_id = :tenant"
    [(judged,)] = await mill.rows(query, tenant=acme)
    provenance = {"feedback": [str(judged), str(uuid4())], "workflow": "weekly"}
    rule = await propose(mill, note="they complain", provenance=provenance)
    page = await person.get(f"{RULES}/{rule['id']}")
    assert f'href="/console/requests/{request}"' in page
    said = words(page)
    assert "Bad far too long" in said
    assert "1 more judgement is named that is not there any more." in said
    assert "Workflow weekly" in said
    fitted = [used(UUID(rule["id"]), Arm.SHADOW)]
    await answered(engine, acme, human("bob", 1.0), by="bob", rules=fitted)
    listed = await person.get(FEEDBACK)
    assert listed.count(f'href="/console/rules/{rule["id"]}"') == 2
    assert words(listed).count("evidence for brief@1") == 1


async def test_feedback_is_listed_newest_first_filtered_and_in_pages(
    mill: Mill, person: Person, acme: UUID
) -> None:
    engine = mill.running.engine
    many = [human(f"p{number}", number % 2, comment=f"comment {number};") for number in range(33)]
    stop = NewJudgement(JudgementKind.STOP, "user:", JudgementSource.SYSTEM, reason="left")
    request = await answered(engine, acme, *many, stop)
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "UPDATE millrace.judgements SET updated_at = now() - make_interval(mins =>"
                " CAST(coalesce(substring(comment FROM '\\d+'), '99') AS integer))"
                " WHERE tenant_id = :tenant"
            ),
            {"tenant": acme},
        )
    first = await person.get(FEEDBACK)
    numbers = re.findall(r"comment (\d+);", first)
    assert numbers == [str(number) for number in range(30)]
    [following] = re.findall(r'rel="next" href="([^"]+)"', first)
    second = await person.get(following.replace("&amp;", "&"))
    assert re.findall(r"comment (\d+);", second) == ["30", "31", "32"]
    assert "left" in second
    good = re.findall(r"comment (\d+);", await person.get(f"{FEEDBACK}?verdict=good"))
    assert good == [str(number) for number in range(1, 33, 2)]
    stops = words(await person.get(f"{FEEDBACK}?kind=stop&source=system&verdict=none"))
    assert "left" in stops
    assert "comment" not in stops
    async with as_tenant(engine, acme) as connection:
        assert len(await judgements.of_request(connection, acme, request, 50)) == 34


async def test_texts_of_rules_and_people_are_shown_and_never_obeyed(
    mill: Mill, person: Person, acme: UUID
) -> None:
    rule = await propose(
        mill, HOSTILE, scope={"topic": [HOSTILE]}, note=HOSTILE, provenance={"workflow": HOSTILE}
    )
    await propose(mill, f"{HOSTILE} more")
    said = human(HOSTILE, 1.0, comment=HOSTILE, correction=HOSTILE, reason=HOSTILE)
    await answered(mill.running.engine, acme, said, by=HOSTILE)
    for path in (RULES, f"{RULES}/{rule['id']}", f"{RULES}/{rule['id']}?against=2", FEEDBACK):
        page = await person.get(path)
        assert "<script>alert" not in page, path
        assert HOSTILE in words(page.replace("&lt;", "\0").replace("\0", "&lt;")), path


async def test_other_tenants_see_and_decide_nothing(mill: Mill, person: Person, acme: UUID) -> None:
    rule = await propose(mill)
    await answered(mill.running.engine, acme, human("ann", 1.0, comment="secret"))
    other = await make_key(mill.database_url, "others", "tests")
    async with signed_in(mill.url, other) as stranger:
        assert "brief" not in await stranger.get(RULES)
        await stranger.get(f"{RULES}/{rule['id']}", status=404)
        for verb in ("approve", "reject", "try"):
            await stranger.post(f"{RULES}/{rule['id']}/{verb}", status=404)
        await stranger.post(f"{RULES}/brief/rollback", status=404)
        assert "secret" not in await stranger.get(FEEDBACK)
    assert (await state(mill, rule))[0] == "proposed"
