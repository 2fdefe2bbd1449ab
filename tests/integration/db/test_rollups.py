"""What judgements add up to, who may see it, and who may propose what."""

import json
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest
from pydantic import Field, TypeAdapter, ValidationError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import judgements, rollups, rules
from db.judgements import NewJudgement
from db.models import JudgementKind, JudgementSource
from db.new_requests import NewSubtask
from db.rollups import RollUp
from db.rules import NewRule
from db.tenancy import as_tenant
from master.learning.proposals import REMEDIES
from master.learning.rounds import learn
from master.learning.settings import LearningSettings
from master.rules.rule import RULE_NAME, Arm, Change, Scope
from queue_schemas.states import RuleState
from tests.integration.db.corpus_acts import tenant_named
from tests.integration.db.rated import answered, human, used

DAY = 86_400.0
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
PROMPT = {"kind": "prompt", "text": "Be brief."}


@asynccontextmanager
async def as_n8n(engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
    async with engine.begin() as connection:
        await connection.execute(text("SET LOCAL ROLE millrace_n8n"))
        yield connection


async def rolled_up(engine: AsyncEngine, tenant: UUID | None) -> list[RollUp]:
    async with engine.begin() as connection:
        return await rollups.rollup(connection, tenant, DAY)


async def votes_of(engine: AsyncEngine, tenant: UUID, rule: UUID) -> set[tuple[str, str, float]]:
    async with as_tenant(engine, tenant) as connection:
        found = await rollups.rule_votes(connection, rule, LONG_AGO)
    return {(each.rater, each.arm, each.score) for each in found if each.kind == "human"}


# --- votes on a rule -----------------------------------------------------------------------------


async def test_votes_have_the_arm_of_their_request(engine: AsyncEngine, tenant: UUID) -> None:
    rule, other = uuid4(), uuid4()
    canary = [used(other, Arm.ACTIVE, "other"), used(rule, Arm.CANARY)]
    await answered(engine, tenant, human("ann", 1.0), by="ann", rules=canary)
    await answered(engine, tenant, human("bob", 0.0), by="bob", rules=canary)
    await answered(engine, tenant, human("ann", 0.5), by="ann", rules=[used(rule, Arm.CONTROL)])
    await answered(engine, tenant, human("ann", 1.0), by="ann")
    await answered(engine, tenant, human("ann", None, comment="hm"), by="ann", rules=canary)
    assert await votes_of(engine, tenant, rule) == {
        ("user:ann", "canary", 1.0),
        ("user:bob", "canary", 0.0),
        ("user:ann", "control", 0.5),
    }
    assert await votes_of(engine, tenant, uuid4()) == set()


async def test_who_asked_has_the_one_vote_on_an_answer(engine: AsyncEngine, tenant: UUID) -> None:
    rule = uuid4()
    many = [human(f"anyone-{number}", 1.0) for number in range(9)]
    await answered(
        engine, tenant, human("ann", 0.0), *many, by="ann", rules=[used(rule, Arm.CANARY)]
    )
    await answered(engine, tenant, *many, by="bob", rules=[used(rule, Arm.CONTROL)])
    assert await votes_of(engine, tenant, rule) == {("user:ann", "canary", 0.0)}


async def test_where_nobody_is_known_to_have_asked_all_raters_are_one_with_one_vote(
    engine: AsyncEngine, tenant: UUID
) -> None:
    rule = [used(uuid4(), Arm.CANARY)]
    ann = [human("ann", 1.0), human("ann", 0.0, subject="part-1")]
    await answered(engine, tenant, *ann, human("bob", 0.0), human("", 0.5), rules=rule)
    await answered(engine, tenant, human("eve", 0.25, subject="part-1"), by="", rules=rule)
    async with as_tenant(engine, tenant) as connection:
        found = await rollups.rule_votes(connection, UUID(rule[0]["id"]), LONG_AGO)
    assert sorted((each.rater, each.score) for each in found) == [("user:", 0.25), ("user:", 0.5)]


async def test_a_rating_of_the_answer_counts_before_those_of_its_parts(
    engine: AsyncEngine, tenant: UUID
) -> None:
    rule = [used(uuid4(), Arm.CANARY)]
    whole = [human("ann", 1.0), human("ann", 0.0, subject="part-1")]
    parts = [human("bob", 0.2, subject="part-1"), human("bob", 0.8, subject="part-2")]
    await answered(engine, tenant, *whole, by="ann", rules=rule)
    await answered(engine, tenant, *parts, by="bob", rules=rule)
    found = await votes_of(engine, tenant, UUID(rule[0]["id"]))
    assert found == {("user:ann", "canary", 1.0), ("user:bob", "canary", 0.5)}


async def test_a_changed_rating_counts_as_it_is_now(engine: AsyncEngine, tenant: UUID) -> None:
    rule = uuid4()
    canary = [used(rule, Arm.CANARY)]
    request = await answered(engine, tenant, human("ann", 1.0), by="ann", rules=canary)
    async with as_tenant(engine, tenant) as connection:
        await judgements.put(connection, tenant, request, [human("ann", 0.0)])
    assert await votes_of(engine, tenant, rule) == {("user:ann", "canary", 0.0)}


async def test_judges_are_told_apart_from_people_and_old_votes_left_out(
    engine: AsyncEngine, tenant: UUID
) -> None:
    rule = uuid4()
    judge = [
        NewJudgement(JudgementKind.CHOICE, "step:judge", JudgementSource.PLAN, each, score=score)
        for each, score in (("candidate-1", 0.2), ("candidate-2", 0.6))
    ]
    stop = NewJudgement(JudgementKind.STOP, "user:ann", JudgementSource.SYSTEM)
    await answered(engine, tenant, *judge, stop, rules=[used(rule, Arm.CANARY)])
    async with as_tenant(engine, tenant) as connection:
        [found] = await rollups.rule_votes(connection, rule, LONG_AGO)
        soon = datetime.now(UTC) + timedelta(hours=1)
        assert await rollups.rule_votes(connection, rule, soon) == []
    assert (found.kind, found.rater, found.score) == ("choice", "step:judge", pytest.approx(0.4))


async def test_votes_and_questions_of_another_tenant_are_invisible(
    engine: AsyncEngine, tenant: UUID
) -> None:
    rule, other = uuid4(), await tenant_named(engine, "other")
    await answered(engine, tenant, human("ann", 1.0), rules=[used(rule, Arm.SHADOW)])
    async with as_tenant(engine, tenant) as connection:
        found = await rollups.rule_questions(connection, LONG_AGO, 10)
    assert found == {(rule, "shadow"): 1}
    async with as_tenant(engine, other) as connection:
        assert await rollups.rule_votes(connection, rule, LONG_AGO) == []
        assert await rollups.rule_questions(connection, LONG_AGO, 10) == {}
    async with engine.begin() as connection:  # nobody's transaction
        assert await rollups.rule_votes(connection, rule, LONG_AGO) == []


async def test_a_plan_that_cannot_be_read_is_passed_over(engine: AsyncEngine, tenant: UUID) -> None:
    plans = ("[]", "null", '"x"', '{"rules": 7}', '{"rules": [1, {}]}')
    for plan in plans:
        request = await answered(engine, tenant, human("ann", 1.0))
        async with engine.begin() as connection:
            query = "UPDATE millrace.requests SET plan = CAST(:plan AS jsonb) WHERE id = :id"
            await connection.execute(text(query), {"plan": plan, "id": request})
    assert await votes_of(engine, tenant, uuid4()) == set()
    found = [row.requests for row in await rolled_up(engine, tenant) if row.rule_id is None]
    assert found == [len(plans)]


# --- roll-ups ------------------------------------------------------------------------------------


async def test_a_roll_up_counts_requests_votes_time_and_tokens(
    engine: AsyncEngine, tenant: UUID
) -> None:
    rule = uuid4()
    stop = NewJudgement(JudgementKind.STOP, "user:ann", JudgementSource.SYSTEM)
    retry = NewJudgement(JudgementKind.RETRY, "user:bob", JudgementSource.SYSTEM)
    canary = [used(rule, Arm.CANARY, version=3)]
    await answered(engine, tenant, human("ann", 1.0), human("bob", 0.0), rules=canary)
    await answered(engine, tenant, stop, retry)
    await answered(engine, tenant, model="mill")
    found = {(row.asked, row.rule_id): row for row in await rolled_up(engine, tenant)}
    assert found.keys() == {("auto", None), ("auto", rule), ("direct", None)}
    everything, under = found["auto", None], found["auto", rule]
    assert (everything.strategy, everything.kind, everything.model) == ("direct", "answer", "mill")
    assert (everything.requests, everything.judged, everything.votes) == (2, 1, 2)
    assert (everything.mean_score, everything.raters) == (0.5, 2)
    assert (everything.stops, everything.retries) == (1, 1)
    assert everything.p50_seconds == pytest.approx(2.0)
    assert (everything.prompt_tokens, everything.completion_tokens) == (40, 20)
    assert (under.rule_name, under.rule_version, under.arm) == ("brief", 3, "canary")
    assert (under.requests, under.votes, under.stops) == (1, 2, 0)
    assert (found["direct", None].votes, found["direct", None].mean_score) == (0, None)


async def test_one_rater_counts_three_times_at_most(engine: AsyncEngine, tenant: UUID) -> None:
    for _ in range(9):
        await answered(engine, tenant, human("cheat", 1.0))
    await answered(engine, tenant, human("ann", 0.0))
    [row] = await rolled_up(engine, tenant)
    assert (row.judged, row.votes, row.raters, row.mean_score) == (10, 4, 2, 0.75)


async def test_a_rating_counts_for_the_steps_that_made_the_answer(
    engine: AsyncEngine, tenant: UUID
) -> None:
    steps = [
        NewSubtask(uuid4(), "candidate-1", "candidate", "small"),
        NewSubtask(uuid4(), "candidate-2", "candidate", "large"),
        NewSubtask(uuid4(), "judge-1", "judge", "judge"),
    ]
    said = [human("ann", 1.0), human("bob", 0.0, subject="candidate-1")]
    await answered(
        engine,
        tenant,
        *said,
        model="millrace/ensemble",
        steps=steps,
        strategy="ensemble",
        chosen="candidate-2",
    )
    found = {row.model: row.mean_score for row in await rolled_up(engine, tenant)}
    assert found == {"small": 0.0, "large": 1.0, "judge": None}


async def test_a_roll_up_is_of_one_tenant_or_of_all(engine: AsyncEngine, tenant: UUID) -> None:
    other = await tenant_named(engine, "other")
    await answered(engine, tenant)
    await answered(engine, other)
    assert {row.tenant_id for row in await rolled_up(engine, tenant)} == {tenant}
    assert {row.tenant_id for row in await rolled_up(engine, None)} == {tenant, other}
    async with engine.begin() as connection:
        assert await rollups.rollup(connection, tenant, 0.0) == []


SAID = {
    "too_long": ("too_verbose", None),
    "too_short": (None, "Viel zu kurz!"),
    "not_factual": ("not_factual", None),
    "not_followed": ("didnt_fully_follow_instructions", None),
    "style": ("dont_like_the_style", None),
    "refused": ("refused_when_it_shouldnt_have", None),
    "wrong_language": (None, "It's in the wrong language."),
    "no_sources": (None, "No sources at all"),
    "unclear": (None, "Confusing."),
}


async def test_complaints_are_told_by_their_words(engine: AsyncEngine, tenant: UUID) -> None:
    assert SAID.keys() == REMEDIES.keys()
    for reason, comment in SAID.values():
        await answered(engine, tenant, human("ann", 0.0, reason=reason, comment=comment))
    await answered(engine, tenant, human("bob", 0.0, reason="too_verbose"), model="mill")
    praise = "Not too long, not wrong language, no sources needed"
    await answered(engine, tenant, human("ann", 1.0, comment=praise))
    await answered(engine, tenant, human("ann", 0.0, comment="lifestyle and stones"))
    async with engine.begin() as connection:
        found = await rollups.complaints(connection, tenant, DAY)
    auto = {each.complaint: (each.votes, each.raters) for each in found if each.asked == "auto"}
    assert auto == dict.fromkeys(SAID, (1, 1))
    [direct] = [each for each in found if each.asked == "direct"]
    assert (direct.complaint, len(direct.judgements)) == ("too_long", 1)


# --- who may what --------------------------------------------------------------------------------


async def proposed(connection: AsyncConnection, tenant: UUID, **more: Any) -> UUID | None:
    given: dict[str, Any] = {
        "name": "brief",
        "scope": {},
        "change": PROMPT,
        "workflow": "weekly",
        "provenance": {"feedback": ["x"]},
    }
    return await rollups.propose(connection, tenant, **given | more)


async def test_a_workflow_proposes_and_the_same_again_is_the_same(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with as_n8n(engine) as connection:
        first = await proposed(connection, tenant, note="Many said so.")
        assert await proposed(connection, tenant, scope={"model": None, "topic": []}) == first
        second = await proposed(connection, tenant, change={**PROMPT, "text": "Be very brief."})
    async with as_tenant(engine, tenant) as connection:
        newest, oldest = await rules.history(connection, tenant, "brief")
    assert (oldest.id, newest.id, newest.parent) == (first, second, first)
    assert (oldest.version, oldest.state, oldest.note) == (1, RuleState.PROPOSED, "Many said so.")
    assert (oldest.scope, oldest.change, oldest.decided_by) == ({}, PROMPT, None)
    assert oldest.provenance["workflow"] == "weekly"
    assert oldest.provenance["feedback"] == ["x"]
    assert oldest.provenance["by"].startswith("role:")


async def test_a_workflow_cannot_hold_a_tenants_rules_for_long(
    engine: AsyncEngine, tenant: UUID
) -> None:
    patience = text("SHOW idle_in_transaction_session_timeout")
    async with engine.connect() as connection:
        usual = await connection.scalar(patience)
        await proposed(connection, tenant)
        assert await connection.scalar(patience) == "10s"
        await connection.commit()
        assert await connection.scalar(patience) == usual


async def test_what_was_rejected_lately_is_not_proposed_again(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with as_n8n(engine) as connection:
        first = await proposed(connection, tenant)
    assert first is not None
    async with as_tenant(engine, tenant) as connection:
        assert await rules.move(connection, tenant, first, RuleState.REJECTED, by="user:ann")
    async with as_n8n(engine) as connection:
        assert await proposed(connection, tenant, name="other-name") is None
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE millrace.rules SET decided_at = now() - interval '31 days'")
        )
    async with as_n8n(engine) as connection:
        assert await proposed(connection, tenant) not in {None, first}


async def test_a_workflow_cannot_flood_a_tenant(engine: AsyncEngine, tenant: UUID) -> None:
    async with as_tenant(engine, tenant) as connection:
        for number in range(50):
            new = NewRule(f"rule-{number}", "prompt", {**PROMPT, "text": f"{number}"})
            made = await rules.propose(connection, tenant, new)
            if number % 2:
                await rules.move(connection, tenant, made.id, RuleState.SHADOW, by="trial")
    with pytest.raises(DBAPIError, match="50 open proposals"):
        async with as_n8n(engine) as connection:
            await proposed(connection, tenant)
    async with as_n8n(engine) as connection:
        assert await proposed(connection, await tenant_named(engine, "other")) is not None


REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"name": "Not a name"}, "name"),
    ({"change": {"kind": "shell", "text": "x"}}, r"change\.kind"),
    ({"change": {**PROMPT, "state": "active"}}, "only kind, text"),
    ({"scope": {"tenant": "other"}}, "only strategy, model, topic"),
    ({"workflow": ""}, "workflow"),
    ({"workflow": "x" * 201}, "workflow"),
    ({"provenance": {"x": "y" * 20_000}}, "provenance"),
    ({"note": "x" * 2_001}, "note"),
)


