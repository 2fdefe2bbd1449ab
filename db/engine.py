"""Connecting to Postgres, plain or Supabase."""

from typing import Any

from pydantic_core import from_json, to_json
from sqlalchemy import make_url
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

_POOLER_PORT = 6543
_IDLE = "idle_in_transaction_session_timeout"


class DatabaseUrlError(ValueError):
    """`DATABASE_URL` cannot be used; the message says why."""


def parse_url(url: str) -> URL:
    """Read a `postgresql://` URL as the asyncpg URL that SQLAlchemy wants."""
    try:
        parsed = make_url(url)
    except Exception as error:
        raise DatabaseUrlError(
            "DATABASE_URL is not a URL like postgresql://user@host/db"
        ) from error
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise DatabaseUrlError(f"DATABASE_URL must be postgresql://…, not {parsed.drivername}://")
    return parsed.set(drivername="postgresql+asyncpg")


def create_engine(
    url: str, *, pool_size: int = 10, name: str = "millrace", idle_seconds: float | None = None
) -> AsyncEngine:
    """An engine for one process.

    `idle_seconds`: who does nothing within a transaction for so long loses it, and what it holds;
    a process that was frozen, or cut off, would keep the others waiting for good.

    Behind Supabase's transaction pooler (port 6543) prepared statements cannot be kept, so they
    are switched off there, as is what a session would have to remember; the direct or session
    connection is faster.
    """
    parsed = parse_url(url)
    server_settings = {"application_name": name}
    connect_args: dict[str, Any] = {"server_settings": server_settings, "timeout": 10}
    # No overflow: a connection beyond the pool would be closed after one use, and opening one costs
    # more than waiting for one.
    pool: dict[str, Any] = {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": 10}
    if parsed.port == _POOLER_PORT:
        connect_args["statement_cache_size"] = 0
        connect_args["prepared_statement_name_func"] = lambda: ""
        pool = {"poolclass": NullPool}
    else:
        # Our statements are short: compiling one costs more than it saves.
        server_settings["jit"] = "off"
        if idle_seconds is not None:
            server_settings[_IDLE] = f"{idle_seconds * 1000:.0f}"
    if "sslmode" in parsed.query:
        connect_args["ssl"] = parsed.query["sslmode"]
        parsed = parsed.difference_update_query(["sslmode"])
    return create_async_engine(
        parsed,
        connect_args=connect_args,
        json_serializer=lambda value: to_json(value).decode(),
        json_deserializer=from_json,
        pool_pre_ping=False,
        hide_parameters=True,  # errors are logged, and prompts and documents must not be
        **pool,
    )


def redacted(url: str) -> str:
    """The URL as it may be printed."""
    return make_url(url).render_as_string(hide_password=True)
