"""The folder where a machine keeps what outlives a run of `millrace up`: database, key, logs."""

import os
from collections.abc import Mapping
from pathlib import Path


def folder(environment: Mapping[str, str] | None = None) -> Path:
    """`MILLRACE_HOME`, else `~/.millrace`."""
    environment = os.environ if environment is None else environment
    return Path(environment.get("MILLRACE_HOME") or Path.home() / ".millrace")


def key_file(environment: Mapping[str, str] | None = None) -> Path:
    """Holds the key that `millrace up` made; only its owner can read it."""
    return folder(environment) / "key"


def database(environment: Mapping[str, str] | None = None) -> Path:
    """Holds the embedded Postgres, where no DATABASE_URL was set."""
    return folder(environment) / "postgres"


def logs(environment: Mapping[str, str] | None = None) -> Path:
    """Holds what `millrace up` and its workers log, where no other folder was named."""
    return folder(environment) / "logs"


def kept_key(environment: Mapping[str, str] | None = None) -> str | None:
    """The key of this machine, if there is one that we may read."""
    try:
        return key_file(environment).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
