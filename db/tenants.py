"""Tenants and their API keys. Only the digest of a key is stored."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import api_keys, tenants


@dataclass(frozen=True)
class StoredKey:
    """A key as the database knows it."""

    id: UUID
    tenant: UUID
    tenant_name: str
    name: str
    prefix: str
    digest: bytes
    created_at: datetime
    revoked_at: datetime | None


_COLUMNS = (
    api_keys.c.id,
    api_keys.c.tenant_id,
    tenants.c.name.label("tenant_name"),
    api_keys.c.name,
    api_keys.c.prefix,
    api_keys.c.digest,
    api_keys.c.created_at,
    api_keys.c.revoked_at,
)


async def ensure_tenant(connection: AsyncConnection, name: str) -> UUID:
    """The id of the tenant of that name, made if it does not exist."""
    await connection.execute(insert(tenants).values(id=uuid4(), name=name).on_conflict_do_nothing())
    found: UUID = (await connection.execute(select(tenants.c.id).filter_by(name=name))).scalar_one()
    return found


async def by_name(connection: AsyncConnection) -> dict[str, UUID]:
    """The ids of all tenants."""
    query = select(tenants.c.name, tenants.c.id)
    return {row.name: row.id for row in await connection.execute(query)}


async def add_key(
    connection: AsyncConnection, tenant: UUID, name: str, prefix: str, digest: bytes
) -> None:
    """Store a new key."""
    row = {"id": uuid4(), "tenant_id": tenant, "name": name, "prefix": prefix, "digest": digest}
    await connection.execute(insert(api_keys).values(row))


async def find_key(connection: AsyncConnection, prefix: str) -> StoredKey | None:
    """The key with this public prefix, revoked or not."""
    query = select(*_COLUMNS).join(tenants).where(api_keys.c.prefix == prefix)
    row = (await connection.execute(query)).one_or_none()
    return StoredKey(*row) if row else None


async def list_keys(connection: AsyncConnection) -> list[StoredKey]:
    """All keys, oldest first."""
    query = select(*_COLUMNS).join(tenants).order_by(api_keys.c.created_at)
    return [StoredKey(*row) for row in await connection.execute(query)]


async def revoke_key(connection: AsyncConnection, prefix: str) -> bool:
    """Make a key useless; False if there is no such key or it was revoked before."""
    query = (
        update(api_keys)
        .where(api_keys.c.prefix == prefix, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=func.now())
    )
    return (await connection.execute(query)).rowcount == 1


async def remove_tenant(connection: AsyncConnection, tenant: UUID) -> None:
    """Delete a tenant that has nothing any more; an integrity error otherwise."""
    await connection.execute(tenants.delete().filter_by(id=tenant))
