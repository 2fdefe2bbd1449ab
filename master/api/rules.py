"""`/v1/rules`: propose rules, look at them, and decide about them. Tenants own their rules."""

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import JsonValue
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from db import rules
from db.rules import NewRule, StoredRule
from db.tenancy import as_tenant
from db.tenants import StoredKey
from master.api import errors, outages
from master.api.auth import asker
from master.api.bodies import warn_of
from master.api.corpus_writes import written
from master.api.openapi import failures, request_body, success
from master.api.rule_shapes import (
    MOST_VERSIONS,
    ChangedRules,
    RuleDecision,
    RuleList,
    RuleRecord,
    RuleRequest,
    RuleRollback,
    RuleTrial,
    RuleWithHistory,
    new_rule,
    read,
    rule_record,
    trial_record,
)
from master.api.state import ring, running
from master.api.strict_json import read_json
from master.learning.rulings import InTheWay, UnknownRule, WrongState, decide, take_back, tell
from master.learning.trials import standing
from master.learning.verdicts import person
from master.planning.strategies import STRATEGIES
from master.rules.conflicts import fault
from master.rules.rule import RULE_NAME
from master.running import Running
from queue_schemas.states import RuleState

router = APIRouter(prefix="/v1/rules", tags=["Millrace"])

_LISTED_BY = frozenset({"state", "name", "limit"})
_WRITING = (400, 401, 408, 413, 415, 503)
_PROPOSED: dict[int | str, dict[str, Any]] = {
    200: {"model": RuleRecord, "description": "It is there already"},
    201: {"model": RuleRecord, "description": "Stored"},
    **failures(*_WRITING),
}


@router.post(
    "",
    status_code=201,
    response_model=None,
    responses=_PROPOSED,
    openapi_extra=request_body(RuleRequest),
)
async def propose_rule(request: Request) -> Response:
    """Propose a rule, or another version of one. It changes nothing before somebody decides."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    body = read(RuleRequest, await read_json(request))
    _check(master, body)
    new = new_rule(body, decider(key, request, body.user))
    stored, is_new = await written(
        master, key.tenant, lambda connection: _propose(connection, key.tenant, new)
    )
    if is_new:
        await tell(master.bus, [stored])
    return JSONResponse(rule_record(stored), status_code=201 if is_new else 200)


def _check(master: Running, body: RuleRequest) -> None:
    models = [model.name for model in master.registry().chat_models()]
    found = fault(body.scope, body.change, list(STRATEGIES), models)
    if found is not None:
        raise errors.invalid_value(f"{found.path} {found.why}", found.path)


def decider(key: StoredKey, request: Request, user: str | None) -> str:
    """Who says so: the user that is named, or else the key."""
    who = asker(key, request.headers, user)
    return person(who.end_user) if who.end_user else f"key:{key.name} ({key.prefix})"


async def _propose(
    connection: AsyncConnection, tenant: UUID, new: NewRule
) -> tuple[StoredRule, bool]:
    await rules.hold(connection, tenant)
    same = await rules.find_same(connection, tenant, new)
    return (same, False) if same else (await rules.propose(connection, tenant, new), True)


@router.get("", response_model=None, responses=success(RuleList, 400, 401, 503))
async def list_rules(
    request: Request,
    state: RuleState | None = None,
    name: Annotated[str | None, Query(pattern=RULE_NAME)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
) -> dict[str, Any]:
    """Rules of yours by name, the newest version of each first."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    warn_of(sorted(request.query_params.keys() - _LISTED_BY), strict=True)
    with outages.answered():
        async with as_tenant(master.engine, key.tenant) as connection:
            found = await rules.listed(
                connection, key.tenant, state=state, name=name, limit=limit + 1
            )
    data = [rule_record(each) for each in found[:limit]]
    return {"object": "list", "data": data, "has_more": len(found) > limit}


