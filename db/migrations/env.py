"""Alembic's entry: runs on the connection that `db.migrate` hands over."""

from alembic import context
from sqlalchemy import Connection

from db import tables
from db.models import SCHEMA

connection = context.config.attributes.get("connection")
if not isinstance(connection, Connection):
    raise SystemExit("run `millrace migrate`; it hands alembic a connection")

context.configure(
    connection=connection,
    target_metadata=tables.metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
    include_name=lambda name, kind, _: kind != "schema" or name == SCHEMA,
)
with context.begin_transaction():
    context.run_migrations()
