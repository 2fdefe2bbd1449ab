"""Feedback: what people, judges and clients said of answers, newest first."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from db import judgements, rules
from db.judgements import Opinion, StoredJudgement
from db.models import JudgementKind, JudgementSource
from db.rules import RuleName
from db.tenancy import as_tenant
from master.api import errors, outages
from master.api.state import running
from master.console.pages import page
from master.console.viewer import viewer
from master.running import Running

router = APIRouter(prefix="/console/feedback", include_in_schema=False)

_PATH = "/console/feedback"
_SHOWN = 30
_Choice = TypeVar("_Choice", Opinion, JudgementKind, JudgementSource)


@dataclass(frozen=True)
class Wanted:
    """Which judgements are looked at."""

    opinion: Opinion | None = None
    kind: JudgementKind | None = None
    source: JudgementSource | None = None
    before: tuple[datetime, UUID] | None = None

    def page_before(self, last: StoredJudgement) -> str:
        """Where the next page is."""
        said = {"verdict": self.opinion, "kind": self.kind, "source": self.source}
        chosen = {name: value for name, value in said.items() if value}
        before = f"{last.updated_at.isoformat()}~{last.id}"
        return f"{_PATH}?{urlencode(chosen | {'before': before})}"


@dataclass(frozen=True)
class Shown:
    """A judgement with the rules that it has to do with."""

    judgement: StoredJudgement
    used: list[RuleName]
    """That fitted the question."""
    behind: list[RuleName]
    """Whose proposals name it."""


@router.get("")
async def show_feedback(request: Request) -> Response:
    """What was said, with links to the requests and the rules."""
    seen = await viewer(request)
    wanted = wanted_of(request)
    found = await _found(running(request), seen.tenant, wanted)
    shown = found[:_SHOWN]
    next_url = wanted.page_before(shown[-1].judgement) if len(found) > _SHOWN else None
    return page(
        request,
        seen,
        "feedback.html",
        wanted=wanted,
        shown=shown,
        next_url=next_url,
        opinions=list(Opinion),
        kinds=list(JudgementKind),
        sources=list(JudgementSource),
    )


def wanted_of(request: Request) -> Wanted:
    """What the address asks for. Raises 400."""
    said = {name: value.strip() for name, value in request.query_params.items()}
    return Wanted(
        _choice(said, "verdict", Opinion),
        _choice(said, "kind", JudgementKind),
        _choice(said, "source", JudgementSource),
        _place(said["before"]) if said.get("before") else None,
    )


def _choice(said: dict[str, str], name: str, choices: type[_Choice]) -> _Choice | None:
    if not said.get(name):
        return None
    try:
        return choices(said[name])
    except ValueError:
        message = f"{name} must be one of {', '.join(choices)}"
        raise errors.invalid_value(message, name) from None


def _place(text: str) -> tuple[datetime, UUID]:
    at, _, identity = text.partition("~")
    wrong = errors.invalid_value("before is no place in this list", "before")
    try:
        time, last = datetime.fromisoformat(at), UUID(identity)
        if time.tzinfo is None:
            raise wrong
        return time.astimezone(UTC), last
    except (ValueError, OverflowError):
        raise wrong from None


async def _found(master: Running, tenant: UUID, wanted: Wanted) -> list[Shown]:
    """One more than is shown, if there is."""
    with outages.answered():
        async with as_tenant(master.engine, tenant) as connection:
            said = await judgements.page(
                connection,
                tenant,
                opinion=wanted.opinion,
                kind=wanted.kind,
                source=wanted.source,
                before=wanted.before,
                limit=_SHOWN + 1,
            )
            behind = await rules.resting_on(connection, tenant, [each.id for each in said])
        async with master.engine.connect() as connection:
            used = await rules.used_in(connection, tenant, [each.request for each in said])
    return [Shown(each, used.get(each.request, []), behind.get(each.id, [])) for each in said]
