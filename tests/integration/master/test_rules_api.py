"""`/v1/rules`: proposed, tried, approved, rejected and taken back, by the tenant alone."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from bus.protocol import Delivery
from millrace.chaos.stack import until
from millrace.one_machine import make_key
from queue_schemas import topology
from tests.integration.master.mill import Mill, a_script, installation

PATH = "/v1/rules"
ALICE = {"x-openwebui-user-id": "alice"}


@pytest.fixture
async def mill(migrated_url: str) -> AsyncGenerator[Mill]:
    async with installation(migrated_url, a_script(), a_script(name="large")) as made:
        yield made


def brief(words: str = "Be brief.", **more: Any) -> dict[str, Any]:
    return {"name": "brief", "change": {"kind": "prompt", "text": words}, **more}


def route(name: str, to: str, /, **scope: Any) -> dict[str, Any]:
    return {"name": name, "scope": scope, "change": {"kind": "route", "model": to}}


async def propose(mill: Mill, body: dict[str, Any], status: int = 201) -> dict[str, Any]:
    answer = await mill.http.post(PATH, json=body)
    assert answer.status_code == status, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def act(mill: Mill, rule: dict[str, Any], verb: str, **body: Any) -> httpx2.Response:
    return await mill.http.post(f"{PATH}/{rule['id']}/{verb}", json=body)


async def acted(mill: Mill, rule: dict[str, Any], verb: str, **body: Any) -> dict[str, Any]:
    answer = await act(mill, rule, verb, **body)
    assert answer.status_code == 200, answer.text
    moved: dict[str, Any] = answer.json()
    return moved


async def shown(mill: Mill, rule: dict[str, Any]) -> dict[str, Any]:
    answer = await mill.http.get(f"{PATH}/{rule['id']}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_proposal_is_stored_as_it_was_said(mill: Mill) -> None:
    judged = str(uuid4())
    body = brief(
        scope={"strategy": "rag", "topic": ["tax", "VAT"]},
        provenance={"feedback": [judged], "workflow": "weekly"},
        note="too long",
    )
    made = await propose(mill, body)
    assert (made["name"], made["version"], made["kind"]) == ("brief", 1, "prompt")
    assert (made["state"], made["share"], made["parent"]) == ("proposed", None, None)
    assert made["scope"] == {"strategy": "rag", "topic": ["tax", "VAT"]}
    assert made["change"] == {"kind": "prompt", "text": "Be brief."}
    assert made["provenance"].pop("by").startswith("key:tests (mr-")
    assert made["provenance"] == {"feedback": [judged], "workflow": "weekly"}
    assert (made["note"], made["decided_by"]) == ("too long", None)
    assert await propose(mill, body, 200) == await propose(mill, {**body, "note": "again"}, 200)
    assert (await propose(mill, brief()))["version"] == 2


async def test_a_rule_is_tried_approved_and_taken_back(mill: Mill) -> None:
    first = await propose(mill, brief())
    moved = await acted(mill, first, "try")
    assert (moved["state"], moved["share"]) == ("shadow", None)
    moved = await acted(mill, first, "try", share=0.2, user="bob")
    assert (moved["state"], moved["share"], moved["decided_by"]) == ("canary", 0.2, "user:bob")
    answer = await mill.http.post(f"{PATH}/{first['id']}/approve", headers=ALICE)  # no body at all
    moved = answer.json()
    assert (moved["state"], moved["share"], moved["decided_by"]) == ("active", None, "user:alice")
    assert (moved["measured"], moved["decided_at"]) == (False, moved["changed_at"])
    second = await propose(mill, brief("Be very brief."))
    assert second["parent"] == first["id"]
    await acted(mill, second, "approve", note="people like it")
    found = await shown(mill, second)
    assert found["note"] == "people like it"
    assert [(each["version"], each["state"]) for each in found["history"]] == [
        (2, "active"),
        (1, "retired"),
    ]
    back = await mill.http.post(f"{PATH}/brief/rollback")
    assert [(each["version"], each["state"]) for each in back.json()["data"]] == [
        (1, "active"),
        (2, "retired"),
    ]
    none = await mill.http.post(f"{PATH}/brief/rollback", json={"version": 0, "user": "bob"})
    [gone] = none.json()["data"]
    assert (gone["version"], gone["state"], gone["decided_by"]) == (1, "retired", "user:bob")
    to_first = await mill.http.post(f"{PATH}/brief/rollback", json={"version": 1})
    assert to_first.json()["data"][0]["state"] == "active"


async def test_lists_can_be_narrowed_and_say_when_there_is_more(mill: Mill) -> None:
    for words in ("one", "two"):
        await propose(mill, brief(words))
    await acted(mill, await propose(mill, route("away", "large")), "reject")
    listed = (await mill.http.get(PATH)).json()
    assert [(each["name"], each["version"]) for each in listed["data"]] == [
        ("away", 1),
        ("brief", 2),
        ("brief", 1),
    ]
    assert not listed["has_more"]
    few = (await mill.http.get(PATH, params={"name": "brief", "limit": 1})).json()
    assert ([each["version"] for each in few["data"]], few["has_more"]) == ([2], True)
    rejected = (await mill.http.get(PATH, params={"state": "rejected"})).json()["data"]
    assert [each["name"] for each in rejected] == ["away"]
    for wrong in ({"state": "asleep"}, {"name": "No!"}, {"limit": 0}, {"colour": "red"}):
        assert (await mill.http.get(PATH, params=wrong)).status_code == 400, wrong


async def test_a_move_that_the_table_does_not_have_is_refused(mill: Mill) -> None:
    rule = await propose(mill, brief())
    assert code(await mill.http.post(f"{PATH}/brief/rollback")) == (409, "wrong_state")
    await acted(mill, rule, "try", share=0.5)
    again = await act(mill, rule, "try")
    assert code(again) == (409, "wrong_state")
    assert again.headers["x-should-retry"] == "false"
    assert again.json()["error"]["message"] == (
        "version 1 of brief is canary; to be shadow it must be proposed"
    )
    other = await propose(mill, brief("Be very brief."))
    second = await act(mill, other, "try", share=0.5)
    assert code(second) == (409, "wrong_state")
    assert "version 1 of brief is on trial already" in second.text
    await acted(mill, rule, "reject")
    for verb in ("approve", "reject", "try"):
        assert code(await act(mill, rule, verb)) == (409, "wrong_state"), verb
    for version in (1, 7):
        back = await mill.http.post(f"{PATH}/brief/rollback", json={"version": version})
        assert code(back) == (409, "wrong_state"), version


async def test_what_cannot_hold_together_is_refused_and_nothing_moves(mill: Mill) -> None:
    old = await propose(mill, route("old", "large"))
    await acted(mill, old, "approve")
    new = await propose(mill, route("new", "mill"))
    for verb, body in (("approve", {}), ("try", {"share": 0.1})):
        refused = await act(mill, new, verb, **body)
        assert code(refused) == (409, "rule_conflict")
        assert refused.json()["error"]["message"] == (
            "it cannot hold beside old (version 1): "
            "it says otherwise which model answers: large, not mill"
        )
    assert (await shown(mill, new))["state"] == "proposed"
    await acted(mill, new, "try")  # in the shadow it changes nothing
    await mill.http.post(f"{PATH}/old/rollback")
    await acted(mill, new, "approve")
    back = await mill.http.post(f"{PATH}/old/rollback", json={"version": 1})
    assert code(back) == (409, "rule_conflict")


async def test_circles_and_rivals_are_refused_also_at_the_same_moment(mill: Mill) -> None:
    there = await propose(mill, route("there", "large", model="mill"))
    await acted(mill, there, "approve")
    back = await propose(mill, route("back", "mill", model="large"))
    refused = await act(mill, back, "approve")
    assert code(refused) == (409, "rule_conflict")
    assert "models go in a circle: large -> mill -> large" in refused.text
    made = [await propose(mill, route(f"r{n}", ("mill", "large")[n])) for n in range(2)]
    answers = await asyncio.gather(*[act(mill, each, "approve") for each in made])
    assert sorted(answer.status_code for answer in answers) == [200, 409]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"change": {"kind": "prompt", "text": "x"}}, "name"),
    (brief() | {"name": "Not a name"}, "name"),
    ({"name": "x"}, "change"),
    (brief() | {"change": {"text": "x"}}, "change.kind"),
    (brief() | {"change": {"kind": "guess"}}, "change.kind"),
    (brief(""), "change.text"),
    (brief("x" * 2001), "change.text"),
    (brief() | {"change": {"kind": "prompt", "text": "x", "tone": "y"}}, "change.tone"),
    (brief() | {"change": {"kind": "route"}}, "change"),
    (brief() | {"change": {"kind": "split", "split": "yes"}}, "change.split"),
    (brief() | {"change": {"kind": "split", "max_parts": 1}}, "change.max_parts"),
    (brief() | {"change": {"kind": "retrieval", "top": True}}, "change.top"),
    (brief(scope={"strategy": "guess"}), "scope.strategy"),
    (brief(scope={"model": "gone"}), "scope.model"),
    (brief(scope={"topic": ["a", ""]}), "scope.topic[1]"),
    (brief(scope={"topic": "tax"}), "scope.topic"),
    (brief(scope={"colour": "red"}), "scope.colour"),
    (route("x", "gone"), "change.model"),
    (brief(provenance={"feedback": ["x"]}), "provenance.feedback[0]"),
    (brief(colour="red"), "colour"),
    (brief(note=7), "note"),
]


async def test_a_wrong_body_is_refused_by_its_field(mill: Mill) -> None:
    for body, param in WRONG:
        answer = await mill.http.post(PATH, json=body)
        assert answer.status_code == 400, (body, answer.text)
        assert answer.json()["error"]["param"] == param, answer.text
        assert param in answer.json()["error"]["message"]
    rule = await propose(mill, brief())
    for verb, body, param in (
        ("try", {"share": 0}, "share"),
        ("try", {"share": 1.5}, "share"),
        ("try", {"share": "20%"}, "share"),
        ("approve", {"share": 0.5}, "share"),
        ("approve", {"note": "x" * 2001}, "note"),
        ("reject", {"user": 7}, "user"),
    ):
        answer = await act(mill, rule, verb, **body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), body
    for version in (-1, "one", 2**31, True):
        back = await mill.http.post(f"{PATH}/brief/rollback", json={"version": version})
        assert (back.status_code, back.json()["error"]["param"]) == (400, "version"), version


async def test_strangers_and_other_tenants_see_nothing(mill: Mill) -> None:
    rule = await propose(mill, brief())
    await acted(mill, rule, "approve")
    other = {"Authorization": f"Bearer {await make_key(mill.database_url, 'other', 'tests')}"}
    assert (await mill.http.get(PATH, headers=other)).json()["data"] == []
    for identity in (rule["id"], str(uuid4()), "nothing", "%00"):
        found = await mill.http.get(f"{PATH}/{identity}", headers=other)
        assert code(found) == (404, "not_found"), identity
        for verb in ("approve", "reject", "try"):
            answer = await mill.http.post(f"{PATH}/{identity}/{verb}", headers=other)
            assert code(answer) == (404, "not_found"), (identity, verb)
    for name in ("brief", "Not a name", "%00"):
        back = await mill.http.post(f"{PATH}/{name}/rollback", headers=other)
        assert code(back) == (404, "not_found"), name
    nobody = {"Authorization": "Bearer mr-nobody"}
    assert code(await mill.http.get(PATH, headers=nobody)) == (401, "invalid_api_key")
    assert (await shown(mill, rule))["state"] == "active"


async def test_those_who_watch_are_told(mill: Mill) -> None:
    seen: list[dict[str, Any]] = []

    async def note(delivery: Delivery) -> None:
        seen.append(json.loads(delivery.body))
        await delivery.ack()

    await mill.running.bus.watch(topology.watcher("test"), "rule.*", note)
    first = await propose(mill, brief())
    await propose(mill, brief(), 200)
    await acted(mill, first, "approve", user="bob")
    second = await propose(mill, brief("Be very brief."))
    await acted(mill, second, "approve")

    async def all_came() -> bool:
        return len(seen) >= 5

    await until(all_came, 30)
    assert [(each["type"], each["detail"]["version"]) for each in seen] == [
        ("rule.proposed", 1),
        ("rule.active", 1),
        ("rule.proposed", 2),
        ("rule.active", 2),
        ("rule.retired", 1),
    ]
    assert seen[1]["detail"]["by"] == "user:bob"
    assert seen[1]["detail"]["id"] == first["id"]
