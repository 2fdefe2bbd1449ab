"""What people say of answers changes the next ones, with nobody in between."""

import asyncio
from typing import Any

from bus.protocol import Delivery
from millrace.chaos.stack import until
from queue_schemas import topology
from tests.integration.master.mill import Mill, a_script, installation

RHYME = "Answer in rhyme."
POET = a_script("mill", text="prose", rules=[{"contains": RHYME, "text": "rhyme"}])
EAGER: dict[str, Any] = {
    "learning_seconds": 0.2,
    "rules_trial_votes": 10,
    "rules_trial_raters": 3,
}
MOST_QUESTIONS = 120
PEOPLE = 12


async def asked(mill: Mill, person: str) -> tuple[str, str]:
    """What was answered, and the request."""
    answer = await mill.ask("How is the sea?", user=person)
    assert answer.status_code == 200, answer.text
    said: str = answer.json()["choices"][0]["message"]["content"]
    return said, answer.headers["x-millrace-request-id"]


async def rate(mill: Mill, number: int) -> None:
    """Somebody asks, and likes verse."""
    person = f"person-{number % PEOPLE}"
    said, request = await asked(mill, person)
    body = {"request": request, "rating": 1 if said == "rhyme" else -1, "user": person}
    answer = await mill.http.post("/v1/feedback", json=body)
    assert answer.status_code == 201, answer.text


async def the_rule(mill: Mill, rule: str) -> dict[str, Any]:
    answer = await mill.http.get(f"/v1/rules/{rule}")
    found: dict[str, Any] = answer.json()
    return found


async def decided(mill: Mill, rule: str) -> dict[str, Any] | None:
    found = await the_rule(mill, rule)
    return found if found["state"] != "canary" else None


async def test_a_rule_on_trial_becomes_active_by_what_people_say(migrated_url: str) -> None:
    async with installation(migrated_url, POET, **EAGER) as mill:
        seen: list[str] = []

        async def note(delivery: Delivery) -> None:
            seen.append(delivery.body.decode())
            await delivery.ack()

        await mill.running.bus.watch(topology.watcher("test"), "rule.*", note)
        change = {"kind": "prompt", "text": RHYME}
        made = await mill.http.post("/v1/rules", json={"name": "verse", "change": change})
        rule = made.json()["id"]
        tried = await mill.http.post(f"/v1/rules/{rule}/try", json={"share": 0.5})
        assert tried.status_code == 200, tried.text
        number = 0
        while (found := await the_rule(mill, rule))["state"] == "canary":
            assert found["trial"]["control"]["mean"] in {0.5, 0.0}  # no vote, or none for prose
            if number == MOST_QUESTIONS:  # enough was said: a round has to see it
                found = await until(lambda: decided(mill, rule), 60)
                break
            await asyncio.gather(*[rate(mill, number + place) for place in range(PEOPLE)])
            number += PEOPLE

        assert (found["state"], found["measured"], found["decided_by"]) == ("active", True, "trial")
        assert found["note"].startswith("better: 1.00 with it (")

        async def told() -> bool:
            return any('"rule.active"' in event and '"by":"trial"' in event for event in seen)

        await until(told, 30)

        async def holds() -> bool:
            said, request = await asked(mill, "somebody")
            [used] = (await mill.record(request))["plan"]["rules"]
            assert (said == "rhyme") is (used["arm"] != "control"), used
            return bool(used["arm"] == "active")  # a replica hears of it within a second

        await until(holds, 30)
