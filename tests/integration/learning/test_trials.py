"""Votes put rules into force and out of it, whoever looks, and nothing else does."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import rules
from db.rules import NewRule, StoredRule
from db.tenancy import as_tenant
from master.learning.rounds import Rounds, learn
from master.learning.rulings import decide
from master.learning.settings import LearningSettings
from master.learning.trials import BY, MOST_CANARIES, MOST_SHADOWS, run_trials, standing
from master.rules.rule import Arm
from master.rules.trial import Verdict
from queue_schemas.states import RuleState
from tests.integration.db.corpus_acts import tenant_named
from tests.integration.db.rated import answered, human, used, voted

PROPOSED, SHADOW, CANARY, ACTIVE, RETIRED, REJECTED = RuleState
BY_HAND = LearningSettings()
ALONE = LearningSettings(rules_trial_share=0.2, rules_trial_questions=5)


async def put(
    engine: AsyncEngine,
    tenant: UUID,
    *states: RuleState,
    name: str = "brief",
    words: str = "Be brief.",
    by: str = "user:ann",
    measured: bool = False,
) -> StoredRule:
    """A rule that was put into these states, one after the other."""
    async with as_tenant(engine, tenant) as connection:
        new = NewRule(name, "prompt", {"kind": "prompt", "text": words})
        rule = await rules.propose(connection, tenant, new)
        for state in states:
            share = 0.2 if state is CANARY else None
            given: dict[str, Any] = {"by": by, "share": share}
            given["measured"] = measured and state is ACTIVE
            assert await rules.move(connection, tenant, rule.id, state, **given)
    return await now(engine, rule)


async def now(engine: AsyncEngine, rule: StoredRule) -> StoredRule:
    async with as_tenant(engine, rule.tenant) as connection:
        found = await rules.find(connection, rule.tenant, rule.id)
    assert found is not None
    return found


async def look(
    engine: AsyncEngine,
    tenant: UUID,
    settings: LearningSettings = BY_HAND,
    later: timedelta = timedelta(),
) -> Sequence[StoredRule]:
    async with as_tenant(engine, tenant) as connection:
        return await run_trials(connection, tenant, settings, datetime.now(UTC) + later)


Votes = tuple[int, int]
"""Good ones and bad ones."""


async def compared(
    engine: AsyncEngine, rule: StoredRule, arm: Arm, with_it: Votes, without: Votes
) -> None:
    for each, (good, bad) in ((arm, with_it), (Arm.CONTROL, without)):
        fitted = used(rule.id, each, rule.name, rule.version)
        await voted(engine, rule.tenant, fitted, good=good, bad=bad)


GOOD, MIDDLING, BAD = (36, 4), (20, 20), (8, 32)


async def test_a_canary_that_people_like_better_becomes_active_with_a_control_group(
    engine: AsyncEngine, tenant: UUID
) -> None:
    old = await put(engine, tenant, ACTIVE)
    canary = await put(engine, tenant, CANARY, words="Be very brief.")
    await compared(engine, canary, Arm.CANARY, GOOD, BAD)
    moved = await look(engine, tenant)
    assert [(each.id, each.state) for each in moved] == [(canary.id, ACTIVE), (old.id, RETIRED)]
    assert (moved[0].measured, moved[0].decided_by) == (True, BY)
    assert moved[0].note is not None
    assert "0.90 with it (40 votes, 20 raters), 0.20 without" in moved[0].note
    assert await look(engine, tenant) == []


async def test_a_canary_that_people_like_less_is_rejected(
    engine: AsyncEngine, tenant: UUID
) -> None:
    canary = await put(engine, tenant, CANARY)
    await compared(engine, canary, Arm.CANARY, BAD, GOOD)
    [moved] = await look(engine, tenant)
    assert (moved.id, moved.state, moved.decided_by) == (canary.id, REJECTED, BY)


@pytest.mark.parametrize(
    ("with_it", "without"),
    [((0, 0), (0, 0)), (GOOD, (0, 0)), ((20, 1), (0, 20)), (MIDDLING, MIDDLING)],
    ids=["no votes", "no control", "too few", "no difference"],
)
async def test_a_canary_waits_for_evidence(
    engine: AsyncEngine, tenant: UUID, with_it: Votes, without: Votes
) -> None:
    canary = await put(engine, tenant, CANARY)
    await compared(engine, canary, Arm.CANARY, with_it, without)
    assert await look(engine, tenant) == []
    assert await now(engine, canary) == canary
    async with as_tenant(engine, tenant) as connection:
        found = await standing(connection, canary, BY_HAND, datetime.now(UTC))
    assert found is not None
    assert (found.verdict, found.tried.given) == (Verdict.WAIT, sum(with_it))


async def test_where_nothing_is_compared_no_trial_stands(engine: AsyncEngine, tenant: UUID) -> None:
    ways: Sequence[Sequence[RuleState]] = ((), (SHADOW,), (ACTIVE,), (REJECTED,))
    made = [await put(engine, tenant, *states, name=f"rule-{n}") for n, states in enumerate(ways)]
    async with as_tenant(engine, tenant) as connection:
        for rule in made:
            assert await standing(connection, rule, BY_HAND, datetime.now(UTC)) is None


async def test_votes_of_one_person_of_models_and_of_other_tenants_decide_nothing(
    engine: AsyncEngine, tenant: UUID
) -> None:
    canary, other = await put(engine, tenant, CANARY), await tenant_named(engine, "other")
    for arm, good in ((Arm.CANARY, 1), (Arm.CONTROL, 0)):
        fitted = used(canary.id, arm)
        ends = {"good": 40 * good, "bad": 40 * (1 - good)}
        await voted(engine, tenant, fitted, **ends, raters=1)
        await voted(engine, other, fitted, **ends)
    assert await look(engine, tenant) == []
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE millrace.judgements SET kind = 'check'"))
    assert await look(engine, tenant) == []


async def test_what_a_trial_made_active_is_taken_back_when_it_does_harm(
    engine: AsyncEngine, tenant: UUID
) -> None:
    old = await put(engine, tenant, ACTIVE)
    new = await put(engine, tenant, CANARY, ACTIVE, words="Be rude.", by=BY, measured=True)
    await compared(engine, new, Arm.ACTIVE, BAD, GOOD)
    moved = await look(engine, tenant)
    assert [(each.id, each.state) for each in moved] == [(old.id, ACTIVE), (new.id, RETIRED)]
    assert moved[0].note is not None
    assert moved[0].note.startswith("version 2 worse by now: 0.20 with it")


async def test_without_an_older_version_nothing_is_active_then(
    engine: AsyncEngine, tenant: UUID
) -> None:
    rule = await put(engine, tenant, CANARY, ACTIVE, by=BY, measured=True)
    await compared(engine, rule, Arm.ACTIVE, BAD, GOOD)
    assert [each.state for each in await look(engine, tenant)] == [RETIRED]


async def test_an_older_version_that_is_in_the_way_of_others_stays_out(
    engine: AsyncEngine, tenant: UUID
) -> None:
    await put(engine, tenant, ACTIVE)
    new = await put(engine, tenant, CANARY, ACTIVE, words="Be rude.", by=BY, measured=True)
    await put(engine, tenant, ACTIVE, name="other")  # says what the older version said
    await compared(engine, new, Arm.ACTIVE, BAD, GOOD)
    assert [(each.id, each.state) for each in await look(engine, tenant)] == [(new.id, RETIRED)]


async def test_what_a_person_approved_is_not_taken_back(engine: AsyncEngine, tenant: UUID) -> None:
    rule = await put(engine, tenant, ACTIVE)
    await compared(engine, rule, Arm.ACTIVE, BAD, GOOD)
    assert await look(engine, tenant) == []


async def test_votes_from_before_the_last_move_do_not_count(
    engine: AsyncEngine, tenant: UUID
) -> None:
    rule = await put(engine, tenant, CANARY)
    await compared(engine, rule, Arm.CANARY, GOOD, BAD)
    async with engine.begin() as connection:
        query = "UPDATE millrace.requests SET created_at = now() - interval '1 day'"
        await connection.execute(text(query))
    assert await look(engine, tenant) == []


async def test_a_canary_that_conflicts_with_what_was_approved_meanwhile_stays_one(
    engine: AsyncEngine, tenant: UUID
) -> None:
    canary = await put(engine, tenant, CANARY)
    await put(engine, tenant, ACTIVE, name="other")
    await compared(engine, canary, Arm.CANARY, GOOD, BAD)
    assert await look(engine, tenant) == []
    assert (await now(engine, canary)).state is CANARY


async def test_many_who_look_at_once_move_a_rule_once(engine: AsyncEngine, tenant: UUID) -> None:
    canary = await put(engine, tenant, CANARY)
    await compared(engine, canary, Arm.CANARY, GOOD, BAD)
    moved = await asyncio.gather(*[look(engine, tenant) for _ in range(5)])
    assert sum(map(len, moved)) == 1


# --- without anybody's approval ------------------------------------------------------------------


async def test_nothing_is_tried_that_nobody_asked_for(engine: AsyncEngine, tenant: UUID) -> None:
    await put(engine, tenant)
    shadow = await put(engine, tenant, SHADOW, name="shadow")
    await voted(engine, tenant, used(shadow.id, Arm.SHADOW), good=9, raters=0)
    assert await learn(engine, BY_HAND, 60.0) == []


async def test_a_share_lets_proposals_into_the_shadow_and_then_onto_questions(
    engine: AsyncEngine, tenant: UUID
) -> None:
    rule = await put(engine, tenant)
    [moved] = await learn(engine, ALONE, 60.0)
    assert (moved.id, moved.state, moved.decided_by) == (rule.id, SHADOW, BY)
    await voted(engine, tenant, used(rule.id, Arm.SHADOW), good=4, raters=0)
    assert await learn(engine, ALONE, 60.0) == []
    await voted(engine, tenant, used(rule.id, Arm.SHADOW), good=1, raters=0)
    [moved] = await learn(engine, ALONE, 60.0)
    assert (moved.id, moved.state, moved.share) == (rule.id, CANARY, 0.2)
    assert await look(engine, tenant, ALONE) == []
    [moved] = await look(engine, tenant, ALONE, later=timedelta(days=61))
    assert (moved.id, moved.state) == (rule.id, REJECTED)
    assert moved.note is not None
    assert moved.note.startswith("given up after 60 days: not decided")


async def test_a_trial_that_a_person_began_is_not_given_up(
    engine: AsyncEngine, tenant: UUID
) -> None:
    await put(engine, tenant, CANARY)
    assert await look(engine, tenant, ALONE, later=timedelta(days=61)) == []


async def test_no_more_than_a_few_are_tried_at_once(engine: AsyncEngine, tenant: UUID) -> None:
    for number in range(MOST_CANARIES + 2):
        rule = await put(engine, tenant, SHADOW, name=f"rule-{number}", words=f"Words {number}.")
        await voted(engine, tenant, used(rule.id, Arm.SHADOW), good=5, raters=0)
    assert len(await look(engine, tenant, ALONE)) == MOST_CANARIES
    assert await look(engine, tenant, ALONE) == []


async def test_the_shadow_has_room_for_a_few_and_is_left_in_the_end(
    engine: AsyncEngine, tenant: UUID
) -> None:
    for number in range(MOST_SHADOWS + 2):
        await put(engine, tenant, name=f"rule-{number}", words=f"Words {number}.")
    assert [each.state for each in await look(engine, tenant, ALONE)] == [SHADOW] * MOST_SHADOWS
    assert await look(engine, tenant, ALONE) == []
    moved = await look(engine, tenant, ALONE, later=timedelta(days=61))
    assert [each.state for each in moved] == [REJECTED] * MOST_SHADOWS + [SHADOW] * 2
    assert moved[0].note == "given up after 60 days in the shadow"


async def test_a_shadow_that_a_person_wanted_stays_one(engine: AsyncEngine, tenant: UUID) -> None:
    await put(engine, tenant, SHADOW)
    assert await look(engine, tenant, ALONE, later=timedelta(days=61)) == []


# --- a whole round -------------------------------------------------------------------------------


async def test_complaints_become_a_proposal_once(engine: AsyncEngine, tenant: UUID) -> None:
    for person in ("ann", "bob", "eve", "joe", "kim"):
        await answered(engine, tenant, human(person, 0.0, reason="too_verbose"))
    [made] = await learn(engine, BY_HAND, 60.0)
    assert (made.name, made.state, made.version) == ("learned-too-long-auto", PROPOSED, 1)
    assert made.provenance["workflow"] == "learning"
    assert len(made.provenance["feedback"]) == 5
    assert await learn(engine, BY_HAND, 60.0) == []
    async with as_tenant(engine, tenant) as connection:
        await decide(connection, tenant, made.id, REJECTED, by="user:ann")
    assert await learn(engine, BY_HAND, 60.0) == []


async def test_the_first_round_looks_at_what_was_said_before_it_and_later_ones_at_the_rest(
    engine: AsyncEngine, tenant: UUID
) -> None:
    for person in ("ann", "bob", "eve", "joe", "kim"):
        await answered(engine, tenant, human(person, 0.0, reason="too_verbose"))
    async with engine.begin() as connection:
        query = "UPDATE millrace.judgements SET updated_at = now() - interval '1 day'"
        await connection.execute(text(query))
    assert await learn(engine, BY_HAND, 60.0) == []
    rounds = Rounds(BY_HAND)
    assert [each.name for each in await rounds.next(engine)] == ["learned-too-long-auto"]
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM millrace.rules"))
    assert await rounds.next(engine) == []


async def test_what_fails_for_one_tenant_is_done_for_the_others(
    engine: AsyncEngine, tenant: UUID
) -> None:
    other = await tenant_named(engine, "other")
    broken, canary = await put(engine, tenant, CANARY), await put(engine, other, CANARY)
    await compared(engine, canary, Arm.CANARY, GOOD, BAD)
    fitted = used(broken.id, Arm.CANARY) | {"arm": "no such arm"}
    await voted(engine, tenant, fitted, good=1)
    assert [each.id for each in await learn(engine, BY_HAND, 60.0)] == [canary.id]


async def test_a_tenant_whose_rules_somebody_holds_does_not_hold_up_the_others(
    engine: AsyncEngine, tenant: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("master.learning.rounds._LOCK_TIMEOUT", "10ms")
    other = await tenant_named(engine, "other")
    for each in (tenant, other):
        canary = await put(engine, each, CANARY)
        await compared(engine, canary, Arm.CANARY, GOOD, BAD)
        for person in ("ann", "bob", "eve", "joe", "kim"):
            await answered(engine, each, human(person, 0.0, reason="too_verbose"))
    async with as_tenant(engine, tenant) as somebody:
        await rules.hold(somebody, tenant)
        found = await learn(engine, BY_HAND, 60.0)
    assert [(each.tenant, each.state) for each in found] == [(other, ACTIVE), (other, PROPOSED)]
    found = await learn(engine, BY_HAND, 60.0)
    assert [(each.tenant, each.state) for each in found] == [(tenant, ACTIVE), (tenant, PROPOSED)]


async def test_many_who_look_at_once_propose_a_rule_once(engine: AsyncEngine, tenant: UUID) -> None:
    for person in ("ann", "bob", "eve", "joe", "kim"):
        await answered(engine, tenant, human(person, 0.0, reason="too_verbose"))
    found = await asyncio.gather(*[learn(engine, BY_HAND, 60.0) for _ in range(4)])
    assert sum(map(len, found)) == 1
