"""What judgements add up to, by SQL functions that workflows outside call as well.

Those of one tenant want a connection of `tenancy.as_tenant`; those that name a tenant want one of
the owner, and give all tenants for None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True)
class RuleVote:
    """What somebody said of an answer to a question that a rule fitted."""

    judgement: UUID
    kind: str
    """human, or who judged otherwise: check, choice, review."""
    rater: str
    arm: str
    score: float
    """0 to 1."""
    at: datetime
    """When it was said last."""


@dataclass(frozen=True)
class RollUp:
    """What one model did in steps of one kind, of plans of one strategy, under one rule or any."""

    tenant_id: UUID
    asked: str
    """The strategy that clients asked for; `direct` for a model's own name."""
    strategy: str
    """The one that was carried out."""
    kind: str
    model: str
    rule_id: UUID | None
    """Of the version; None: whatever rules fitted."""
    rule_name: str | None
    rule_version: int | None
    arm: str | None
    requests: int
    judged: int
    """Requests that people gave a score."""
    votes: int
    """Of people; of each rater three at most."""
    mean_score: float | None
    """0 to 1, each rater's mean weighed with its votes; None without any."""
    raters: int
    stops: int
    """Requests whose client did not wait."""
    retries: int
    """Requests that were asked again."""
    p50_seconds: float | None
    """Of the steps that succeeded, from their start."""
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Complaint:
    """What people who disliked answers said of them, in one of a few words."""

    tenant_id: UUID
    asked: str
    complaint: str
    votes: int
    """Requests of which it was said."""
    raters: int
    judgements: Sequence[UUID]
    """The latest, twenty at most."""


_VOTES = text("""
    SELECT v.*, j.updated_at AS at
      FROM millrace.rule_votes(:rule, :since) v JOIN millrace.judgements j ON j.id = v.judgement
""")


async def rule_votes(connection: AsyncConnection, rule: UUID, since: datetime) -> list[RuleVote]:
    """What was said of this tenant's answers under a version of a rule that were asked since."""
    rows = await connection.execute(_VOTES, {"rule": rule, "since": since})
    return [RuleVote(**row) for row in rows.mappings()]


_QUESTIONS = text("SELECT rule, arm, questions FROM millrace.rule_questions(:since, :most)")


async def rule_questions(
    connection: AsyncConnection, since: datetime, most: int
) -> dict[tuple[UUID, str], int]:
    """How many of this tenant's newest `most` questions fitted each version, by its arm."""
    rows = await connection.execute(_QUESTIONS, {"since": since, "most": most})
    return {(row.rule, row.arm): row.questions for row in rows}


_ROLLUP = text("SELECT * FROM millrace.rollup(:tenant, make_interval(secs => :since))")


async def rollup(
    connection: AsyncConnection, tenant: UUID | None, since_seconds: float
) -> list[RollUp]:
    """Requests of the last so many seconds that have ended."""
    rows = await connection.execute(_ROLLUP, {"tenant": tenant, "since": since_seconds})
    return [RollUp(**row) for row in rows.mappings()]


_COMPLAINTS = text("SELECT * FROM millrace.complaints(:tenant, make_interval(secs => :since))")


async def complaints(
    connection: AsyncConnection, tenant: UUID | None, since_seconds: float
) -> list[Complaint]:
    """What was said in the last so many seconds of answers that were scored below a half."""
    rows = await connection.execute(_COMPLAINTS, {"tenant": tenant, "since": since_seconds})
    return [Complaint(**row) for row in rows.mappings()]


_PROPOSE = text("""
    SELECT millrace.propose_rule(:tenant, :name, CAST(:scope AS jsonb), CAST(:change AS jsonb),
                                 :workflow, CAST(:provenance AS jsonb), :note)
""")


async def propose(
    connection: AsyncConnection,
    tenant: UUID,
    name: str,
    *,
    scope: Mapping[str, Any],
    change: Mapping[str, Any],
    workflow: str,
    provenance: Mapping[str, Any],
    note: str | None = None,
) -> UUID | None:
    """The version that is proposed, or was already; None if it was refused or retired lately.

    Raises the database's error if it is no rule, or if too many proposals are open.
    """
    values = {
        "tenant": tenant,
        "name": name,
        "scope": to_json(scope).decode(),
        "change": to_json(change).decode(),
        "workflow": workflow,
        "provenance": to_json(provenance).decode(),
        "note": note,
    }
    found: UUID | None = await connection.scalar(_PROPOSE, values)
    return found


_ON_TRIAL = text("""
    SELECT DISTINCT tenant_id FROM millrace.rules
     WHERE state IN ('shadow', 'canary') OR state = 'active' AND measured
        OR state = 'proposed' AND :proposals
     ORDER BY 1
""")


async def tenants_on_trial(connection: AsyncConnection, *, proposals: bool) -> list[UUID]:
    """Who has rules that are compared; with `proposals` also who has rules that could be."""
    return list((await connection.execute(_ON_TRIAL, {"proposals": proposals})).scalars())


_JUDGED = text("""
    SELECT DISTINCT tenant_id FROM millrace.judgements
     WHERE kind = 'human' AND updated_at > now() - make_interval(secs => :since) ORDER BY 1
""")


async def tenants_judged(connection: AsyncConnection, since_seconds: float) -> list[UUID]:
    """Whose answers people judged in the last so many seconds."""
    return list((await connection.execute(_JUDGED, {"since": since_seconds})).scalars())
