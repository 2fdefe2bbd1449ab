"""Rules: proposals with their evidence, what they change, how trials stand; and what is decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from db import judgements, rules
from db.judgements import StoredJudgement
from db.models import JudgementKind
from db.rules import StoredRule
from db.tenancy import as_tenant
from master.api import errors, outages
from master.api import rules as api
from master.api.rule_shapes import RuleDecision, RuleRollback, RuleTrial, read
from master.api.state import running
from master.console import lift_plot, word_diff
from master.console.fields import fields
from master.console.lift_plot import DatedVote
from master.console.pages import page
from master.console.viewer import Viewer, posted, viewer
from master.learning.trials import arm_of, standing, votes_on
from master.rules.rule import Arm
from master.rules.trial import Decision
from master.running import Running
from queue_schemas.states import RULE_MOVES, RuleState, sources

router = APIRouter(prefix="/console/rules", include_in_schema=False)

_PATH = "/console/rules"
_MOST = 200
_ORDER = (
    RuleState.PROPOSED,
    RuleState.CANARY,
    RuleState.SHADOW,
    RuleState.ACTIVE,
    RuleState.RETIRED,
    RuleState.REJECTED,
)


@router.get("")
async def show_rules(request: Request) -> Response:
    """Versions by state; what waits for a decision comes first."""
    seen = await viewer(request)
    master = running(request)
    said = request.query_params.get("state", "")
    if said and said not in set(RuleState):
        raise errors.invalid_value(f"state must be one of {', '.join(RuleState)}", "state")
    state = RuleState(said) if said else None
    with outages.answered():
        async with as_tenant(master.engine, seen.tenant) as connection:
            found = await rules.listed(connection, seen.tenant, state=state, limit=_MOST + 1)
    by_state = sorted(found[:_MOST], key=lambda rule: _ORDER.index(rule.state))
    groups = [(of, list(group)) for of, group in groupby(by_state, key=lambda rule: rule.state)]
    return page(
        request,
        seen,
        "rules.html",
        groups=groups,
        states=_ORDER,
        state=state,
        more=len(found) > _MOST,
        said=word_diff.said,
    )


@dataclass(frozen=True)
class Trial:
    """How a trial stands, drawn."""

    decision: Decision
    votes: Sequence[DatedVote]
    tried: Arm

    @property
    def sides(self) -> list[tuple[str, Any, tuple[float, float]]]:
        """With it and without it: the votes, and where the mean may be."""
        both = (("With it", self.decision.tried), ("Without", self.decision.control))
        return [(name, side, lift_plot.interval(side)) for name, side in both]

    @property
    def rates(self) -> str:
        """The means with their intervals, as SVG."""
        return lift_plot.rates(self.decision)

    @property
    def over_time(self) -> str:
        """The means from vote to vote, as SVG; empty with too few."""
        return lift_plot.over_time(self.votes, self.tried)


@dataclass(frozen=True)
class Found:
    """A version with all that is shown beside it."""

    rule: StoredRule
    versions: list[StoredRule]
    trial: Trial | None
    evidence: list[StoredJudgement]

    def base(self, number: str) -> StoredRule | None:
        """The version to compare with: that number, or what holds, or what it was made from."""
        others = [each for each in self.versions if each.id != self.rule.id]
        if number:
            return next((each for each in others if str(each.version) == number), None)
        if self.rule.state is RuleState.ACTIVE:
            wanted = self.rule.replaced or self.rule.parent
            return next((each for each in others if each.id == wanted), None)
        active = [each for each in others if each.state is RuleState.ACTIVE]
        made_from = [each for each in others if each.id == self.rule.parent]
        return next(iter(active + made_from), None)


@router.get("/{rule_id}")
async def show_rule(rule_id: str, request: Request) -> Response:
    """One version: what it changes, what it rests on, how its trial stands, and its history."""
    seen = await viewer(request)
    found = await _found(running(request), seen.tenant, api.identity_of(rule_id))
    base = found.base(request.query_params.get("against", ""))
    return page(
        request,
        seen,
        "rule.html",
        rule=found.rule,
        versions=found.versions,
        trial=found.trial,
        evidence=found.evidence,
        missing=len(_feedback(found.rule)) - len(found.evidence),
        base=base,
        fields=word_diff.fields(base, found.rule),
        allowed={target.value for target in RuleState if _may(found.rule, target)},
        retired=[each for each in found.versions if each.state is RuleState.RETIRED],
        done="done" in request.query_params,
    )


def _may(rule: StoredRule, target: RuleState) -> bool:
    return rule.state in sources(RULE_MOVES, target)


async def _found(master: Running, tenant: UUID, identity: UUID) -> Found:
    now = datetime.now(UTC)
    with outages.answered():
        async with as_tenant(master.engine, tenant) as connection:
            stored, versions = await api.with_versions(connection, tenant, identity)
            decision = await standing(connection, stored, master.settings, now)
            trial = await _trial(connection, stored, decision, now)
            evidence = await judgements.of_ids(connection, tenant, _feedback(stored))
    return Found(stored, versions, trial, evidence)


async def _trial(
    connection: AsyncConnection, rule: StoredRule, decision: Decision | None, now: datetime
) -> Trial | None:
    tried = arm_of(rule)
    if decision is None or tried is None:
        return None
    said = await votes_on(connection, rule, tried, now)
    votes = [
        DatedVote(each.at, each.rater, Arm(each.arm), each.score)
        for each in said
        if each.kind == JudgementKind.HUMAN
    ]
    return Trial(decision, votes, tried)


def _feedback(rule: StoredRule) -> list[UUID]:
    """The judgements that its proposal names; a workflow may have written anything there."""
    named = rule.provenance.get("feedback")
    texts = [each for each in named if isinstance(each, str)] if isinstance(named, list) else []
    return [identity for each in texts if (identity := _uuid(each)) is not None]


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


@router.post("/{rule_id}/approve")
async def approve(rule_id: str, request: Request) -> Response:
    """Make a version active."""
    return await _decided(rule_id, request, RuleState.ACTIVE)


@router.post("/{rule_id}/reject")
async def reject(rule_id: str, request: Request) -> Response:
    """Refuse a proposal, or end a trial."""
    return await _decided(rule_id, request, RuleState.REJECTED)


@router.post("/{rule_id}/try")
async def try_out(rule_id: str, request: Request) -> Response:
    """Put a version on trial: for some per cent of the questions that fit, or to be counted."""
    return await _decided(rule_id, request, None)


async def _decided(rule_id: str, request: Request, target: RuleState | None) -> Response:
    seen = await posted(request)
    given = await fields(request)
    said: dict[str, Any] = _note(given.get("note", ""))
    if target is None and given.get("share", "").strip():
        said["share"] = _share(given["share"].strip())
    body = read(RuleTrial if target is None else RuleDecision, said)
    decide = partial(api.decided, running(request), seen.tenant, api.identity_of(rule_id), body)
    changed = await decide(target, by=_who(seen, request))
    return _to(changed[0])


@router.post("/{name}/rollback")
async def roll_back(name: str, request: Request) -> Response:
    """Take the active version of a name back, and make an older one active if there is one."""
    seen = await posted(request)
    given = await fields(request)
    said = _note(given.get("note", ""))
    if version := given.get("version", "").strip():
        said["version"] = _whole(version)
    body = read(RuleRollback, said)
    by = _who(seen, request)
    changed = await api.taken_back(running(request), seen.tenant, name, body, by=by)
    return _to(changed[0])


def _who(seen: Viewer, request: Request) -> str:
    return api.decider(seen.key, request, None)


def _note(text: str) -> dict[str, Any]:
    return {"note": text.strip()} if text.strip() else {}


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise errors.invalid_value("version must be a whole number", "version")
    return int(text)


def _share(text: str) -> float:
    """Of per cent."""
    try:
        return float(text) / 100
    except ValueError:
        raise errors.invalid_value("share must be a number of per cent", "share") from None


def _to(rule: StoredRule) -> Response:
    return RedirectResponse(f"{_PATH}/{rule.id}?done", status_code=303)
