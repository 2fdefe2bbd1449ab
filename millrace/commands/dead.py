"""`millrace dead`."""

import asyncio
import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncConnection

from bus import rabbitmq, trace_settings
from bus.peek import give_back, hold
from bus.protocol import Delivery
from db import dead, ledger, reconcile
from db.dead import DeadSubtask
from db.reconcile import Standing
from master.peeked import explain
from master.redrive import NotRedrivable, Redriven, redrive
from millrace import duration, home, logs, models_file, reach, tracing
from millrace.commands import options
from millrace.problems import Problem, one_line
from millrace.show.dead import SHORT, dead_page, dead_table, messages_page
from queue_schemas import topology
from queue_schemas.codec import UnreadableMessage, decode
from queue_schemas.messages import SUBTASK, SubtaskRequest

app = typer.Typer(
    rich_markup_mode="rich",
    add_completion=False,
    no_args_is_help=True,
    help="See what failed for good; do it again or let it be.",
)

_SHORTEST_ID = 6
_FIRST_BYTES = 200

DeadId = Annotated[
    str, typer.Argument(metavar="ID", help="Of the subtask or its request; its beginning will do.")
]


@app.command("list")
def show_list(
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Only this model's.")] = None,
    since: Annotated[str | None, typer.Option(metavar="SPAN", help="Not older: 12h, 7d.")] = None,
    settled: Annotated[
        bool, typer.Option("--settled", help="Also what was dropped or done again.")
    ] = False,
    as_json: options.AsJson = False,
    database_url: options.DatabaseUrl = None,
    rabbitmq_url: options.RabbitUrl = None,
) -> None:
    """List dead subtasks that wait for a decision, latest first.

    With RABBITMQ_URL it also counts the messages that the broker has put aside.

    \b
    [bold]Examples[/bold]
      millrace dead list
      millrace dead list --model codellama:34b --since 24h
      millrace dead list --json | jq -r '.subtasks[].error.code'
    """
    age = duration.seconds(since) if since else None
    found = asyncio.run(_list(_url(database_url), model, age, settled=settled))
    queues = asyncio.run(_put_aside(rabbitmq_url)) if rabbitmq_url else {}
    if as_json:
        typer.echo(_json({"subtasks": [asdict(row) for row in found], "messages": queues}))
    else:
        Console().print(dead_table(found, queues))


@app.command()
def show(
    identity: Annotated[
        str | None, typer.Argument(metavar="ID", help="Of the subtask or its request.")
    ] = None,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Messages that nobody could read.")
    ] = False,
    letters: Annotated[
        bool, typer.Option("--letters", help="Messages that the broker gave up.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many messages.")] = 20,
    as_json: options.AsJson = False,
    database_url: options.DatabaseUrl = None,
    rabbitmq_url: options.RabbitUrl = None,
) -> None:
    """Show a dead subtask with its attempts, or the messages that the broker has put aside.

    Messages are looked at and returned; none is lost.

    \b
    [bold]Examples[/bold]
      millrace dead show 3f2a91c4
      millrace dead show --quarantine
      millrace dead show --letters
    """
    if (identity is not None) + quarantine + letters != 1:
        raise typer.BadParameter("give an ID, --quarantine or --letters")
    url = _url(database_url)
    if identity is not None:
        pages = asyncio.run(_show(url, identity))
        if as_json:
            typer.echo(_json([{**asdict(row), "attempts": ledger} for row, ledger in pages]))
        else:
            for row, ledger in pages:
                Console().print(dead_page(row, ledger))
        return
    queue = topology.QUARANTINE if quarantine else topology.DEAD
    broker = options.needed(rabbitmq_url, "RABBITMQ_URL", "--rabbitmq-url")
    waiting, messages = asyncio.run(_messages(url, broker, queue, limit))
    if as_json:
        typer.echo(_json({"queue": queue.name, "waiting": waiting, "messages": messages}))
    else:
        Console().print(messages_page(queue.name, waiting, messages))


