"""Rules: versions that never change, moves that the table allows, and never another tenant's."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import rules
from db.rule_table import RULE_KINDS
from db.rules import NewRule, StoredRule
from db.tenancy import as_tenant
from master.rules.rule import RuleKind
from queue_schemas.states import RULE_MOVES, RuleState
from tests.integration.db.corpus_acts import tenant_named

PROPOSED, SHADOW, CANARY, ACTIVE, RETIRED, REJECTED = RuleState
WAYS: dict[RuleState, Sequence[RuleState]] = {
    PROPOSED: (),
    SHADOW: (SHADOW,),
    CANARY: (CANARY,),
    ACTIVE: (ACTIVE,),
    RETIRED: (ACTIVE, RETIRED),
    REJECTED: (REJECTED,),
}
ANN = "user:ann"


def brief(words: str = "Be brief.", name: str = "brief", **more: Any) -> NewRule:
    return NewRule(name, "prompt", {"kind": "prompt", "text": words}, **more)


async def moved(
    connection: AsyncConnection, tenant: UUID, rule: StoredRule, target: RuleState
) -> bool:
    share = 0.2 if target is CANARY else None
    return await rules.move(connection, tenant, rule.id, target, by=ANN, share=share)


async def versions(
    connection: AsyncConnection, tenant: UUID, *states: RuleState
) -> list[StoredRule]:
    """Versions of one name, each put into the state given, oldest first."""
    made = []
    for number, state in enumerate(states, start=1):
        rule = await rules.propose(connection, tenant, brief(f"Words {number}."))
        for step in WAYS[state]:
            assert await moved(connection, tenant, rule, step)
        made.append(rule)
    return made


async def states_of(connection: AsyncConnection, tenant: UUID) -> dict[int, RuleState]:
    found = await rules.history(connection, tenant, "brief")
    return {each.version: each.state for each in found}


def test_the_kinds_are_those_of_the_rules() -> None:
    assert set(RULE_KINDS) == set(RuleKind)


async def test_exactly_the_moves_of_the_table_are_made(engine: AsyncEngine, tenant: UUID) -> None:
    for start, way in WAYS.items():
        for target in RuleState:
            async with as_tenant(engine, tenant) as connection:
                rule = await rules.propose(
                    connection, tenant, brief(name=f"{start}-{target}", scope={})
                )
                for step in way:
                    assert await moved(connection, tenant, rule, step)
                allowed = target in RULE_MOVES[start]
                assert await moved(connection, tenant, rule, target) is allowed, (start, target)
                found = await rules.find(connection, tenant, rule.id)
            assert found is not None
            assert found.state == (target if allowed else start)
            assert (found.share is not None) == (found.state is CANARY)


async def test_versions_count_up_and_say_where_they_come_from(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with as_tenant(engine, tenant) as connection:
        first = await rules.propose(
            connection, tenant, brief(provenance={"by": ANN, "workflow": "weekly"}, note="long")
        )
        assert (first.version, first.parent, first.state) == (1, None, PROPOSED)
        assert (first.provenance, first.note) == ({"by": ANN, "workflow": "weekly"}, "long")
        assert (first.decided_by, first.decided_at) == (None, None)
        second = await rules.propose(connection, tenant, brief("Be very brief."))
        assert (second.version, second.parent) == (2, first.id)
        await moved(connection, tenant, first, ACTIVE)
        third = await rules.propose(connection, tenant, brief(scope={"topic": ["tax"]}))
        assert (third.version, third.parent) == (3, first.id)
        assert [each.version for each in await rules.history(connection, tenant, "brief")] == [
            3,
            2,
            1,
        ]


async def test_the_same_again_is_the_one_that_is_there_while_it_lives(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with as_tenant(engine, tenant) as connection:
        for state, lives in ((SHADOW, True), (ACTIVE, True), (RETIRED, False), (REJECTED, False)):
            new = brief(f"Words for {state}.")
            rule = await rules.propose(connection, tenant, new)
            for step in WAYS[state]:
                assert await moved(connection, tenant, rule, step)
            again = await rules.propose(connection, tenant, new)
            assert (again.id == rule.id) is lives, state


async def test_who_is_activated_retires_who_was(engine: AsyncEngine, tenant: UUID) -> None:
    async with as_tenant(engine, tenant) as connection:
        _, second = await versions(connection, tenant, ACTIVE, PROPOSED)
        assert await rules.move(
            connection, tenant, second.id, ACTIVE, by="trial", measured=True, note="better"
        )
        assert await states_of(connection, tenant) == {1: RETIRED, 2: ACTIVE}
        found = await rules.find(connection, tenant, second.id)
    assert found is not None
    assert (found.measured, found.decided_by, found.note) == (True, "trial", "better")
    assert found.decided_at == found.changed_at


async def test_one_version_is_on_trial_beside_the_active_one(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with as_tenant(engine, tenant) as connection:
        _, _, third = await versions(connection, tenant, ACTIVE, CANARY, SHADOW)
        assert not await moved(connection, tenant, third, CANARY)
        in_force = await rules.in_force(connection, tenant)
        assert [each.state for each in in_force] == [ACTIVE, CANARY, SHADOW]
        assert await rules.listed(connection, tenant, state=CANARY) == [in_force[1]]
        assert len(await rules.listed(connection, tenant, name="brief", limit=2)) == 2


async def test_a_rollback_goes_back_step_by_step(engine: AsyncEngine, tenant: UUID) -> None:
    for number in range(1, 4):  # each in a transaction of its own, which has a time of its own
        async with as_tenant(engine, tenant) as connection:
            made = await rules.propose(connection, tenant, brief(f"Words {number}."))
            assert await moved(connection, tenant, made, ACTIVE)
    steps = [{3: RETIRED, 2: ACTIVE, 1: RETIRED}, {3: RETIRED, 2: RETIRED, 1: ACTIVE}]
    for expected in (*steps, dict.fromkeys((3, 2, 1), RETIRED)):
        async with as_tenant(engine, tenant) as connection:
            assert await rules.rollback(connection, tenant, "brief", by=ANN)
            assert await states_of(connection, tenant) == expected
    async with as_tenant(engine, tenant) as connection:
        assert not await rules.rollback(connection, tenant, "brief", by=ANN)
        assert await rules.rollback(connection, tenant, "brief", 3, by=ANN, note="after all")
        assert (await states_of(connection, tenant))[3] is ACTIVE


async def test_a_rollback_passes_over_what_was_taken_back_before(
    engine: AsyncEngine, tenant: UUID
) -> None:
    """The second did harm and was taken back; who takes the third back gets the first."""
    async with as_tenant(engine, tenant) as connection:
        await versions(connection, tenant, ACTIVE, ACTIVE)
    async with as_tenant(engine, tenant) as connection:
        assert await rules.rollback(connection, tenant, "brief", by="trial")
    async with as_tenant(engine, tenant) as connection:
        third = await rules.propose(connection, tenant, brief("Words 3."))
        assert await moved(connection, tenant, third, ACTIVE)
    async with as_tenant(engine, tenant) as connection:
        assert await rules.rollback(connection, tenant, "brief", by=ANN)
        assert await states_of(connection, tenant) == {3: RETIRED, 2: RETIRED, 1: ACTIVE}


async def test_what_was_taken_back_does_not_come_again_by_itself(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with as_tenant(engine, tenant) as connection:
        await versions(connection, tenant, ACTIVE)
        assert await rules.rollback(connection, tenant, "brief", by="trial", note="worse")
        second = await rules.propose(connection, tenant, brief("Words 2, better."))
        assert await moved(connection, tenant, second, ACTIVE)
        assert await rules.rollback(connection, tenant, "brief", by=ANN)
        assert await states_of(connection, tenant) == {2: RETIRED, 1: RETIRED}


async def test_going_to_and_fro_between_two_versions_comes_to_an_end(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with as_tenant(engine, tenant) as connection:
        first, _ = await versions(connection, tenant, ACTIVE, ACTIVE)
        assert await moved(connection, tenant, first, ACTIVE)
        for expected in ({2: ACTIVE, 1: RETIRED}, {2: RETIRED, 1: RETIRED}):
            assert await rules.rollback(connection, tenant, "brief", by=ANN)
            assert await states_of(connection, tenant) == expected


async def test_a_measured_version_that_comes_back_keeps_its_control_group(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with as_tenant(engine, tenant) as connection:
        first, second = await versions(connection, tenant, CANARY, PROPOSED)
        assert await rules.move(connection, tenant, first.id, ACTIVE, by="trial", measured=True)
        assert await moved(connection, tenant, second, ACTIVE)
        assert await rules.rollback(connection, tenant, "brief", by=ANN)
        [holds] = await rules.in_force(connection, tenant)
    assert (holds.id, holds.measured, holds.decided_by) == (first.id, True, ANN)


async def test_a_rollback_to_a_version_wants_one_that_was_active(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with as_tenant(engine, tenant) as connection:
        await versions(connection, tenant, REJECTED, RETIRED, ACTIVE, PROPOSED)
        for wrong in (1, 3, 4, 9):
            assert not await rules.rollback(connection, tenant, "brief", wrong, by=ANN)
        assert not await rules.rollback(connection, tenant, "unknown", by=ANN)
        assert await rules.rollback(connection, tenant, "brief", 2, by=ANN)
        assert await states_of(connection, tenant) == {
            4: PROPOSED,
            3: RETIRED,
            2: ACTIVE,
            1: REJECTED,
        }
        assert await rules.rollback(connection, tenant, "brief", 0, by=ANN)
        assert await rules.in_force(connection, tenant) == []


async def test_whoever_comes_at_once_comes_one_after_the_other(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async def propose(number: int) -> StoredRule:
        async with as_tenant(engine, tenant) as connection:
            return await rules.propose(connection, tenant, brief(f"Words {number % 3}."))

    async def activate(rule: StoredRule) -> bool:
        async with as_tenant(engine, tenant) as connection:
            return await moved(connection, tenant, rule, ACTIVE)

    proposed = await asyncio.gather(*[propose(number) for number in range(5)])
    assert {each.version for each in proposed} == {1, 2, 3}
    different = {each.id: each for each in proposed}.values()
    assert all(await asyncio.gather(*[activate(each) for each in different]))
    async with as_tenant(engine, tenant) as connection:
        states = (await states_of(connection, tenant)).values()
    assert sorted(states) == [ACTIVE, RETIRED, RETIRED]


async def test_another_tenant_sees_and_moves_nothing(engine: AsyncEngine, tenant: UUID) -> None:
    async with as_tenant(engine, tenant) as connection:
        [rule] = await versions(connection, tenant, ACTIVE)
    other = await tenant_named(engine, "other")
    async with as_tenant(engine, other) as connection:
        for asking in (tenant, other):
            assert await rules.find(connection, asking, rule.id) is None
            assert await rules.listed(connection, asking) == []
            assert await rules.history(connection, asking, "brief") == []
            assert await rules.in_force(connection, asking) == []
            assert not await moved(connection, asking, rule, RETIRED)
            assert not await rules.rollback(connection, asking, "brief", by=ANN)
        own = await rules.propose(connection, other, brief("Words 1."))
        assert (own.version, own.parent) == (1, None)
    with pytest.raises(DBAPIError, match="row-level security"):
        async with as_tenant(engine, other) as connection:
            await rules.propose(connection, tenant, brief())


async def test_what_a_version_says_cannot_be_changed(engine: AsyncEngine, tenant: UUID) -> None:
    async with as_tenant(engine, tenant) as connection:
        await versions(connection, tenant, ACTIVE)
    for statement in (
        "UPDATE millrace.rules SET change = change",
        "UPDATE millrace.rules SET scope = '{}'",
        "UPDATE millrace.rules SET name = 'other'",
        "UPDATE millrace.rules SET version = 7",
        "DELETE FROM millrace.rules",
    ):
        with pytest.raises(DBAPIError, match="permission denied"):
            async with as_tenant(engine, tenant) as connection:
                await connection.execute(text(statement))


async def test_a_half_written_rule_is_refused(engine: AsyncEngine, tenant: UUID) -> None:
    async with as_tenant(engine, tenant) as connection:
        [rule] = await versions(connection, tenant, PROPOSED)
    for check, changes in {
        "ck_rules_share": "state = 'canary', decided_by = 'x', decided_at = now()",
        "ck_rules_decided": "state = 'active'",
        "ck_rules_measured": "measured = true",
        "ck_rules_state": "state = 'sleeping', decided_by = 'x', decided_at = now()",
        "ck_rules_change": "change = '{}'",
        "ck_rules_name": "name = 'Not a name'",
        "ck_rules_objects": "scope = '[]'",
    }.items():
        query = text(f"UPDATE millrace.rules SET {changes} WHERE id = :id")
        with pytest.raises(DBAPIError, match=check):
            async with engine.begin() as connection:
                await connection.execute(query, {"id": rule.id})
