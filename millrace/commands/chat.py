"""`millrace chat`."""

import sys
from typing import Annotated

import typer
from rich.console import Console

from millrace import home
from millrace.chat import Chat, Lines
from millrace.commands import options
from millrace.line_editor import LineEditor
from millrace.problems import Problem
from millrace.question import Strategy

app = typer.Typer(rich_markup_mode="rich", add_completion=False)

_PROMPT = "> "


@app.command()
def chat(
    strategy: Annotated[
        Strategy | None, typer.Option(help="How questions become subtasks.", show_default="auto")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Ask this model directly.")
    ] = None,
    conversation: Annotated[
        str | None, typer.Option(metavar="ID", help="Go on with this conversation.")
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Answer from these documents of `millrace ingest`."),
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who chats; conversations are theirs.")
    ] = None,
    recall: Annotated[
        bool, typer.Option("--recall", help="Look for what this user said in other conversations.")
    ] = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Chat in the terminal. What was said is remembered, and can be gone on with.

    A line is a question. Ctrl-C stops an answer, Ctrl-D ends, /help lists commands.

    Without a terminal each line of standard input is a question or a command.

    \b
    [bold]Examples[/bold]
      millrace chat
      millrace chat --conversation conv_5f3a --strategy ensemble
      printf 'I am Ada.\\nWho am I?\\n' | millrace chat --model llama3.2:3b
    """
    if model and strategy not in {None, Strategy.DIRECT}:
        raise typer.BadParameter(f"--model asks one model; it cannot be combined with {strategy}")
    chosen = strategy or (Strategy.RAG if collection else Strategy.AUTO)
    session = Chat(
        options.master_client(url, api_key),
        Console(),
        chosen,
        model,
        collection=collection,
        user=user,
        recall=recall,
    )
    lines = Lines(session)
    try:
        if conversation:
            lines.take(f"/open {conversation}")
        if sys.stdin.isatty():
            _converse(session, lines)
        else:
            _carry_out(session, lines)
    finally:
        lines.close()


def _converse(session: Chat, lines: Lines) -> None:
    """With a person: a failure is told, and the chat goes on."""
    session.say(f"Asking {session.asks}. /help lists commands, Ctrl-D ends.")
    with LineEditor(home.folder() / "chat_history") as editor:
        while not session.ended:
            try:
                line = editor.read(_PROMPT)
            except KeyboardInterrupt:
                session.console.print()
                continue
            if line is None:
                session.console.print()
                return
            try:
                if not lines.take(line):
                    session.say("Stopped.")
            except Problem as problem:
                typer.echo(f"millrace: {problem}", err=True)


def _carry_out(session: Chat, lines: Lines) -> None:
    """With a script: the first failure ends it."""
    for line in sys.stdin:
        if not lines.take(line):
            raise KeyboardInterrupt
        if session.ended:
            return