@app.command()
def retry(
    context: typer.Context,
    identity: Annotated[
        str | None, typer.Argument(metavar="ID", help="Of a dead subtask or its request.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that wait.")] = False,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="For the parts without an answer.")
    ] = None,
    as_json: options.AsJson = False,
    models: options.ModelsFile = None,
    database_url: options.DatabaseUrl = None,
) -> int:
    """Do the request of a dead subtask again, as a new request of the same owner.

    The failed request stays as it ended. Doing so twice gives the same new request. Its trace
    and its log lines begin here: with MILLRACE_TRACING and MILLRACE_LOG_FOLDER.

    \b
    [bold]Examples[/bold]
      millrace dead retry 3f2a91c4
      millrace dead retry 3f2a91c4 --model codellama:13b
      millrace dead retry --all
    """
    if (identity is not None) == everything:
        raise typer.BadParameter("give an ID or --all")
    if model is not None:
        _check_model(model, models)
    url, debug = _url(database_url), options.debug(context)
    if not database_url:  # it is that of the `millrace up` of this machine, and so are its logs
        os.environ.setdefault("MILLRACE_LOG_FOLDER", str(home.logs()))
    logs.configure("dead", debug=debug, quiet=not debug, file="dead")
    with tracing.traced(trace_settings.TraceSettings(), "millrace", f"dead-{os.getpid()}"):
        done = asyncio.run(_retry(url, identity, model))
    if as_json:
        typer.echo(_json([_outcome(request, result) for request, result in done]))
        return int(any(isinstance(result, str) for _, result in done))
    for request, result in done:
        if isinstance(result, str):
            typer.echo(f"millrace: {result}.", err=True)
        else:
            word = "is done again" if result.fresh else "was done again before"
            typer.echo(f"{str(request)[:SHORT]} {word} as {result.id}")
    if not done:
        typer.echo("No dead subtask waits for a decision.")
    return int(any(isinstance(result, str) for _, result in done))


@app.command()
def drop(identity: DeadId, database_url: options.DatabaseUrl = None) -> None:
    """Let a dead subtask be: it leaves the list and stays in its request's record.

    \b
    [bold]Examples[/bold]
      millrace dead drop 3f2a91c4
    """
    found, dropped = asyncio.run(_drop(_url(database_url), identity))
    before = len(found) - len(dropped)
    for subtask in dropped:
        typer.echo(f"{subtask} is dropped.")
    if before:
        typer.echo(f"{before} had been dropped before.")


def _url(database_url: str | None) -> str:
    return options.database(database_url)


async def _list(
    url: str, model: str | None, since: float | None, *, settled: bool
) -> list[DeadSubtask]:
    async with reach.migrated(url, name="millrace dead") as engine, engine.connect() as connection:
        return await dead.list_dead(connection, model=model, since_seconds=since, settled=settled)


async def _put_aside(url: str) -> dict[str, int | None]:
    bus = await rabbitmq.connect(url, name="millrace dead")
    try:
        depths = {q.name: await bus.depth(q.name) for q in (topology.DEAD, topology.QUARANTINE)}
    finally:
        await bus.aclose()
    return {name: depth.ready if depth else None for name, depth in depths.items()}


async def _show(url: str, identity: str) -> list[tuple[DeadSubtask, list[dict[str, Any]]]]:
    async with reach.migrated(url, name="millrace dead") as engine, engine.connect() as connection:
        found = await _find(connection, identity)
        spent = await ledger.executions(connection, found[0].request)
    return [(row, [line for line in spent if line["subtask_id"] == row.id]) for row in found]


async def _find(connection: AsyncConnection, identity: str) -> list[DeadSubtask]:
    """The dead subtasks that an id means; they are of one request."""
    if len(identity) < _SHORTEST_ID or set(identity.lower()) - set("0123456789abcdef-"):
        raise Problem(f"{identity!r} is no id: give at least its first {_SHORTEST_ID} characters.")
    found = await dead.find(connection, identity)
    if not found:
        raise Problem(f"no dead subtask or request begins with {identity!r}. See `dead list`.")
    if len({row.request for row in found}) > 1:
        raise Problem(f"{identity!r} is the beginning of several ids. Give more of it.")
    return found