async def test_a_proposal_that_is_no_rule_is_refused(engine: AsyncEngine, tenant: UUID) -> None:
    for more, said in REFUSED:
        with pytest.raises(DBAPIError, match=said):
            async with as_n8n(engine) as connection:
                await proposed(connection, tenant, **more)
    async with as_tenant(engine, tenant) as connection:
        assert await rules.listed(connection, tenant) == []


async def test_nobody_proposes_for_a_tenant_that_is_not_there(engine: AsyncEngine) -> None:
    with pytest.raises(DBAPIError, match="no such tenant"):
        async with as_n8n(engine) as connection:
            await proposed(connection, uuid4())


FORBIDDEN = (
    "UPDATE millrace.rules SET state = 'active'",
    "INSERT INTO millrace.rules SELECT * FROM millrace.rules",
    "DELETE FROM millrace.rules",
    "SELECT * FROM millrace.rules",
    "SELECT * FROM millrace.requests",
    "SELECT * FROM millrace.judgements",
    "SELECT * FROM millrace.api_keys",
    "SELECT * FROM millrace.rule_votes(gen_random_uuid())",
    "SELECT millrace.hold_rules(gen_random_uuid())",
    "SET ROLE millrace_app",
)


async def test_a_workflow_reads_roll_ups_and_no_table(engine: AsyncEngine, tenant: UUID) -> None:
    name = f"workflow_{uuid4().hex[:8]}"
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE ROLE {name} IN ROLE millrace_n8n"))
    try:
        async with engine.begin() as connection:
            await connection.execute(text(f"SET LOCAL SESSION AUTHORIZATION {name}"))
            assert await rollups.rollup(connection, tenant, DAY) == []
            assert await rollups.complaints(connection, tenant, DAY) == []
            for statement in FORBIDDEN:
                with pytest.raises(DBAPIError, match="permission denied"):
                    async with connection.begin_nested():
                        await connection.execute(text(statement))
    finally:
        async with engine.begin() as connection:
            await connection.execute(text(f"DROP ROLE {name}"))


