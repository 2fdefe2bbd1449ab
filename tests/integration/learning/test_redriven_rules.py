"""A request that is done again goes by the rules that hold now, not by those of then."""

from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import new_requests, rules
from db.new_requests import NewRequest, NewSubtask
from db.tenancy import as_tenant
from master.planning.plan import AggregatorName, Plan, Step
from master.redrive import redrive
from master.rules.rule import Arm, PromptChange, RuleKind, UsedRule
from queue_schemas.states import RuleState
from tests.integration.learning.test_trials import put

_, SHADOW, CANARY, ACTIVE, _, _ = RuleState
_FAILED = """
    UPDATE millrace.requests
       SET state = 'failed', finished_at = now(), error = '{"code": "x", "message": "x"}'
"""


def used(version: UUID, name: str, arm: Arm) -> UsedRule:
    change = PromptChange(kind=RuleKind.PROMPT, text=name)
    rule = UsedRule(id=version, name=name, version=1, arm=arm, kind=change.kind, change=change)
    return rule.kept


async def failed(engine: AsyncEngine, tenant: UUID, *under: UsedRule) -> UUID:
    """A request that was planned under these rules."""
    steps = (Step(key="answer", model="mill", messages=({"role": "user", "content": "Why?"},)),)
    plan = Plan(strategy="direct", aggregator=AggregatorName.SINGLE, steps=steps, rules=under)
    question, planned = '{"parameters": {}}', plan.model_dump_json()
    row = NewRequest(
        uuid4(), tenant, None, "mill", question, planned, 1, None, deadline_seconds=600
    )
    async with engine.begin() as connection:
        await new_requests.add(connection, row, [NewSubtask(uuid4(), "answer", "answer", "mill")])
        await connection.execute(text(_FAILED))
    return row.id


async def test_what_was_taken_back_is_left_out_and_so_is_a_trial_of_then(
    engine: AsyncEngine, tenant: UUID
) -> None:
    made = {
        name: await put(engine, tenant, *states, name=name, words=name)
        for name, states in {
            "holds": (ACTIVE,),
            "tried": (CANARY,),
            "taken-back": (ACTIVE,),
            "promoted": (CANARY, ACTIVE),
            "counted": (SHADOW,),
        }.items()
    }
    async with as_tenant(engine, tenant) as connection:
        assert await rules.rollback(connection, tenant, "taken-back", by="user:ann")
    arms = {
        "holds": Arm.ACTIVE,
        "tried": Arm.CANARY,
        "taken-back": Arm.ACTIVE,
        "promoted": Arm.CONTROL,
        "counted": Arm.SHADOW,
    }
    under = [used(made[name].id, name, arm) for name, arm in arms.items()]
    request = await failed(engine, tenant, *under)
    again = await redrive(engine, request)
    async with engine.connect() as connection:
        query = text("SELECT plan FROM millrace.requests WHERE id = :id")
        plan = Plan.model_validate(await connection.scalar(query, {"id": again.id}))
    assert [(each.name, each.arm) for each in plan.rules] == [
        ("holds", Arm.ACTIVE),
        ("tried", Arm.CANARY),
    ]
