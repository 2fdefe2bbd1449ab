"""What the workflows' Code nodes make of their input, run by node as n8n runs them."""

import json
import random
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from db.rollups import Complaint, RollUp
from master.learning.proposals import MOST_AT_ONCE, REMEDIES, proposals
from millrace.n8n_files import WORKFLOWS, assignments

Item = dict[str, Any]
HARNESS = """
const AsyncFunction = (async () => {}).constructor;
const wrap = (items) => ({
  all: () => items, first: () => items[0], item: items[0], last: () => items.at(-1),
});
let text = '';
process.stdin.on('data', (piece) => { text += piece; });
process.stdin.on('end', async () => {
  const { code, cases } = JSON.parse(text);
  const run = new AsyncFunction('$', '$input', code);
  const made = [];
  for (const { nodes, input } of cases) {
    made.push(await run((name) => wrap(nodes[name]), wrap(input)));
  }
  console.log(JSON.stringify(made));
});
"""


def items(*rows: Any) -> list[Item]:
    return [{"json": row, "pairedItem": {"item": index}} for index, row in enumerate(rows)]


def flow(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((WORKFLOWS / f"{name}.json").read_text("utf-8"))
    return found


def settings(name: str) -> list[Item]:
    return items({each["name"]: each["value"] for each in assignments(flow(name))})


def run(workflow: str, node: str, *cases: tuple[list[Item], dict[str, list[Item]]]) -> list[Any]:
    """What the code of a node gives for each case of its input and of other nodes' items."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("there is no node on this machine to run the workflows' code with")
    [code] = [n["parameters"]["jsCode"] for n in flow(workflow)["nodes"] if n["name"] == node]
    given = [{"input": each, "nodes": others} for each, others in cases]
    done = subprocess.run(
        [program, "-e", HARNESS],
        input=json.dumps({"code": code, "cases": given}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [[item["json"] for item in made] for made in json.loads(done.stdout)]


# --- feedback-collect ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"request": "0b6f0c58-3a52-4a4e-9f6e-0d3f1c6f5a01", "rating": 1}, ""),
        ({"rating": 1}, "request must be"),
        ({"request": 7}, "request must be"),
        ({"request": "0" * 32, "comment": "a\0b"}, "null character"),
        ({"request": "0" * 32, "comment": "x" * 150_001}, "too long"),
        ([1], "JSON object"),
        ("text", "JSON object"),
        (None, "JSON object"),
    ],
    ids=["good", "no request", "odd request", "null", "long", "list", "text", "nothing"],
)
def test_a_note_is_checked_before_it_is_stored(body: Any, problem: str) -> None:
    [[made]] = run("feedback-collect", "Check note", (items({"body": body}), {}))
    assert problem in made["problem"]
    assert bool(problem) == bool(made["problem"])
    assert made["note"] == ({} if problem else body)


def test_ratings_are_stored_without_the_chat_and_what_is_none_is_left_out() -> None:
    rating = {"id": "r1", "user_id": "u", "type": "rating", "updated_at": 5, "data": {"rating": 1}}
    given = items({**rating, "snapshot": {"chat": "all of it"}}, {"error": "404"}, {"id": 7}, None)
    [[made]] = run("feedback-collect", "Leave out the chat", (given, {}))
    assert (made["id"], made["changed"]) == ("r1", 5)
    assert "snapshot" not in made["note"]
    [[listed]] = run("feedback-collect", "Gather list", (items(rating, {"id": 7}, {}), {}))
    assert listed == {"listed": [{"id": "r1", "updated_at": 5}]}


# --- rules-update --------------------------------------------------------------------------------

TENANT = UUID(int=1)
MODELS = ("small", "large", "other")


def a_rollup(chance: random.Random) -> list[RollUp]:
    rows = []
    for asked, strategy in (("auto", "direct"), ("auto", "split"), ("rag", "rag"), ("direct",) * 2):
        for model in chance.sample(MODELS, chance.randint(0, 3)):
            votes = chance.choice([0, 5, 25, 60])
            rows.append(
                RollUp(
                    tenant_id=TENANT,
                    asked=asked,
                    strategy=strategy,
                    kind=chance.choice(["answer", "answer", "synthesis"]),
                    model=model,
                    rule_id=None,
                    rule_name=None,
                    rule_version=None,
                    arm=None,
                    requests=chance.randint(1, 200),
                    judged=chance.choice([votes, 100, 400]),
                    votes=votes,
                    mean_score=round(chance.random(), 3) if votes else None,
                    raters=chance.choice([2, 4, 12]) if votes else 0,
                    stops=0,
                    retries=0,
                    p50_seconds=1.0,
                    prompt_tokens=0,
                    completion_tokens=0,
                )
            )
    return rows


def some_complaints(chance: random.Random) -> list[Complaint]:
    words = chance.sample([*REMEDIES, "unheard-of"], chance.randint(0, 3))
    return [
        Complaint(
            TENANT, "auto", word, chance.randint(1, 40), chance.randint(1, 9), [UUID(int=index)]
        )
        for index, word in enumerate(words)
    ]


def rows_of(found: Sequence[RollUp | Complaint]) -> list[Item]:
    return items(*[json.loads(json.dumps(vars(each), default=str)) for each in found])


def test_n8n_proposes_what_millrace_would_propose_from_the_same_numbers() -> None:
    chance = random.Random(7)
    worlds = [(a_rollup(chance), some_complaints(chance)) for _ in range(300)]
    cases: list[tuple[list[Item], dict[str, list[Item]]]] = [
        (
            [],
            {
                "Settings": settings("rules-update"),
                "Roll-up": rows_of(rollup),
                "Complaints": rows_of(complaints),
            },
        )
        for rollup, complaints in worlds
    ]
    made = run("rules-update", "Draft proposals", *cases)
    some = 0
    for (rollup, complaints), drafts in zip(worlds, made, strict=True):
        wanted = proposals(rollup, complaints, [], datetime(2026, 1, 1, tzinfo=UTC))
        assert len(drafts) <= MOST_AT_ONCE
        assert [(d["name"], d["scope"], d["change"]) for d in drafts] == [
            (p.name, p.scope, p.change) for p in wanted
        ]
        assert all(d["tenant"] == str(TENANT) and len(d["note"]) <= 2000 for d in drafts)
        some += len(drafts)
    assert some > 30


def test_nothing_is_proposed_where_nothing_was_said() -> None:
    nothing = {"Settings": settings("rules-update"), "Roll-up": items({}), "Complaints": items({})}
    assert run("rules-update", "Draft proposals", ([], nothing)) == [[]]


# --- activity-watch, error-handling --------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "readable"),
    [
        ('{"type": "request.completed"}', True),
        ("no JSON", False),
        ("[]", False),
        ("null", False),
        ('{"type": "a\\u0000b"}', False),
        ({"type": "parsed already"}, True),
        (None, False),
    ],
    ids=["event", "no JSON", "list", "null", "null character", "object", "nothing"],
)
def test_an_event_is_read_or_said_to_be_none(content: Any, readable: bool) -> None:
    given = items({"content": content, "properties": {"headers": {"x-millrace-tries": "3"}}})
    [[made]] = run("activity-watch", "Read event", (given, {}))
    assert (made["problem"] == "") is readable
    assert made["tries"] == 3


def test_only_many_failures_are_told_and_cancelled_ones_do_not_count() -> None:
    def endings(completed: int, failed: int, cancelled: int) -> dict[str, Any]:
        counts = {"completed": completed, "failed": failed, "expired": 0, "cancelled": cancelled}
        return {"tenant": str(TENANT), "tenant_name": "acme", **counts}

    others = {"Settings": settings("activity-watch")}
    given = items(endings(4, 6, 0), endings(2, 7, 50), endings(6, 5, 0), {})
    [made] = run("activity-watch", "Judge endings", (given, others))
    assert [each["message"][:19] for each in made] == ["6 of 10 requests of"]


@pytest.mark.parametrize(
    ("failure", "key"),
    [
        (
            {
                "workflow": {"id": "w", "name": "W"},
                "execution": {"id": "1", "lastNodeExecuted": "N", "error": {"message": "m"}},
            },
            "workflow:w:N",
        ),
        (
            {
                "workflow": {"id": "w"},
                "trigger": {"error": {"message": "m", "node": {"name": "T"}}},
            },
            "workflow:w:T",
        ),
        ({}, "workflow:?:its trigger"),
        (None, "workflow:unknown"),
    ],
    ids=["execution", "trigger", "empty", "nothing"],
)
def test_a_failure_is_described_whatever_it_looks_like(failure: Any, key: str) -> None:
    [[made]] = run("error-handling", "Describe failure", (items(failure), {}))
    assert made["key"] == key
    assert made["message"]


# --- weekly-report -------------------------------------------------------------------------------


def test_a_report_has_a_mind_map_whose_labels_cannot_break_it() -> None:
    week = {
        "requests": 3,
        "states": {"completed": 3},
        "strategies": [
            {"strategy": "auto|x", "requests": 3, "p50_seconds": 1, "judged": 1, "mean_score": None}
        ],
        "models": [{"model": 'a"((b))', "executions": 3, "tokens": 9.0, "engine_seconds": 1.5}],
        "judged": 1,
        "raters": 1,
        "mean_score": 0.5,
        "reasons": [{"reason": "]]\nevil", "times": 2}],
        "rules": [{"name": "r", "version": 1, "kind": "prompt", "state": "proposed"}],
        "alerts": [],
    }
    period = items({"starts": "2026-01-01T00:00:00Z", "ends": "2026-01-08T00:00:00Z"})
    given = items(
        {"tenant": str(TENANT), "tenant_name": "acme", "week": week},
        {"tenant": str(TENANT), "tenant_name": "empty", "week": None},
    )
    [[made, broken]] = run("weekly-report", "Write report", (given, {"Last seven days": period}))
    mind_map = made["report"].split("```mermaid")[1].split("```")[0].splitlines()
    assert mind_map[1:3] == ["mindmap", "  root((acme))"]
    assert all(set(line) & set('[]"|') == set() for line in mind_map)
    assert [line for line in mind_map if "(" in line] == ["  root((acme))"]
    assert "1 proposed rule waits" in made["report"]
    assert "| auto x | 3 |" in made["report"]
    assert "could not be written" in broken["report"]