async def _messages(
    database_url: str, rabbitmq_url: str, queue: topology.Queue, limit: int
) -> tuple[int | None, list[dict[str, Any]]]:
    bus = await rabbitmq.connect(rabbitmq_url, name="millrace dead")
    try:
        depth = await bus.depth(queue.name)
        held = await hold(bus, queue, limit)
        try:
            known = await _standing(database_url, _subtasks(held).values())
            described = [_describe(delivery, known) for delivery in held]
        finally:
            await give_back(bus, held)
    finally:
        await bus.aclose()
    return (depth.ready if depth else None), described


def _subtasks(held: Sequence[Delivery]) -> dict[Delivery, SubtaskRequest]:
    """Those that are the messages of subtasks; whose signature is wrong is no matter here."""
    found: dict[Delivery, SubtaskRequest] = {}
    for delivery in held:
        with contextlib.suppress(UnreadableMessage):
            found[delivery] = decode(SUBTASK, delivery.body, {})
    return found


async def _standing(url: str, messages: Iterable[SubtaskRequest]) -> dict[UUID, Standing]:
    async with reach.migrated(url, name="millrace dead") as engine, engine.connect() as connection:
        return await reconcile.standing(connection, [message.subtask for message in messages])


def _describe(delivery: Delivery, known: Mapping[UUID, Standing]) -> dict[str, Any]:
    headers = delivery.headers
    came_from = headers.get("x-millrace-queue") or headers.get("x-first-death-queue")
    reasons = [headers.get("x-millrace-reason") or headers.get("x-first-death-reason")]
    for message in _subtasks([delivery]).values():
        said = explain(message, known.get(message.subtask))
        reasons.append(f"subtask {message.subtask}, attempt {message.attempt}: {said}")
    return {
        "queue": str(came_from) if came_from else None,
        "reason": one_line("; ".join(str(reason) for reason in reasons if reason) or "unknown"),
        "bytes": len(delivery.body),
        "begins": one_line(delivery.body[:_FIRST_BYTES].decode(errors="replace")),
    }


def _check_model(name: str, file: Path | None) -> None:
    registry = models_file.load(models_file.default_path(file))
    model = registry.get(name)
    if model is None or not model.chats:
        names = ", ".join(model.name for model in registry.chat_models())
        raise Problem(f"there is no model {name!r}; there are: {names}.")


async def _retry(
    url: str, identity: str | None, model: str | None
) -> list[tuple[UUID, Redriven | str]]:
    done: list[tuple[UUID, Redriven | str]] = []
    async with reach.migrated(url, name="millrace dead") as engine:
        async with engine.connect() as connection:
            if identity is None:
                found = await dead.list_dead(connection, limit=100_000)
            else:
                found = await _find(connection, identity)
        for request in _requests(found):
            try:
                done.append((request, await redrive(engine, request, model=model)))
            except NotRedrivable as error:
                done.append((request, str(error)))
    return done


def _requests(found: Sequence[DeadSubtask]) -> list[UUID]:
    """Their requests, oldest death first."""
    return list(dict.fromkeys(row.request for row in sorted(found, key=lambda r: r.died_at)))


def _outcome(request: UUID, result: Redriven | str) -> dict[str, Any]:
    if isinstance(result, str):
        return {"request": request, "redriven_as": None, "error": result}
    return {"request": request, "redriven_as": result.id, "fresh": result.fresh}


async def _drop(url: str, identity: str) -> tuple[list[DeadSubtask], list[UUID]]:
    async with reach.migrated(url, name="millrace dead") as engine, engine.begin() as connection:
        found = await _find(connection, identity)
        return found, await dead.drop(connection, [row.id for row in found])


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=_plain)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
