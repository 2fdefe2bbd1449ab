"""`millrace ask`."""

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from millrace import question as questions
from millrace.commands import options
from millrace.conversation import ask_live, ask_plain, ask_whole, pick_model
from millrace.problems import Problem
from millrace.question import Strategy

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.command()
def ask(  # noqa: PLR0913, PLR0917  one argument for each option
    question: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    strategy: Annotated[
        Strategy | None, typer.Option(help="How it becomes subtasks.", show_default="auto")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Ask this model directly.")
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Text or markdown to answer from; may be repeated."),
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Answer from these documents of `millrace ingest`."),
    ] = None,
    as_json: options.AsJson = False,
    no_stream: Annotated[
        bool, typer.Option("--no-stream", help="Show the answer when it is whole.")
    ] = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Ask a question; watch its plan and its answer.

    A terminal shows plan, answer, times and cost; elsewhere only the answer is printed.

    \b
    [bold]Examples[/bold]
      millrace ask "Compare HNSW and IVFFlat" --strategy split
      millrace ask "What changed?" --file CHANGELOG.md --file README.md
      millrace ask "How many days of leave are there?" --collection handbook
      millrace ask "Write quicksort" --model codellama:34b-instruct
      millrace ask "Is it worth it?" --strategy ensemble
      git diff | millrace ask - --json | jq .request.usage
    """
    if model and strategy not in {None, Strategy.DIRECT}:
        raise typer.BadParameter(f"--model asks one model; it cannot be combined with {strategy}")
    if collection and strategy not in {None, Strategy.RAG, Strategy.DIRECT, Strategy.ROUTER}:
        raise typer.BadParameter(f"--collection cannot be combined with --strategy {strategy}")
    text = sys.stdin.read() if question == "-" else question
    if not text.strip():
        raise Problem("the question is empty.")
    documents = questions.read_documents(file or [])
    wish = _Wish(strategy or (Strategy.RAG if collection else Strategy.AUTO), model, collection)
    asyncio.run(_ask(text, documents, wish, (url, api_key), as_json=as_json, whole=no_stream))


@dataclass(frozen=True)
class _Wish:
    """How to answer."""

    strategy: Strategy
    model: str | None
    collection: str | None

    @property
    def body(self) -> dict[str, Any]:
        """What the request says beside model and messages."""
        if self.collection is None:
            return {}
        only = self.strategy is Strategy.RAG and self.model is None
        return {"retrieval": {"collection": self.collection, "only": only}}


async def _ask(
    text: str,
    documents: dict[str, str],
    wish: _Wish,
    at: tuple[str, str | None],
    *,
    as_json: bool,
    whole: bool,
) -> None:
    console = Console()
    async with options.master_client(*at) as master:
        chosen = await pick_model(master, wish.strategy, wish.model)
        body = questions.body(chosen, text, documents) | wish.body
        if as_json:
            _print_json(await ask_whole(master, body))
        elif not console.is_terminal:
            await ask_plain(master, body, whole=whole)
        else:
            await ask_live(master, body, console, whole=whole)


def _print_json(result: dict[str, Any]) -> None:
    typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
