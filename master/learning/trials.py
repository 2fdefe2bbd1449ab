"""Trials of rules: who goes on, who is refused, and who is taken back.

Votes decide by `master.rules.trial`; what is done about it is a guarded move like a person's. Any
number of replicas may run this: one of them at a time looks at a tenant.
"""

from collections.abc import Awaitable, Sequence
from datetime import datetime, timedelta
from statistics import fmean
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db import rollups, rules
from db.models import JudgementKind
from db.rollups import RuleVote
from db.rules import StoredRule
from master.learning.rulings import InTheWay, WrongState, decide, take_back
from master.learning.settings import LearningSettings
from master.rules import trial
from master.rules.rule import Arm
from master.rules.trial import Decision, Verdict, Vote
from queue_schemas.states import RuleState

log = structlog.get_logger(__name__)

BY: Final = "trial"
"""Who decided, where votes did."""
MOST_CANARIES: Final = 3
"""Of a tenant at once that nobody asked for: answers that many trials change please nobody."""
MOST_SHADOWS: Final = 20
"""Of a tenant at once: each is compared with every question, and noted in its plan if it fits."""
GIVEN_UP_AFTER: Final = timedelta(days=60)
"""A trial that nobody asked for, without a decision; or its time in the shadow."""
VOTES_COUNT: Final = timedelta(days=90)
"""On a canary. Older ones are history: models and people change."""
WATCHED: Final = timedelta(days=30)
"""On an active rule: what was good for long must not hide that it is no longer."""
_MOST_QUESTIONS: Final = 10_000
"""The newest, in which those are counted that a rule fits."""

_ALONE = text("""
    SELECT pg_try_advisory_xact_lock(hashtextextended('millrace.trials ' || :tenant, 0))
""")


async def run_trials(
    connection: AsyncConnection, tenant: UUID, settings: LearningSettings, now: datetime
) -> list[StoredRule]:
    """Look at all trials of a tenant once; all versions that moved, as they are now.

    Wants a connection of `tenancy.as_tenant`.
    """
    if not await connection.scalar(_ALONE, {"tenant": str(tenant)}):
        return []
    moved: list[StoredRule] = []
    for rule in await rules.in_force(connection, tenant):
        if rule.state is RuleState.CANARY:
            moved += await _judge(connection, rule, settings, now)
        elif rule.state is RuleState.ACTIVE and rule.measured:
            moved += await _watch(connection, rule, settings, now)
        elif rule.state is RuleState.SHADOW and _is_given_up(rule, now):
            note = f"given up after {GIVEN_UP_AFTER.days} days in the shadow"
            refused = decide(connection, tenant, rule.id, RuleState.REJECTED, by=BY, note=note)
            moved += await _moved(rule, refused)
    if settings.rules_trial_share > 0:
        moved += await _begin(connection, tenant, settings)
    return moved


async def standing(
    connection: AsyncConnection, rule: StoredRule, settings: LearningSettings, now: datetime
) -> Decision | None:
    """What the votes on a rule say by now; None where nothing is compared.

    Wants a connection of `tenancy.as_tenant`.
    """
    tried = arm_of(rule)
    return (await _decision(connection, rule, tried, settings, now))[0] if tried else None


def arm_of(rule: StoredRule) -> Arm | None:
    """The arm that is compared with the control group; None where nothing is compared."""
    if rule.state is RuleState.CANARY:
        return Arm.CANARY
    return Arm.ACTIVE if rule.state is RuleState.ACTIVE and rule.measured else None


async def _judge(
    connection: AsyncConnection, rule: StoredRule, settings: LearningSettings, now: datetime
) -> list[StoredRule]:
    """Whether a canary becomes active or is refused."""
    found, note = await _decision(connection, rule, Arm.CANARY, settings, now)
    _log(rule, note)
    target = _AFTER.get(found.verdict)
    if target is None and _is_given_up(rule, now):
        target, note = RuleState.REJECTED, f"given up after {GIVEN_UP_AFTER.days} days: {note}"
    if target is None:
        return []
    measured = target is RuleState.ACTIVE
    return await _moved(
        rule,
        decide(connection, rule.tenant, rule.id, target, by=BY, measured=measured, note=note),
    )


_AFTER: Final = {
    Verdict.PROMOTE: RuleState.ACTIVE,
    Verdict.REJECT: RuleState.REJECTED,
}


