"""API keys of the tenant, and what it used."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from db import tenants
from db import usage as ledger
from db.tenants import StoredKey
from db.usage import By, Spent
from master.api import errors, outages
from master.api.errors import ApiError
from master.api.keys import NewKey, new_key
from master.api.state import ring, running
from master.bill_lines import Line, bill_lines, total
from master.console.fields import fields
from master.console.pages import page
from master.console.plots import Series, columns
from master.console.viewer import Viewer, posted, viewer
from queue_schemas.registry import Registry

router = APIRouter(prefix="/console/usage", include_in_schema=False)
log = structlog.get_logger(__name__)

SPANS = (7, 30, 90)
_MOST_SERIES = 6
_LONGEST_NAME = 100
_MOST_REVOKED = 50
"""Keys that are shown although they are of no use, the newest ones."""


@dataclass(frozen=True)
class Usage:
    """What was used, day by day and model by model; both with prices."""

    days: Sequence[Line]
    models: Sequence[Line]
    total: Line
    currency: str
    series: Sequence[tuple[str, Series]]
    """Tokens a day of the models that used most; the last one is the rest."""


@router.get("")
async def show_usage(request: Request) -> Response:
    """Keys and usage."""
    return await _page(request, await viewer(request))


async def _page(request: Request, seen: Viewer, made: NewKey | None = None) -> Response:
    days = _days(request.query_params.get("days"))
    with outages.answered():
        async with running(request).engine.connect() as connection:
            keys = await tenants.list_keys(connection, seen.tenant)
            now = datetime.now(UTC)
            spent = await ledger.spent(connection, By.DAY, _since_seconds(now, days), seen.name)
    used = usage(spent, running(request).registry(), now.date(), days)
    return page(
        request,
        seen,
        "usage.html",
        201 if made else 200,
        keys=shown(keys),
        made=made,
        used=used,
        days=days,
        spans=SPANS,
        columns=columns,
    )


def shown(keys: Sequence[StoredKey]) -> list[StoredKey]:
    """All that are valid; of those that are not, only some, or one key could fill the page."""
    revoked = {key.prefix: key.revoked_at for key in keys if key.revoked_at}
    newest = set(sorted(revoked, key=revoked.__getitem__)[-_MOST_REVOKED:])
    return [key for key in keys if not key.revoked_at or key.prefix in newest]


def _days(asked: str | None) -> int:
    return next((days for days in SPANS if str(days) == asked), SPANS[0])


def _since_seconds(now: datetime, days: int) -> float:
    """To the beginning of a day, so that the first one is whole."""
    first = datetime.combine(now.date() - timedelta(days=days - 1), time(), UTC)
    return (now - first).total_seconds()


def usage(spent: Sequence[Spent], registry: Registry, today: date, days: int) -> Usage:
    """The ledger's sums as a page wants them, oldest day first."""
    by_day = bill_lines(spent, registry)
    by_model = bill_lines([replace(row, key=row.model) for row in spent], registry)
    shown = [(today - timedelta(days=ago)).isoformat() for ago in reversed(range(days))]
    return Usage(by_day, by_model, total(by_day), registry.currency, _series(spent, shown))


def _series(spent: Sequence[Spent], days: Sequence[str]) -> Sequence[tuple[str, Series]]:
    tokens: Counter[tuple[str, str]] = Counter()
    models: Counter[str] = Counter()
    for row in spent:
        number = row.prompt_tokens + row.completion_tokens
        tokens[row.model, row.key] += number
        models[row.model] += number
    named = [model for model, _ in models.most_common(_MOST_SERIES - (len(models) > _MOST_SERIES))]
    rest = models.keys() - named
    groups = [(model, {model}) for model in named] + ([("others", rest)] if rest else [])
    return [
        (name, Series(f"series-{place}", [sum(tokens[m, day] for m in group) for day in days]))
        for place, (name, group) in enumerate(groups, start=1)
    ]


@router.get("/keys")
async def show_keys(request: Request) -> Response:
    """Where a new key was shown is nothing to come back to."""
    return RedirectResponse("/console/usage", status_code=303)


@router.post("/keys")
async def make_key(request: Request) -> Response:
    """A new key of this tenant, shown in this answer and never again.

    It is revoked with the key of this session, so that nobody keeps what a stolen key made.
    """
    seen = await posted(request)
    if seen.key.made_with is not None:
        raise _denied(
            "a key that was made in the console makes no others; `millrace keys create` makes one "
            "that does"
        )
    name = (await fields(request)).get("name", "").strip()
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        message = f"a key needs a name, of at most {_LONGEST_NAME} characters in one line"
        raise errors.invalid_value(message, "name")
    made = new_key()
    with outages.answered():
        async with running(request).engine.begin() as connection:
            maker = seen.prefix
            kept = await tenants.add_key_of(connection, maker, name, made.prefix, made.digest)
    if not kept:
        raise _denied(
            f"{maker} makes no more keys: it was revoked, or {tenants.MOST_MADE} that it made are "
            "valid; revoke some"
        )
    ring(request).forget(made.prefix)
    log.info("keys.made", prefix=made.prefix, key=maker)
    return await _page(request, seen, made)


@router.post("/keys/{prefix}/revoke")
async def revoke_key(prefix: str, request: Request) -> Response:
    """Make a key that this session's key made useless, and with it its sessions.

    No other, and not itself: whoever stole a key could lock everybody else out.
    """
    seen = await posted(request)
    with outages.answered():
        async with running(request).engine.begin() as connection:
            known = await tenants.list_keys(connection, seen.tenant)
            key = next((key for key in known if key.prefix == prefix), None)
            if key is None:
                raise errors.not_found("this key")
            if key.made_with != seen.prefix:
                raise _denied(
                    f"only the key that made {prefix} revokes it here; `millrace keys revoke` "
                    "revokes any"
                )
            await tenants.revoke_key(connection, prefix)
    ring(request).forget(prefix)
    log.info("keys.revoked", prefix=prefix, key=seen.prefix)
    return RedirectResponse("/console/usage", status_code=303)


def _denied(message: str) -> ApiError:
    return ApiError(403, "permission_denied", message)
