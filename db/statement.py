"""Statements that run for every request or every subtask, straight on asyncpg.

SQLAlchemy costs the master 0.14 ms of CPU time more for each of them, mostly for compiling what
was compiled before; they were a quarter of all that it computed. Connections, transactions and
errors stay SQLAlchemy's, so both kinds of statement share a transaction.
"""

import re
from collections.abc import Mapping
from typing import Any

import asyncpg
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

_NAME = re.compile(r"(?<!:):([a-z_]+)")
_CLIENT_SIDE = (asyncpg.InterfaceError, asyncpg.InternalClientError)


class Statement:
    """SQL with `:name` parameters, whose types Postgres must be able to tell from the text."""

    def __init__(self, sql: str) -> None:
        self.text = sql
        self.names = tuple(dict.fromkeys(_NAME.findall(sql)))
        self.sql = _NAME.sub(lambda found: f"${self.names.index(found[1]) + 1}", sql)

    async def run(
        self, connection: AsyncConnection, values: Mapping[str, Any]
    ) -> list[asyncpg.Record]:
        """The rows. Raises SQLAlchemy's errors, with asyncpg's as `orig`."""
        driver = await _driver(connection)
        try:
            rows: list[asyncpg.Record] = await driver.fetch(
                self.sql, *[values[name] for name in self.names]
            )
        except (asyncpg.PostgresError, *_CLIENT_SIDE) as error:
            if driver.is_closed():
                await connection.invalidate(error)  # or the pool would hand it out again
            raise _translated(error, self.sql) from error
        return rows


async def _driver(connection: AsyncConnection) -> Any:
    if connection.sync_connection is None:
        raise RuntimeError("the connection is not open")
    driver = connection.sync_connection.connection.driver_connection
    if driver is None:
        raise RuntimeError("the connection was invalidated")
    if connection.in_transaction() and not driver.is_in_transaction():
        # SQLAlchemy begins with the first statement that it sends itself.
        await connection.exec_driver_sql("SELECT 1")
    return driver


def _translated(error: Exception, sql: str) -> DBAPIError:
    kind: type[DBAPIError] = DBAPIError
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        kind = IntegrityError
    elif isinstance(error, asyncpg.InterfaceError):
        kind = InterfaceError
    elif isinstance(error, asyncpg.PostgresConnectionError | asyncpg.InternalClientError):
        kind = OperationalError
    return kind(sql, None, error)