@router.get("/{rule_id}", response_model=None, responses=success(RuleWithHistory, 401, 404, 503))
async def show_rule(rule_id: str, request: Request) -> dict[str, Any]:
    """One version of a rule of yours, how its trial stands, and the history of its name."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    identity = identity_of(rule_id)
    with outages.answered():
        async with as_tenant(master.engine, key.tenant) as connection:
            stored, versions = await with_versions(connection, key.tenant, identity)
            trial = await standing(connection, stored, master.settings, datetime.now(UTC))
    history = [rule_record(each) for each in versions[:MOST_VERSIONS]]
    return rule_record(stored) | {"trial": trial_record(trial), "history": history}


async def with_versions(
    connection: AsyncConnection, tenant: UUID, identity: UUID
) -> tuple[StoredRule, list[StoredRule]]:
    """A version, and all versions of its name, the newest first. Raises `ApiError` 404."""
    stored = await rules.find(connection, tenant, identity)
    if stored is None:
        raise errors.not_found("this rule")
    return stored, await rules.history(connection, tenant, stored.name)


@router.post(
    "/{rule_id}/approve",
    response_model=None,
    responses=success(RuleRecord, 404, 409, *_WRITING),
    openapi_extra=request_body(RuleDecision),
)
async def approve_rule(rule_id: str, request: Request) -> dict[str, Any]:
    """Make a version active. The one of its name that was active retires."""
    return await _decided(rule_id, request, RuleDecision, RuleState.ACTIVE)


@router.post(
    "/{rule_id}/reject",
    response_model=None,
    responses=success(RuleRecord, 404, 409, *_WRITING),
    openapi_extra=request_body(RuleDecision),
)
async def reject_rule(rule_id: str, request: Request) -> dict[str, Any]:
    """Refuse a proposal, or end a trial."""
    return await _decided(rule_id, request, RuleDecision, RuleState.REJECTED)


@router.post(
    "/{rule_id}/try",
    response_model=None,
    responses=success(RuleRecord, 404, 409, *_WRITING),
    openapi_extra=request_body(RuleTrial),
)
async def try_rule(rule_id: str, request: Request) -> dict[str, Any]:
    """Put a version on trial: with a share it holds for so many questions, without it for none."""
    return await _decided(rule_id, request, RuleTrial, None)


async def _decided(
    rule_id: str, request: Request, shape: type[RuleDecision], target: RuleState | None
) -> dict[str, Any]:
    """`target`: None asks for a trial."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    identity = identity_of(rule_id)
    body = read(shape, await _body(request))
    by = decider(key, request, body.user)
    changed = await decided(master, key.tenant, identity, body, target, by=by)
    return rule_record(changed[0])


async def decided(
    master: Running,
    tenant: UUID,
    identity: UUID,
    body: RuleDecision,
    target: RuleState | None,
    *,
    by: str,
) -> list[StoredRule]:
    """What moved, that version first; `target`: None asks for a trial. Raises `ApiError`."""
    share = body.share if isinstance(body, RuleTrial) else None
    on_trial = RuleState.SHADOW if share is None else RuleState.CANARY
    return await _change(
        master,
        tenant,
        lambda connection: decide(
            connection,
            tenant,
            identity,
            target or on_trial,
            by=by,
            share=share,
            note=body.note or None,
        ),
    )


@router.post(
    "/{name}/rollback",
    response_model=None,
    responses=success(ChangedRules, 404, 409, *_WRITING),
    openapi_extra=request_body(RuleRollback),
)
async def roll_back_rule(name: str, request: Request) -> dict[str, Any]:
    """Take the active version of a name back, and make an older one active if there is one."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    body = read(RuleRollback, await _body(request))
    changed = await taken_back(master, key.tenant, name, body, by=decider(key, request, body.user))
    return {"object": "list", "data": [rule_record(each) for each in changed]}


async def taken_back(
    master: Running, tenant: UUID, name: str, body: RuleRollback, *, by: str
) -> list[StoredRule]:
    """What a rollback moved, the active version first. Raises `ApiError`."""
    if re.fullmatch(RULE_NAME, name) is None:
        raise errors.not_found("this rule")
    return await _change(
        master,
        tenant,
        lambda connection: take_back(
            connection, tenant, name, body.version, by=by, note=body.note or None
        ),
    )


async def _body(request: Request) -> Mapping[str, JsonValue]:
    """Who has nothing to say need not send a body."""
    is_absent = request.headers.get("content-length", "0") == "0"
    return (
        {} if is_absent and "transfer-encoding" not in request.headers else await read_json(request)
    )


async def _change(
    master: Running,
    tenant: UUID,
    change: Callable[[AsyncConnection], Awaitable[list[StoredRule]]],
) -> list[StoredRule]:
    """What moved, committed and told. Raises `ApiError` 404 or 409."""
    try:
        changed = await written(master, tenant, change)
    except UnknownRule:
        raise errors.not_found("this rule") from None
    except InTheWay as conflict:
        raise _refused("rule_conflict", str(conflict)) from None
    except WrongState as wrong:
        raise _refused("wrong_state", str(wrong)) from None
    master.rulebook.forget(tenant)
    await tell(master.bus, changed)
    return changed


def _refused(code: str, message: str) -> errors.ApiError:
    return errors.ApiError(409, code, message, headers={"x-should-retry": "false"})


def identity_of(text: str) -> UUID:
    """A malformed id gets the same answer as an unknown one."""
    try:
        return UUID(text)
    except ValueError:
        raise errors.not_found("this rule") from None
