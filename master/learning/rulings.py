"""Deciding about rules: a guarded move that first looks at what holds already."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from pydantic import JsonValue, TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.protocol import Bus
from db import rules
from db.rules import StoredRule
from master.announce import announce
from master.rules.conflicts import Conflict, Version, conflicts
from master.rules.rule import PromptChange, RetrievalChange, RouteChange, Scope, SplitChange
from queue_schemas.states import RULE_MOVES, RuleState, sources

_CHANGE: TypeAdapter[PromptChange | RouteChange | SplitChange | RetrievalChange] = TypeAdapter(
    PromptChange | RouteChange | SplitChange | RetrievalChange
)
_HOLDING = frozenset({RuleState.CANARY, RuleState.ACTIVE})


class UnknownRule(LookupError):
    """The tenant has no such rule."""


class WrongState(ValueError):
    """The rule is in no state for that; the message says which it is in."""


class InTheWay(ValueError):
    """Other rules that hold say something else."""

    def __init__(self, found: Sequence[Conflict]) -> None:
        said = "; ".join(f"{each.name} (version {each.version}): {each.why}" for each in found)
        super().__init__(f"it cannot hold beside {said}")
        self.conflicts = tuple(found)


async def decide(
    connection: AsyncConnection,
    tenant: UUID,
    id_: UUID,
    target: RuleState,
    *,
    by: str,
    share: float | None = None,
    measured: bool = False,
    note: str | None = None,
) -> list[StoredRule]:
    """Put a version into a state; all versions that moved by it, that one first.

    Wants a connection of `tenancy.as_tenant`. Raises UnknownRule, WrongState or InTheWay.
    """
    await rules.hold(connection, tenant)
    stored = await rules.find(connection, tenant, id_)
    if stored is None:
        raise UnknownRule("this rule")
    versions = await rules.history(connection, tenant, stored.name)
    _check_state(stored, target, versions)
    if target in _HOLDING:
        await _check_beside(connection, tenant, stored)
    moved = await rules.move(
        connection, tenant, id_, target, by=by, share=share, measured=measured, note=note
    )
    if not moved:
        raise WrongState(f"{_called(stored)} was moved meanwhile")
    return await _changed(connection, tenant, versions)


def _check_state(stored: StoredRule, target: RuleState, versions: Iterable[StoredRule]) -> None:
    allowed = sources(RULE_MOVES, target)
    if stored.state not in allowed:
        words = " or ".join(sorted(allowed))
        raise WrongState(f"{_called(stored)} is {stored.state}; to be {target} it must be {words}")
    trial = [each for each in versions if each.state is RuleState.CANARY]
    if trial and target is RuleState.CANARY:
        raise WrongState(f"{_called(trial[0])} is on trial already; reject or approve it first")


def _called(stored: StoredRule) -> str:
    return f"version {stored.version} of {stored.name}"


async def _check_beside(connection: AsyncConnection, tenant: UUID, stored: StoredRule) -> None:
    in_force = await rules.in_force(connection, tenant)
    beside = [version_of(each) for each in in_force if each.state in _HOLDING]
    candidate = version_of(stored)
    if candidate is None:
        raise WrongState(f"{_called(stored)} says nothing that this release understands")
    found = conflicts(candidate, [each for each in beside if each is not None])
    if found:
        raise InTheWay(found)


def version_of(stored: StoredRule) -> Version | None:
    """What a stored version says; None where it says nothing that this release understands."""
    try:
        scope, change = Scope.model_validate(stored.scope), _CHANGE.validate_python(stored.change)
    except ValidationError:
        return None
    return Version(stored.name, stored.version, scope, change)


async def _changed(
    connection: AsyncConnection, tenant: UUID, versions: Sequence[StoredRule]
) -> list[StoredRule]:
    now = await rules.history(connection, tenant, versions[0].name)
    states = {each.id: each.state for each in versions}
    moved = [each for each in now if each.state is not states.get(each.id)]
    return sorted(moved, key=lambda each: each.state is RuleState.RETIRED)


async def take_back(
    connection: AsyncConnection,
    tenant: UUID,
    name: str,
    to_version: int | None = None,
    *,
    by: str,
    note: str | None = None,
) -> list[StoredRule]:
    """Make an older version active again (0: none at all); all that moved, the active one first.

    Wants a connection of `tenancy.as_tenant`. Raises UnknownRule, WrongState or InTheWay.
    """
    await rules.hold(connection, tenant)
    versions = await rules.history(connection, tenant, name)
    if not versions:
        raise UnknownRule("this rule")
    _, target = await rules.before(connection, tenant, name, to_version)
    if target is not None:
        await _check_beside(connection, tenant, target)
    if not await rules.rollback(connection, tenant, name, to_version, by=by, note=note):
        raise WrongState(_why_not_back(name, to_version, versions))
    return await _changed(connection, tenant, versions)


def _why_not_back(name: str, to_version: int | None, versions: Iterable[StoredRule]) -> str:
    if not to_version:
        return f"no version of {name} is active, so there is nothing to take back"
    states = [each.state for each in versions if each.version == to_version]
    is_so = f"is {states[0]}" if states else "does not exist"
    return f"version {to_version} of {name} {is_so}; only one that was active can be so again"


async def tell(bus: Bus, changed: Iterable[StoredRule]) -> None:
    """After the commit: `rule.<state>` for those who watch."""
    for each in changed:
        detail: dict[str, JsonValue] = {
            "id": str(each.id),
            "name": each.name,
            "version": each.version,
            "kind": each.kind,
            "share": each.share,
            "measured": each.measured,
            "by": each.decided_by or each.provenance.get("by"),
        }
        await announce(bus, f"rule.{each.state}", tenant=each.tenant, detail=detail)
