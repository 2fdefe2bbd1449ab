"""Bringing a database to the newest schema, from the installed wheel or from a checkout."""

import asyncio

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.models import SCHEMA

_RECENT = """
    SELECT string_to_array(extversion, '.')::integer[] >= '{0,8}'
      FROM pg_extension WHERE extname = 'vector'
"""
_RAISED = "P0001"  # what a migration itself refuses, with the remedy in its message
_HELD = "55P03"
_PATIENCE = "5s"
"""For a table. Whoever wants it meanwhile waits behind the migration, and may be a chat."""
_PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds between the tries."""
_LOCK = 7_421_001  # any number, the same in every replica: only one migrates at a time


class MigrationError(RuntimeError):
    """The database cannot be migrated; the message says why and what to do."""


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", "db:migrations")
    config.attributes["connection"] = connection
    return config


def head() -> str:
    """The revision that this release expects."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    if newest is None:
        raise MigrationError("this installation carries no migrations; install the wheel again")
    return newest


def _current(connection: Connection) -> str | None:
    options = {"version_table_schema": SCHEMA}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def _upgrade(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    connection.execute(text("SELECT set_config('lock_timeout', :wait, true)"), {"wait": _PATIENCE})
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    current = _current(connection)
    if current is not None and current not in known:
        raise MigrationError(
            f"the database is at revision {current}, which this release does not know; "
            "install the newer release that migrated it"
        )
    _prepare_schemas(connection)
    try:
        command.upgrade(_config(connection), "head")
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _RAISED:
            raise
        raise MigrationError(str(getattr(error.orig, "__cause__", error))) from error


def _prepare_schemas(connection: Connection) -> None:
    available = connection.scalar(
        text("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'")
    )
    if not available:
        raise MigrationError(
            "this Postgres has no pgvector; install it (Debian: postgresql-NN-pgvector) "
            "or use an image that carries it"
        )
    connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
    # Supabase keeps extensions in a schema of that name; on plain Postgres we do as it does.
    if not connection.scalar(text("SELECT 1 FROM pg_extension WHERE extname = 'vector'")):
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS extensions"))
        connection.execute(text("CREATE EXTENSION vector WITH SCHEMA extensions"))
    # Older ones cannot go on searching an index when a tenant's rows are few in it.
    if not connection.scalar(text(_RECENT)):
        raise MigrationError(
            "pgvector 0.8 or newer is needed; install it, then run: ALTER EXTENSION vector UPDATE"
        )


# Members may do what the owner may; a policy for the owner holds for them as well.
_STRANGER = text("""
    SELECT current_user AS name, r.rolname AS owner
      FROM pg_policy p
      JOIN pg_class c ON c.oid = p.polrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     CROSS JOIN unnest(p.polroles) AS u(role)
      JOIN pg_roles r ON r.oid = u.role
     WHERE n.nspname = :schema AND c.relname = 'api_keys' AND p.polname = 'owner'
       AND NOT pg_has_role(u.role, 'USAGE')
""")


class Stranger(MigrationError):
    """The user sees nothing of the tables; the message says what to do."""


async def check_user(engine: AsyncEngine) -> None:
    """Raises Stranger if row level security would hide everything from whoever connects.

    Otherwise it would look as if there were no key and no request. An empty database is no reason.
    """
    async with engine.connect() as connection:
        found = (await connection.execute(_STRANGER, {"schema": SCHEMA})).first()
    if found is not None:
        raise Stranger(
            f"the database was migrated by {found.owner}, and row level security shows nothing of "
            f'it to {found.name}; run: GRANT "{found.owner}" TO "{found.name}"'
        )


async def upgrade(engine: AsyncEngine) -> str:
    """Migrate to head in one transaction; returns the revision. Safe to call from every replica.

    Raises MigrationError, also where others go on holding the tables.
    """
    await check_user(engine)
    for pause in (*_PAUSES, None):
        try:
            async with engine.begin() as connection:
                await connection.run_sync(_upgrade)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _HELD:
                raise
            if pause is None:
                raise MigrationError(
                    "another transaction holds a table that is to be changed; wait for it or end "
                    "it (pg_stat_activity shows it), then migrate again"
                ) from error
            await asyncio.sleep(pause)
        else:
            break
    return head()


async def current(engine: AsyncEngine) -> str | None:
    """The revision that the database is at, None if it was never migrated."""
    async with engine.connect() as connection:
        return await connection.run_sync(_current)
