"""An installation that looks lived in: for tests of every page of the console, and its pictures."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Final
from uuid import UUID

import asyncpg

from bench import console_examples, console_filling
from millrace.chaos.stack import until
from tests import servers
from tests.integration.master.mill import Mill, installation

MODELS: Final = ("qwen3:8b", "llama3.2:3b", "gemma3:12b")
SLOWLY: Final = "Slowly, please"
UNHURRIED: Final = "in no hurry"
_FLOOD: Final = "when the flood comes"
_FAULTS: Final[list[dict[str, Any]]] = [
    {"kind": "slow", "contains": SLOWLY, "after_tokens": 1, "seconds": 0.08},
    {"kind": "slow", "contains": UNHURRIED, "after_tokens": 1, "seconds": 20},
    {
        "kind": "fail",
        "contains": _FLOOD,
        "error_kind": "poison",
        "code": "worker_lost",
        "message": "the engine ended while it answered",
    },
]
_DOCUMENTS: Final = {
    "wheels.txt": "An overshot wheel takes its water at the top. It uses up to 85 per cent of the "
    "fall, and wants a fall of three metres or more. A breastshot wheel takes it at the axle.",
    "stones.txt": "The runner stone turns and the bedstone rests. Their furrows are dressed with a "
    "mill bill every two or three weeks, sooner where much rye is ground.",
    "water rights.txt": "Whoever opens the sluice lowers the pond of the mill above. Customs of "
    "the valley say that the pond may fall by a hand, and no further, between May and September.",
    "timetable.txt": "The mill is open on Sundays from April to October. Groups ring the warden.",
}
_RULES: Final[tuple[dict[str, Any], ...]] = (
    {
        "name": "say-why",
        "change": {"kind": "prompt", "text": "Give the reason first. Keep to 200 words."},
        "note": "People asked why.",
    },
    {
        "name": "short-answers",
        "scope": {"strategy": "direct"},
        "change": {"kind": "prompt", "text": "Answer in at most five sentences."},
    },
    {
        "name": "rhymes",
        "change": {"kind": "prompt", "text": "Answer in rhyme."},
    },
    {
        "name": "say-why",
        "change": {
            "kind": "prompt",
            "text": "Give the reason first, in one sentence. Keep to 120 words, without headings.",
        },
        "note": "Answers are still too long: eleven comments of this week say so.",
    },
)
_VOTES: Final = """
    UPDATE millrace.requests r
       SET plan = jsonb_set(plan, '{rules}', jsonb_build_array(jsonb_build_object(
               'id', $1::text, 'name', 'short-answers', 'version', 1, 'kind', 'prompt',
               'arm', CASE WHEN v.n % 2 = 0 THEN 'canary' ELSE 'control' END)))
      FROM (SELECT j.request_id, row_number() OVER (ORDER BY j.created_at) AS n
              FROM millrace.judgements j JOIN millrace.requests q ON q.id = j.request_id
             WHERE j.kind = 'human' AND q.created_at > now() - interval '20 days'
             LIMIT 50) v
     WHERE r.id = v.request_id AND r.plan ->> 'strategy' <> 'ensemble'
"""
# People like it short: of the answers under the rule only one in six is found bad.
_LIKED: Final = """
    UPDATE millrace.judgements j SET score = 1, rating = '{"thumb": 1}', comment = NULL
      FROM millrace.requests r
     WHERE r.id = j.request_id AND r.plan #>> '{rules,0,arm}' = 'canary'
       AND hashtext(r.id::text) % 6 <> 0
"""
_TRIED: Final = """
    UPDATE millrace.rules
       SET created_at = now() - interval '25 days', decided_at = now() - interval '24 days',
           changed_at = now() - interval '24 days'
     WHERE id = $1
"""


def entry(name: str, slots: int, **script: Any) -> dict[str, Any]:
    """One of the town's models."""
    made = console_examples.script(**script)
    made["options"]["faults"] = [*_FAULTS, *made["options"]["faults"]]
    return {"name": name, "slots": slots, **made}


@contextlib.asynccontextmanager
async def a_town(
    postgres_url: str, template: str, *, copies: int, slowest: float = 40.0, **script: Any
) -> AsyncGenerator[Mill]:
    """With so many requests behind it, documents, rules on trial, a dead subtask and open ones."""
    url = servers.create_database(postgres_url, template=template)
    try:
        models = [
            entry(name, slots, **script) for name, slots in zip(MODELS, (8, 4, 2), strict=True)
        ]
        # What runs goes on for as long as one looks, also where all stands still for a while.
        patient = {"lease_seconds": 60, "rules_trial_votes": 10_000, "ingest_seconds": 0.2}
        async with installation(url, *models, **patient) as mill:
            await settle(mill, copies, slowest)
            yield mill
    finally:
        servers.drop_database(postgres_url, url)


async def settle(mill: Mill, copies: int, slowest: float) -> None:
    """Let it have a past and a present."""
    examples = await console_examples.ask(mill.http, MODELS[0])
    rules = [await _propose(mill, body) for body in _RULES]
    await _decide(mill, rules)
    await console_filling.fill(
        mill.database_url, examples, copies, model=MODELS[0], models=MODELS, slowest=slowest
    )
    await _vote(mill, rules[1])
    await _write_documents(mill)
    await mill.ask(f"What does the miller do {_FLOOD}?", MODELS[0])
    asked = "\n".join(f"{n}. Describe sluice {n}; I am {UNHURRIED}." for n in range(1, 9))
    for model in ("millrace/split", MODELS[1], MODELS[2]):
        body = {"model": model, "input": asked, "background": True, "user": "ada"}
        (await mill.http.post("/v1/responses", json=body)).raise_for_status()


async def _propose(mill: Mill, body: dict[str, Any]) -> UUID:
    answer = await mill.http.post("/v1/rules", json=body)
    assert answer.status_code == 201, answer.text
    if body["name"] == "say-why" and "note" in body and answer.json()["version"] == 1:
        approved = await mill.http.post(f"/v1/rules/{answer.json()['id']}/approve", json={})
        approved.raise_for_status()
    return UUID(answer.json()["id"])


async def _decide(mill: Mill, rules: list[UUID]) -> None:
    for path, body in (
        (f"{rules[1]}/try", {"share": 0.5}),
        (f"{rules[2]}/reject", {"note": "Nobody wants to read that."}),
    ):
        (await mill.http.post(f"/v1/rules/{path}", json=body)).raise_for_status()


async def _vote(mill: Mill, rule: UUID) -> None:
    connection = await asyncpg.connect(mill.database_url)
    try:
        await connection.execute(_VOTES, str(rule))
        await connection.execute(_LIKED)
        await connection.execute(_TRIED, rule)
    finally:
        await connection.close()


async def _write_documents(mill: Mill) -> None:
    files = [("files", (name, text.encode())) for name, text in _DOCUMENTS.items()]
    files.append(("files", ("plan of the mill.pdf", b"%PDF-1.7 and nothing more")))
    sent = await mill.http.post(
        "/v1/documents", files=files, data={"collection": "handbook", "strategy": "sparse"}
    )
    assert sent.status_code == 202, sent.text

    async def all_ended() -> bool:
        listed = (await mill.http.get("/v1/documents?collection=handbook")).json()["data"]
        return all(one["state"] in {"ready", "failed"} for one in listed)

    await until(all_ended, 60)
