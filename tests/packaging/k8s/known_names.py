"""Names that the code knows: environment variables, command lines, routes."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import typer
from pydantic_settings import BaseSettings

from master.api import operations
from master.embedder import app as embedder
from master.embedder.settings import EmbedderSettings
from master.settings import CelerySettings, MasterSettings
from millrace.cli import app
from queue_schemas.registry import Model, ProviderName
from worker import health, metrics
from worker.settings import WorkerSettings
from worker.standing import Standing

REPOSITORY = Path(__file__).parents[3]
_PACKAGES = ("bus", "db", "master", "millrace", "queue_schemas", "worker")
_SPELL_FOR_OTHERS = ("millrace/k8s/", "millrace/chaos/")
"""They write environments; that nobody reads a variable would not be seen there."""
_SETTINGS: tuple[type[BaseSettings], ...] = (
    CelerySettings,
    MasterSettings,
    EmbedderSettings,
    WorkerSettings,
)
_VARIABLE = re.compile(r'"((?:MILLRACE|OLLAMA|RABBITMQ|DATABASE|POD)_[A-Z0-9_]+)"')


@cache
def variables() -> frozenset[str]:
    """Environment variables that our packages read."""
    files = [file for package in _PACKAGES for file in (REPOSITORY / package).rglob("*.py")]
    spelled = {
        name
        for file in files
        if not file.relative_to(REPOSITORY).as_posix().startswith(_SPELL_FOR_OTHERS)
        for name in _VARIABLE.findall(file.read_text("utf-8"))
    }
    return frozenset({*spelled, *(name for each in _SETTINGS for name in _fields(each))})


def _fields(settings: type[BaseSettings]) -> Iterator[str]:
    prefix = settings.model_config.get("env_prefix", "")
    for name, field in settings.model_fields.items():
        alias = field.validation_alias
        yield alias if isinstance(alias, str) else f"{prefix}{name}".upper()


def parse(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The subcommand's path and its options. Raises `typer.TyperException` for what is wrong."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("millrace", list(arguments))
    path: list[str] = []
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        path.append(str(name))
        context = command.make_context(name, rest, parent=context)
    return path, dict(context.params)


def answers(command: str, path: str) -> bool:
    """Whether what a command serves over HTTP answers a GET of this path, without a key."""
    match command:
        case "master":
            return path in _gets(operations.router)
        case "embedder":
            return path in _gets(embedder.router)
        case "worker":
            standing = Standing("worker", Model(name="m", provider=ProviderName.SCRIPTED))
            return health.answer(path, standing, metrics.make_registry(standing))[0] != 404
        case _:
            return False


def _gets(router: Any) -> set[str]:
    found = {route.path for route in router.routes if "GET" in route.methods}
    return {path for path in found if not path.startswith("/v1/")}
