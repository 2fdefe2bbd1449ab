"""Rules of one tenant and their versions: every move is guarded by the move table.

All functions want a connection of `tenancy.as_tenant`. Those that write hold the tenant's rules
for the rest of the transaction, so whoever holds them first can look before it decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import RowMapping, func, select, text, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from db.rule_table import rules
from queue_schemas.states import RULE_MOVES, RuleState, sources

IN_FORCE = (RuleState.SHADOW, RuleState.CANARY, RuleState.ACTIVE)
LIVE = (RuleState.PROPOSED, *IN_FORCE)


@dataclass(frozen=True)
class NewRule:
    """What somebody proposes. `scope` and `change` as `master.rules.rule` has them, as JSON."""

    name: str
    kind: str
    change: Mapping[str, Any]
    scope: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    note: str | None = None


@dataclass(frozen=True)
class StoredRule:
    """One version of a rule as the database has it."""

    id: UUID
    tenant: UUID
    name: str
    version: int
    kind: str
    scope: Mapping[str, Any]
    change: Mapping[str, Any]
    state: RuleState
    share: float | None
    """Of the questions that fit, 0 to 1; only of a canary."""
    measured: bool
    """A measured lift made it active; it keeps a control group."""
    parent: UUID | None
    provenance: Mapping[str, Any]
    note: str | None
    decided_by: str | None
    decided_at: datetime | None
    created_at: datetime
    changed_at: datetime
    replaced: UUID | None = None
    """The version in whose place it became active, until that was taken back."""


_COLUMNS = (
    rules.c.id,
    rules.c.tenant_id.label("tenant"),
    rules.c.name,
    rules.c.version,
    rules.c.kind,
    rules.c.scope,
    rules.c.change,
    rules.c.state,
    rules.c.share,
    rules.c.measured,
    rules.c.parent,
    rules.c.provenance,
    rules.c.note,
    rules.c.decided_by,
    rules.c.decided_at,
    rules.c.created_at,
    rules.c.changed_at,
    rules.c.replaced,
)


def _stored(row: RowMapping) -> StoredRule:
    fields = {column.name: row[column.name] for column in _COLUMNS}
    return StoredRule(**{**fields, "state": RuleState(row["state"])})


_HOLD = text("SELECT millrace.hold_rules(:tenant)")


async def hold(connection: AsyncConnection, tenant: UUID) -> None:
    """Let nobody else change the tenant's rules for the rest of the transaction."""
    await connection.execute(_HOLD, {"tenant": tenant})


async def propose(connection: AsyncConnection, tenant: UUID, new: NewRule) -> StoredRule:
    """Store the next version of its name, or give the live one that says just this already."""
    await hold(connection, tenant)
    if same := await find_same(connection, tenant, new):
        return same
    versions = await history(connection, tenant, new.name)
    row = {
        "id": uuid4(),
        "tenant_id": tenant,
        "name": new.name,
        "version": versions[0].version + 1 if versions else 1,
        "kind": new.kind,
        "scope": dict(new.scope),
        "change": dict(new.change),
        "parent": _parent(versions),
        "provenance": dict(new.provenance),
        "note": new.note,
    }
    query = insert(rules).values(row).returning(*_COLUMNS)
    return _stored((await connection.execute(query)).mappings().one())


def _parent(versions: list[StoredRule]) -> UUID | None:
    active = [each.id for each in versions if each.state is RuleState.ACTIVE]
    return next(iter(active or [each.id for each in versions]), None)


async def find_same(connection: AsyncConnection, tenant: UUID, new: NewRule) -> StoredRule | None:
    """The live version of that name with just this scope and change."""
    query = (
        select(*_COLUMNS)
        .filter_by(tenant_id=tenant, name=new.name)
        .where(
            rules.c.state.in_(LIVE),
            rules.c.scope == dict(new.scope),
            rules.c.change == dict(new.change),
        )
        .order_by(rules.c.version.desc())
        .limit(1)
    )
    row = (await connection.execute(query)).mappings().one_or_none()
    return _stored(row) if row else None


async def find(connection: AsyncConnection, tenant: UUID, id_: UUID) -> StoredRule | None:
    """One version."""
    query = select(*_COLUMNS).filter_by(tenant_id=tenant, id=id_)
    row = (await connection.execute(query)).mappings().one_or_none()
    return _stored(row) if row else None


async def history(connection: AsyncConnection, tenant: UUID, name: str) -> list[StoredRule]:
    """All versions of a name, the newest first."""
    query = (
        select(*_COLUMNS).filter_by(tenant_id=tenant, name=name).order_by(rules.c.version.desc())
    )
    return [_stored(row) for row in (await connection.execute(query)).mappings()]


async def listed(
    connection: AsyncConnection,
    tenant: UUID,
    *,
    state: RuleState | None = None,
    name: str | None = None,
    limit: int = 100,
) -> list[StoredRule]:
    """Versions in any state, or in one; by name, the newest of each first."""
    query = select(*_COLUMNS).filter_by(tenant_id=tenant)
    if state is not None:
        query = query.filter_by(state=state)
    if name is not None:
        query = query.filter_by(name=name)
    query = query.order_by(rules.c.name, rules.c.version.desc()).limit(limit)
    return [_stored(row) for row in (await connection.execute(query)).mappings()]


@dataclass(frozen=True)
class RuleName:
    """A version, to point to it."""

    id: UUID
    name: str
    version: int


_RESTING_ON = text("""
    SELECT f.judgement #>> '{}' AS judgement, r.id, r.name, r.version
      FROM millrace.rules r
     CROSS JOIN LATERAL jsonb_path_query(r.provenance, '$.feedback[*]') f(judgement)
     WHERE r.tenant_id = :tenant AND f.judgement #>> '{}' = ANY(CAST(:judgements AS text[]))
     ORDER BY r.name, r.version
""")


