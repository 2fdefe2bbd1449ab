"""`/v1/routing`: which model does what, and why; to be looked at and to be forgotten."""

import time
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.requests import Request

from db import evidence
from db.tenancy import as_tenant
from master.api import errors, outages
from master.api.bodies import warn_of
from master.api.openapi import success
from master.api.routing_shapes import RoutingTable, table
from master.api.state import ring, running
from master.rules.bandit import Work
from master.running import Running

router = APIRouter(prefix="/v1/routing", tags=["Millrace"])

_FAILURES = (400, 401, 503)


@router.get("", response_model=None, responses=success(RoutingTable, *_FAILURES))
async def show_routing(request: Request) -> dict[str, Any]:
    """What people's judgements say of each model, by kind of work, and which one is chosen."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    warn_of(sorted(request.query_params.keys()), strict=True)
    return await _table(master, key.tenant)


@router.delete("", response_model=None, responses=success(RoutingTable, *_FAILURES))
async def reset_routing(
    request: Request,
    kind: Annotated[str | None, Query(description="A kind of work; none: all.")] = None,
) -> dict[str, Any]:
    """Forget what was said so far. The judgements stay; they do not count any more."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    warn_of(sorted(request.query_params.keys() - {"kind"}), strict=True)
    if kind is not None and kind not in set(Work):
        known = ", ".join(Work)
        raise errors.invalid_value(f"kind must be one of: {known}", "kind", "invalid_value")
    works = [kind] if kind is not None else [work.value for work in Work]
    with outages.answered():
        async with as_tenant(master.engine, key.tenant) as connection:
            await evidence.reset(connection, key.tenant, works)
    return await _table(master, key.tenant)


async def _table(master: Running, tenant: UUID) -> dict[str, Any]:
    with outages.answered():
        found = await master.routing.look(tenant)
    learns, share = master.routing.learns, master.routing.explore_share
    return table(found, master.registry(), learns=learns, explore_share=share)