async def test_a_tenant_may_neither_roll_up_nor_use_the_way_of_workflows(
    engine: AsyncEngine, tenant: UUID
) -> None:
    for statement in ("rollup(NULL, '1 day')", "complaints(NULL, '1 day')"):
        with pytest.raises(DBAPIError, match="permission denied"):
            async with as_tenant(engine, tenant) as connection:
                await connection.execute(text(f"SELECT * FROM millrace.{statement}"))
    with pytest.raises(DBAPIError, match="permission denied"):
        async with as_tenant(engine, tenant) as connection:
            await proposed(connection, tenant)


async def test_an_owner_who_is_no_superuser_adds_up_proposes_and_learns(
    owned_engine: AsyncEngine,
) -> None:
    tenant, rule = await tenant_named(owned_engine, "acme"), uuid4()
    canary = [used(rule, Arm.CANARY)]
    await answered(owned_engine, tenant, human("ann", 1.0, reason="too_verbose"), rules=canary)
    await answered(owned_engine, tenant, human("bob", 0.0, reason="too_verbose"), rules=canary)
    assert [row.votes for row in await rolled_up(owned_engine, None)] == [2, 2]
    assert len(await votes_of(owned_engine, tenant, rule)) == 2
    async with owned_engine.begin() as connection:
        assert len(await rollups.complaints(connection, tenant, DAY)) == 1
        assert await proposed(connection, tenant) is not None
        assert await rollups.tenants_on_trial(connection, proposals=True) == [tenant]
        assert await rollups.tenants_on_trial(connection, proposals=False) == []
        assert await rollups.tenants_judged(connection, DAY) == [tenant]
    for number in range(5):
        said = human(f"user-{number}", 0.0, reason="being_lazy")
        await answered(owned_engine, tenant, said)
    moved = await learn(owned_engine, LearningSettings(rules_trial_share=0.2), DAY)
    assert [(each.name, each.state) for each in moved] == [
        ("brief", RuleState.SHADOW),
        ("learned-too-short-auto", RuleState.PROPOSED),
    ]