async def _watch(
    connection: AsyncConnection, rule: StoredRule, settings: LearningSettings, now: datetime
) -> list[StoredRule]:
    """Take back a rule that a trial made active, if answers without it are better by now."""
    found, note = await _decision(connection, rule, Arm.ACTIVE, settings, now)
    _log(rule, note)
    if found.verdict is not Verdict.ROLL_BACK:
        return []
    note = f"version {rule.version} {note}"
    try:
        return await take_back(connection, rule.tenant, rule.name, by=BY, note=note)
    except InTheWay:
        # What was active before it cannot hold by now; then nothing of that name does.
        return await _moved(
            rule, take_back(connection, rule.tenant, rule.name, 0, by=BY, note=note)
        )


def _is_given_up(rule: StoredRule, now: datetime) -> bool:
    """Whether nobody asked for its trial, and it was put into its state long ago."""
    return rule.decided_by == BY and now - _begun(rule) > GIVEN_UP_AFTER


def _begun(rule: StoredRule) -> datetime:
    """When it was put into its state."""
    return rule.decided_at or rule.created_at


async def _decision(
    connection: AsyncConnection,
    rule: StoredRule,
    tried: Arm,
    settings: LearningSettings,
    now: datetime,
) -> tuple[Decision, str]:
    """What the votes since the rule's last move say, and the same in words."""
    said = await votes_on(connection, rule, tried, now)
    human = [
        Vote(each.rater, Arm(each.arm), each.score)
        for each in said
        if each.kind == JudgementKind.HUMAN
    ]
    found = trial.decide(human, tried, settings.trial_terms)
    return found, found.reason + _by_models(said, tried)


async def votes_on(
    connection: AsyncConnection, rule: StoredRule, tried: Arm, now: datetime
) -> list[RuleVote]:
    """What people and models said since the rule's last move, as far back as it counts."""
    counted = VOTES_COUNT if tried is Arm.CANARY else WATCHED
    return await rollups.rule_votes(connection, rule.id, max(_begun(rule), now - counted))


def _log(rule: StoredRule, note: str) -> None:
    log.info(
        "trial.looked",
        tenant=str(rule.tenant),
        rule=rule.name,
        version=rule.version,
        state=rule.state,
        found=note,
    )


def _by_models(said: Sequence[RuleVote], tried: Arm) -> str:
    """What judges and checks say, which does not decide."""
    scores = {
        arm: [each.score for each in said if each.arm == arm and each.kind != JudgementKind.HUMAN]
        for arm in (tried, Arm.CONTROL)
    }
    if not all(scores.values()):
        return ""
    means = [fmean(each) for each in scores.values()]
    return f"; models say {means[0]:.2f} with it, {means[1]:.2f} without"


async def _begin(
    connection: AsyncConnection, tenant: UUID, settings: LearningSettings
) -> list[StoredRule]:
    """Put proposals into the shadow, and those that were there long enough on trial."""
    in_force = await rules.in_force(connection, tenant)
    moved: list[StoredRule] = []
    room = MOST_CANARIES - sum(rule.state is RuleState.CANARY for rule in in_force)
    shadows = [rule for rule in in_force if rule.state is RuleState.SHADOW]
    for rule in await _often_enough(connection, shadows, settings.rules_trial_questions):
        if room <= 0:
            break
        tried = await _moved(
            rule,
            decide(
                connection,
                tenant,
                rule.id,
                RuleState.CANARY,
                by=BY,
                share=settings.rules_trial_share,
            ),
        )
        room -= bool(tried)
        moved += tried
    room = max(0, MOST_SHADOWS - len(shadows))
    for rule in (await rules.listed(connection, tenant, state=RuleState.PROPOSED))[:room]:
        moved += await _moved(rule, decide(connection, tenant, rule.id, RuleState.SHADOW, by=BY))
    return moved


async def _often_enough(
    connection: AsyncConnection, shadows: Sequence[StoredRule], least: int
) -> list[StoredRule]:
    """Those of the rules in the shadow that so many questions fitted."""
    if not shadows:
        return []
    since = min(map(_begun, shadows))
    fitted = await rollups.rule_questions(connection, since, _MOST_QUESTIONS)
    return [rule for rule in shadows if fitted.get((rule.id, Arm.SHADOW), 0) >= least]


async def _moved(rule: StoredRule, ruling: Awaitable[list[StoredRule]]) -> list[StoredRule]:
    """What a ruling moved; nothing where other rules or other people stand in its way."""
    try:
        return await ruling
    except (InTheWay, WrongState) as error:
        log.info("trial.refused", rule=rule.name, version=rule.version, why=str(error))
        return []
