"""The command line: `millrace COMMAND`. One file for each command in `millrace/commands/`."""

import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

_RUN, _USE, _KEEP = "Run it", "Use it", "Look after it"


class _Entry(NamedTuple):
    panel: str
    help: str


COMMANDS = {
    "up": _Entry(_RUN, "Start everything on this machine; needs nothing but Python."),
    "demo": _Entry(_RUN, "Show a split question end to end, then stop."),
    "master": _Entry(_RUN, "Run one master: the API, planning and dispatching."),
    "worker": _Entry(_RUN, "Run one worker, which serves one model."),
    "celery": _Entry(_RUN, "Run one Celery worker, which ingests documents for the masters."),
    "embedder": _Entry(_RUN, "Run one embedder, which turns texts into vectors."),
    "ask": _Entry(_USE, "Ask a question; watch its plan and its answer."),
    "chat": _Entry(_USE, "Chat in the terminal; what was said is remembered."),
    "conversations": _Entry(_USE, "List, show, export or delete remembered conversations."),
    "status": _Entry(_USE, "Show workers and queues."),
    "top": _Entry(_USE, "Watch queues, workers and requests, live."),
    "requests": _Entry(_USE, "List requests; show the timeline of one."),
    "models": _Entry(_USE, "List the models, or check a models.yaml."),
    "search": _Entry(_USE, "Find pieces of your documents."),
    "ingest": _Entry(_USE, "Have files, folders and URLs ingested."),
    "documents": _Entry(_USE, "List, show, delete or retry documents."),
    "collections": _Entry(_USE, "List, show or delete collections of documents."),
    "reindex": _Entry(_USE, "Cut and embed a collection anew."),
    "eval": _Entry(_USE, "Measure how well retrieval finds what it should."),
    "rules": _Entry(_USE, "Propose rules, try, approve or reject them, and take them back."),
    "usage": _Entry(_USE, "Show what was spent: tokens, engine time and cost."),
    "routing": _Entry(_USE, "Show which model does what, by what people said; forget it."),
    "openwebui": _Entry(_KEEP, "Attach Open WebUI, and take its users' ratings over."),
    "keys": _Entry(_KEEP, "Create, list and revoke API keys."),
    "migrate": _Entry(_KEEP, "Bring the database to this release's schema."),
    "dead": _Entry(_KEEP, "See what failed for good; do it again or let it be."),
    "reconcile": _Entry(_KEEP, "Prove that database and broker agree, and repair."),
    "export": _Entry(_KEEP, "Export rated chats, to train a model with them."),
    "logs": _Entry(_KEEP, "Show what all processes logged of one request."),
    "doctor": _Entry(_KEEP, "Check what Millrace needs, with the remedy for what is missing."),
    "chaos": _Entry(_KEEP, "Break a private installation on purpose; see whether all holds."),
    "n8n": _Entry(_KEEP, "Give n8n its workflows and credentials; read its weekly reports."),
    "k8s": _Entry(_KEEP, "Render manifests for Kubernetes, make secrets, check both."),
    "schemas": _Entry(_KEEP, "Export the queue contract as JSON Schema and AsyncAPI."),
}


class _Commands(TyperGroup):
    """Imports a command's module when the command is run.

    The server side takes a second to import; `millrace --help` and `millrace ask` do not need it.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, entry in COMMANDS.items():
            self.add_command(TyperCommand(name, help=entry.help, rich_help_panel=entry.panel))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, found, rest = super().resolve_command(ctx, args)
        if name is None or found is None:
            return name, found, rest
        command = typer.main.get_command(importlib.import_module(f"millrace.commands.{name}").app)
        command.name = name
        return name, command, rest


app = typer.Typer(cls=_Commands, rich_markup_mode="rich", add_completion=False)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"millrace {metadata.version('millrace')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks.", envvar="MILLRACE_DEBUG")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """One chat request becomes many durable subtasks, and still one stream.

    \b
    [bold]Examples[/bold]
      millrace up                     start on this machine
      millrace ask "What is KEDA?"    ask it
      millrace doctor                 find out what is missing

    \b
    [bold]Settings[/bold] come from the environment; options override them.
      DATABASE_URL      postgresql://user:password@host/db
      RABBITMQ_URL      amqp://user:password@host/vhost
      MILLRACE_URL      the master's address (http://127.0.0.1:8000)
      MILLRACE_API_KEY  what `millrace keys create` printed
      MILLRACE_MODELS   the registry (./models.yaml)
      OLLAMA_HOST       where Ollama listens (127.0.0.1:11434)
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: Sequence[str]) -> int:
    """Carry a command line out; returns the exit code. Every failure is one line on stderr."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in own or os.environ.get("MILLRACE_DEBUG", "") not in {"", "0"}
    rest = [argument for i, argument in enumerate(arguments) if not _is_debug(i, argument, own)]
    try:
        code = typer.main.get_command(app).main(
            ["--debug", *rest] if debug else rest, prog_name="millrace", standalone_mode=False
        )
    except typer.TyperException as error:
        return _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        if debug:
            raise
        # Only now: its imports are not free, and most runs have nothing to explain.
        problems = importlib.import_module("millrace.problems")
        _complain(problems.explain(error))
        return 1
    return code if isinstance(code, int) else 0


def main() -> None:
    """The console script."""
    if os.getpid() == 1:
        # The kernel drops what process 1 of a container has no handler for. A pod that is deleted
        # while its imports run would go on, and be killed in the midst of its work much later.
        signal.signal(signal.SIGTERM, _terminated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an old terminal's encoding is no reason to fail
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))


def _terminated(*_: object) -> None:
    """Before a command has a handler of its own there is nothing to be finished."""
    sys.exit(0)


def _is_debug(position: int, argument: str, own: Sequence[str]) -> bool:
    return position < len(own) and argument == "--debug"


def _usage(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "millrace"
    message = " ".join(error.format_message().split()).rstrip(".")
    if not message:  # a command group without a command has just shown its help
        return error.exit_code
    end = "" if message.endswith("?") else "."
    _complain(f"{message[:1].lower()}{message[1:]}{end} See `{path} --help`.")
    return error.exit_code


def _complain(line: str) -> None:
    print(f"millrace: {line}", file=sys.stderr)  # noqa: T201  this is the command line