# --- the same bounds in the database as in the code ----------------------------------------------

_WORDS: tuple[Any, ...] = (
    *("x" * length for length in (0, 1, 64, 65, 100, 101, 256, 257, 2_000, 2_001)),
    "ü" * 100,
    None,
    7,
    ["x"],
)
_NUMBERS: tuple[Any, ...] = (-1, 0, 1, 2, 16, 17, 50, 51, 200, 201, 2.5, "7", True, None)
_FIELDS = {
    "text": _WORDS,
    "model": _WORDS,
    "strategy": _WORDS,
    "split": (True, False, None, "yes"),
    "max_parts": _NUMBERS,
    "top": _NUMBERS,
    "candidates": _NUMBERS,
}
_OWN = {
    "prompt": ["text"],
    "route": ["model", "strategy"],
    "split": ["split", "max_parts"],
    "retrieval": ["top", "candidates"],
    "other": [],
}
_TOPICS: tuple[Any, ...] = ([], ["x"], ["x"] * 20, ["x"] * 21, [""], ["x" * 101], [7], "x", {})
_NAMES = ("brief", "a.b_c-1", "x" * 64, "x" * 65, "", "Brief", "-x", "a b", "é", "brief\n")


def some_rule(dice: random.Random) -> dict[str, Any]:
    """A rule that is often nearly one."""
    kind = dice.choice(list(_OWN))
    named = [field for field in _OWN[kind] if dice.random() < 0.6]
    named += [dice.choice(list(_FIELDS))] if dice.random() < 0.1 else []
    change = {"kind": kind} | {field: dice.choice(_FIELDS[field]) for field in named}
    choices = {"strategy": _WORDS, "model": _WORDS, "topic": _TOPICS}
    scope = {field: dice.choice(values) for field, values in choices.items() if dice.random() < 0.2}
    # The function that proposes takes what is null as not said.
    change, scope = ({k: v for k, v in each.items() if v is not None} for each in (change, scope))
    name = dice.choice(_NAMES) if dice.random() < 0.2 else "brief"
    return {"name": name, "scope": scope, "change": change}


def is_rule(given: dict[str, Any]) -> bool:
    try:
        Scope.model_validate_json(json.dumps(given["scope"]), strict=True)
        TypeAdapter(Change).validate_json(json.dumps(given["change"]), strict=True)
        TypeAdapter(Annotated[str, Field(pattern=RULE_NAME)]).validate_python(given["name"])
    except ValidationError:
        return False
    return True


async def test_the_database_knows_a_rule_when_the_code_does(engine: AsyncEngine) -> None:
    dice = random.Random(8)
    cases = [some_rule(dice) for _ in range(3_000)]
    query = text("""
        SELECT millrace.wrong_rule(c ->> 'name', c -> 'scope', c -> 'change')
          FROM jsonb_array_elements(CAST(:cases AS jsonb)) WITH ORDINALITY AS u(c, n) ORDER BY n
    """)
    async with engine.begin() as connection:
        said = (await connection.execute(query, {"cases": json.dumps(cases)})).scalars().all()
    expected = [is_rule(each) for each in cases]
    assert 300 < sum(expected) < 2_700
    different = [
        (case, wrong)
        for case, wrong, right in zip(cases, said, expected, strict=True)
        if (wrong is None) is not right
    ]
    assert different == []