async def resting_on(
    connection: AsyncConnection, tenant: UUID, judgements: Sequence[UUID]
) -> dict[UUID, list[RuleName]]:
    """The versions whose proposals name these judgements, by judgement."""
    values = {"tenant": tenant, "judgements": [str(each) for each in judgements]}
    found: dict[UUID, list[RuleName]] = {}
    for row in await connection.execute(_RESTING_ON, values):
        found.setdefault(UUID(row.judgement), []).append(RuleName(row.id, row.name, row.version))
    return found


_USED_IN = text("""
    SELECT q.id AS request, jsonb_path_query(q.plan, '$.rules[*]') AS used
      FROM millrace.requests q WHERE q.tenant_id = :tenant AND q.id = ANY(:requests)
""")


async def used_in(
    connection: AsyncConnection, tenant: UUID, requests: Sequence[UUID]
) -> dict[UUID, list[RuleName]]:
    """The versions that fitted these requests of the tenant. Wants the owner's connection."""
    values = {"tenant": tenant, "requests": list(requests)}
    found: dict[UUID, list[RuleName]] = {}
    for row in await connection.execute(_USED_IN.columns(used=JSONB), values):
        name = RuleName(UUID(row.used["id"]), row.used["name"], row.used["version"])
        found.setdefault(row.request, []).append(name)
    return found


async def in_force(connection: AsyncConnection, tenant: UUID) -> list[StoredRule]:
    """What is looked at when a question comes: active, on trial or in the shadow; by name."""
    query = (
        select(*_COLUMNS)
        .filter_by(tenant_id=tenant)
        .where(rules.c.state.in_(IN_FORCE))
        .order_by(rules.c.name, rules.c.version)
    )
    return [_stored(row) for row in (await connection.execute(query)).mappings()]


async def move(
    connection: AsyncConnection,
    tenant: UUID,
    id_: UUID,
    target: RuleState,
    *,
    by: str,
    share: float | None = None,
    measured: bool = False,
    note: str | None = None,
) -> bool:
    """Put a version into another state; what was active of its name retires when it is activated.

    `share` (0 to 1) belongs to a canary, `measured` to an active one. False: it is in no state
    that leads there, or another version of its name is the canary.
    """
    await hold(connection, tenant)
    version = await find(connection, tenant, id_)
    if version is None or version.state not in sources(RULE_MOVES, target):
        return False
    there = await _in_state(connection, tenant, version.name, target)
    if there is not None and target is RuleState.CANARY:
        return False
    values: dict[str, Any] = {"share": share}
    if target is not RuleState.RETIRED:  # which keeps what it was
        values["measured"] = measured
    if target is RuleState.ACTIVE:
        values["replaced"] = there.id if there else None
        if there is not None:
            await _put(connection, tenant, there.id, RuleState.RETIRED, by=by)
    return await _put(connection, tenant, id_, target, by=by, note=note, **values)


async def _in_state(
    connection: AsyncConnection, tenant: UUID, name: str, state: RuleState
) -> StoredRule | None:
    return next(iter(await listed(connection, tenant, name=name, state=state, limit=1)), None)


async def _put(
    connection: AsyncConnection,
    tenant: UUID,
    id_: UUID,
    target: RuleState,
    *,
    by: str,
    note: str | None = None,
    **values: Any,
) -> bool:
    """`values`: of other columns; those that are not named keep theirs, a share does not."""
    values = {
        "state": target,
        "share": None,
        "decided_by": by,
        "decided_at": func.now(),
        "changed_at": func.now(),
        **values,
    }
    if note is not None:
        values["note"] = note
    query = (
        update(rules)
        .filter_by(tenant_id=tenant, id=id_)
        .where(rules.c.state.in_(sources(RULE_MOVES, target)))
        .values(values)
    )
    return (await connection.execute(query)).rowcount == 1


async def before(
    connection: AsyncConnection, tenant: UUID, name: str, to_version: int | None = None
) -> tuple[StoredRule | None, StoredRule | None]:
    """The active version of a name, and the one that a rollback makes active in its place.

    Without `to_version`: the one in whose place the active one came; None: there was none, or it
    was taken back itself, and the rollback only takes the active one back. `to_version` 0 asks for
    just that.
    """
    versions = await history(connection, tenant, name)
    active = next((each for each in versions if each.state is RuleState.ACTIVE), None)
    retired = [each for each in versions if each.state is RuleState.RETIRED]
    if to_version is not None:
        return active, next((each for each in retired if each.version == to_version), None)
    replaced = active.replaced if active else None
    return active, next((each for each in retired if each.id == replaced), None)


async def rollback(
    connection: AsyncConnection,
    tenant: UUID,
    name: str,
    to_version: int | None = None,
    *,
    by: str,
    note: str | None = None,
) -> bool:
    """Make an older version active again, as `before` says which; the active one retires.

    It is again what it was: a measured one keeps a control group. False: there is nothing to take
    back, or the version that was named is not a retired one.
    """
    await hold(connection, tenant)
    active, target = await before(connection, tenant, name, to_version)
    if target is None and (active is None or to_version):
        return False
    if active is not None:
        said = None if target else note
        await _put(connection, tenant, active.id, RuleState.RETIRED, by=by, note=said)
        await _never_back_to(connection, tenant, active.id)
    if target is None:
        return True
    return await _put(connection, tenant, target.id, RuleState.ACTIVE, by=by, note=note)


async def _never_back_to(connection: AsyncConnection, tenant: UUID, taken_back: UUID) -> None:
    """Who came in the place of a version that was taken back has none to go back to."""
    query = update(rules).filter_by(tenant_id=tenant, replaced=taken_back).values(replaced=None)
    await connection.execute(query)
