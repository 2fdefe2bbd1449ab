"""`millrace conversations`."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from millrace import past_chats
from millrace.client import Master
from millrace.commands import options
from millrace.show.conversations import (
    as_json_line,
    as_markdown,
    conversations_table,
    summary_lines,
    title,
    transcript,
)

app = typer.Typer(
    rich_markup_mode="rich",
    add_completion=False,
    no_args_is_help=True,
    help="List, show, export or delete what is remembered of conversations.",
)

_T = TypeVar("_T")

_Id = Annotated[
    str, typer.Argument(metavar="ID", help="As `list` shows it; its beginning or a name will do.")
]
_User = Annotated[
    str | None, typer.Option(metavar="NAME", help="Whose; none: those of nobody in particular.")
]


class Format(StrEnum):
    """What an export looks like."""

    JSONL = "jsonl"
    MARKDOWN = "markdown"


@app.command("list")
def show_all(
    user: _User = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most so many.")] = 20,
    as_json: options.AsJson = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """List conversations, the one that was used last first.

    \b
    [bold]Examples[/bold]
      millrace conversations list
      millrace conversations list --user ada --json
    """
    found = _with((url, api_key), lambda master: past_chats.first(master, user, limit))
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif found:
        Console().print(conversations_table(found))
    else:
        typer.echo("There is no conversation. Begin one: millrace chat")


@app.command()
def show(
    identity: _Id,
    user: _User = None,
    as_json: options.AsJson = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Show what was said in a conversation.

    \b
    [bold]Examples[/bold]
      millrace conversations show conv_5f3a
    """
    found, messages = _with((url, api_key), lambda master: _said(master, identity, user))
    if as_json:
        typer.echo(json.dumps({**found, "messages": messages}, indent=2, ensure_ascii=False))
        return
    console = Console()
    for line in [*summary_lines(found), *transcript(messages)]:
        console.print(line, highlight=False)


@app.command()
def export(
    identities: Annotated[
        list[str] | None, typer.Argument(metavar="ID…", help="Which; none: all of them.")
    ] = None,
    user: _User = None,
    format_: Annotated[Format, typer.Option("--format", help="Of the export.")] = Format.JSONL,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to; none: standard output.")
    ] = None,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Write conversations out: a line of JSON for each, or pages of markdown.

    \b
    [bold]Examples[/bold]
      millrace conversations export > conversations.jsonl
      millrace conversations export conv_5f3a --format markdown --out mills.md
    """
    write = as_json_line if format_ is Format.JSONL else as_markdown

    async def gather(master: Master) -> str:
        if identities:
            found = [await past_chats.find(master, each, user) for each in identities]
        else:
            found = [each async for each in past_chats.conversations(master, user)]
        return "\n".join(
            [write(c, await past_chats.messages(master, c["id"], user)) for c in found]
        )

    text = _with((url, api_key), gather)
    if out is not None:
        out.write_text(text.rstrip("\n") + "\n" if text else "", "utf-8")
    elif text:
        typer.echo(text.rstrip("\n"))


@app.command()
def delete(
    identity: _Id,
    user: _User = None,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Delete a conversation with every word of it; what it cost stays in the bill.

    \b
    [bold]Examples[/bold]
      millrace conversations delete conv_5f3a
    """

    async def remove(master: Master) -> past_chats.Conversation:
        found = await past_chats.find(master, identity, user)
        await past_chats.delete(master, found["id"], user)
        return found

    gone = _with((url, api_key), remove)
    typer.echo(f"{gone['id']} ({title(gone)}) is deleted.")


async def _said(master: Master, identity: str, user: str | None) -> tuple[Any, Any]:
    found = await past_chats.find(master, identity, user)
    return found, await past_chats.messages(master, found["id"], user)


def _with(at: tuple[str, str | None], work: Callable[[Master], Awaitable[_T]]) -> _T:
    async def run() -> _T:
        async with options.master_client(*at) as master:
            return await work(master)

    return asyncio.run(run())
