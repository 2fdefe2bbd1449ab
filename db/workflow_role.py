"""The role of workflows: it may call their functions, and sees no table."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

WORKFLOW_ROLE = "millrace_n8n"


@dataclass(frozen=True)
class Standing:
    """What the user of a connection may do."""

    user: str
    member: bool
    """It is in the role of workflows."""
    mighty: bool
    """It may do more than the role, for example read the requests."""


_STANDING = text(f"""
    SELECT rolname, pg_has_role(oid, '{WORKFLOW_ROLE}', 'USAGE'),
           rolsuper OR rolbypassrls OR rolcreaterole
      FROM pg_roles WHERE rolname = current_user
""")
_READS = text("SELECT has_table_privilege('millrace.requests', 'SELECT')")


async def standing(connection: AsyncConnection) -> Standing:
    """Who is connected. A superuser is in every role, and mighty."""
    user, member, mighty = (await connection.execute(_STANDING)).one()
    if member and not mighty:
        mighty = bool(await connection.scalar(_READS))
    return Standing(user, member, mighty)
