"""Tenants and their API keys. Only the digest of a key is stored."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import api_keys, tenants

MOST_MADE = 50
"""Valid keys that one key made."""


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
    """By itself, or with the key that made it."""
    made_with: str | None
    """Prefix of the key that made it in the console. Such a key makes no others."""


_makers = api_keys.alias("makers")
_KEYS = (
    select(
        api_keys.c.id,
        api_keys.c.tenant_id,
        tenants.c.name,
        api_keys.c.name,
        api_keys.c.prefix,
        api_keys.c.digest,
        api_keys.c.created_at,
        func.least(api_keys.c.revoked_at, _makers.c.revoked_at),  # of those that are not null
        _makers.c.prefix,
    )
    .join_from(api_keys, tenants, tenants.c.id == api_keys.c.tenant_id)
    .outerjoin(_makers, _makers.c.id == api_keys.c.made_with)
)
# In one statement with what it depends on: the session that asks may be some seconds behind.
_MADE = text("""
    INSERT INTO millrace.api_keys (id, tenant_id, name, prefix, digest, made_with)
    SELECT :id, tenant_id, :name, :prefix, :digest, id FROM millrace.api_keys m
     WHERE prefix = :maker AND made_with IS NULL AND revoked_at IS NULL
       AND :most > (SELECT count(*) FROM millrace.api_keys k
                     WHERE k.made_with = m.id AND k.revoked_at IS NULL)
""")


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


async def add_key_of(
    connection: AsyncConnection, maker: str, name: str, prefix: str, digest: bytes
) -> bool:
    """Store a key that the one with the prefix `maker` makes, and that is revoked with it.

    False: that one was made so itself, is not valid any more, or made `MOST_MADE` that are.
    """
    row = {"id": uuid4(), "name": name, "prefix": prefix, "digest": digest}
    made = await connection.execute(_MADE, {**row, "maker": maker, "most": MOST_MADE})
    return made.rowcount == 1


async def find_key(connection: AsyncConnection, prefix: str) -> StoredKey | None:
    """The key with this public prefix, revoked or not."""
    row = (await connection.execute(_KEYS.where(api_keys.c.prefix == prefix))).one_or_none()
    return StoredKey(*row) if row else None


async def list_keys(connection: AsyncConnection, tenant: UUID | None = None) -> list[StoredKey]:
    """All keys, or those of one tenant, oldest first; each with those that it made after it."""
    began = func.coalesce(_makers.c.created_at, api_keys.c.created_at)
    made = api_keys.c.made_with.is_not(None)
    family = func.coalesce(api_keys.c.made_with, api_keys.c.id)
    query = _KEYS.order_by(began, family, made, api_keys.c.created_at)
    if tenant is not None:
        query = query.where(api_keys.c.tenant_id == tenant)
    return [StoredKey(*row) for row in await connection.execute(query)]


async def revoke_key(connection: AsyncConnection, prefix: str) -> bool:
    """Make a key useless, and all that it made; False if there is no such key or it was so."""
    query = (
        update(api_keys)
        .where(api_keys.c.prefix == prefix, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=func.now())
    )
    return (await connection.execute(query)).rowcount == 1


async def remove_tenant(connection: AsyncConnection, tenant: UUID) -> None:
    """Delete a tenant that has nothing any more; an integrity error otherwise."""
    await connection.execute(tenants.delete().filter_by(id=tenant))
