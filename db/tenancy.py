"""Working inside one tenant: the role that row level security binds, and whose rows it sees.

Who connects owns the tables, and may be a superuser whom no policy binds. So whatever touches the
corpus takes this role first; without a tenant it sees nothing.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

APP_ROLE = "millrace_app"
TENANT_SETTING = "millrace.tenant"

# One round trip. The search path names the schema that pgvector is in, so that its type and its
# operators are found wherever it was installed.
_ENTER = f"""
    SELECT set_config('search_path', (
               SELECT 'millrace, ' || quote_ident(n.nspname)
                 FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                WHERE e.extname = 'vector'), true),
           set_config('{TENANT_SETTING}', CAST(:tenant AS text), true),
           set_config('role', '{APP_ROLE}', true)
"""
_SETTING = "set_config(CAST(:name_{0} AS text), CAST(:value_{0} AS text), true)"


@asynccontextmanager
async def as_tenant(
    engine: AsyncEngine, tenant: UUID, **settings: str
) -> AsyncGenerator[AsyncConnection, None]:
    """A transaction that sees and writes only this tenant's rows; `settings` hold as long."""
    async with engine.begin() as connection:
        await enter(connection, tenant, **settings)
        yield connection


async def enter(connection: AsyncConnection, tenant: UUID, **settings: str) -> None:
    """Make the rest of the transaction that the connection is in this tenant's."""
    more = [_SETTING.format(index) for index in range(len(settings))]
    values = {"tenant": str(tenant)}
    for index, (name, value) in enumerate(settings.items()):
        values |= {f"name_{index}": name, f"value_{index}": value}
    await connection.execute(text(", ".join([_ENTER, *more])), values)
