"""`millrace eval`."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from db.collections import UnknownLanguage
from master.retrieval.embedders import local_models
from master.retrieval.embedders.pool import Embedders
from master.retrieval.embedders.protocol import EmbeddingError
from master.retrieval.evaluation.outcome import Evaluation
from master.retrieval.evaluation.reading import read_set
from master.retrieval.evaluation.sets import RetrievalSet, SetError
from master.retrieval.fusion import DENSE_WEIGHT
from master.retrieval.search import Query
from millrace import logs, models_file
from millrace.commands import options
from millrace.evaluation import Told, Wanted, database, evaluate
from millrace.one_machine import MINILM
from millrace.problems import Problem
from millrace.show.evaluation import as_json, evaluation_page
from millrace.show.evaluation_svg import svg
from queue_schemas.registry import Model, Registry

app = typer.Typer(
    rich_markup_mode="rich",
    add_completion=False,
    no_args_is_help=True,
    help="Measure how well this installation does its work.",
)


@app.callback()
def evaluations() -> None:
    """Measure how well this installation does its work."""


@app.command()
def retrieval(  # noqa: PLR0913, PLR0917  every option of the command line is a parameter
    context: typer.Context,
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A BEIR folder, or a SQuAD file (1.1 or 2.0).")
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="An embedding model of the registry."),
    ] = None,
    language: Annotated[str, typer.Option(metavar="NAME", help="Of the words.")] = "english",
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="At most so many questions.")
    ] = None,
    candidates: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="That each leg gives.")
    ] = Query.candidates,
    dense_weight: Annotated[
        float, typer.Option(min=0.0, max=1.0, metavar="W", help="The rest is the words'.")
    ] = DENSE_WEIGHT,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Write the bars there as well.")
    ] = None,
    as_json_: options.AsJson = False,
    models: options.ModelsFile = None,
    database_url: options.DatabaseUrl = None,
) -> None:
    """Measure retrieval on a set whose answers are known: nDCG@10, recall@10, MRR@10.

    Each leg is measured alone, then both together, then reranked as well. The set is loaded for a
    tenant of its own, which is removed afterwards; without a database, an embedded one is used.

    \b
    [bold]Examples[/bold]
      millrace eval retrieval beir/scifact --plot scifact.svg
      millrace eval retrieval dev-v2.0.json --limit 500
      millrace eval retrieval buecherei --language german --json
    """
    debug = options.debug(context)
    logs.configure("eval", debug=debug, quiet=not debug)
    console = Console(stderr=as_json_)
    if plot is not None and not plot.parent.is_dir():
        raise Problem(f"--plot: there is no folder {plot.parent}.")
    asked = _read(path).limited(limit)
    registry = models_file.load(models_file.default_path(models))
    chosen = _chosen(registry, model)
    wanted = Wanted(chosen.name if chosen else None, language, candidates, dense_weight)
    if chosen is None:
        console.print("[dim]no embedding model is configured or installed: words alone[/dim]")
    elif registry.get(chosen.name) is None:
        registry = registry.model_copy(update={"models": (*registry.models, chosen)})
    with _progress(console) as told:
        found = asyncio.run(_measured(registry, asked, wanted, database_url, told))
    if plot is not None:
        plot.write_text(svg(found), "utf-8")
    if as_json_:
        typer.echo(json.dumps(as_json(found), indent=2, ensure_ascii=False))
    else:
        Console().print(evaluation_page(found))


def _read(path: Path) -> RetrievalSet:
    try:
        return read_set(path)
    except SetError as error:
        raise Problem(f"{error}.") from error


def _chosen(registry: Registry, name: str | None) -> Model | None:
    """The model that was named, else the registry's, else one that needs no registry."""
    if name is not None:
        named = registry.get(name)
        if named is None and name == MINILM.name:
            return MINILM
        if named is None or named.chats:
            raise Problem(f"the registry has no embedding model {name!r}. See `millrace models`.")
        return named
    return registry.default_embedding() or (
        MINILM if local_models.is_installed(MINILM.name) else None
    )


async def _measured(
    registry: Registry, asked: RetrievalSet, wanted: Wanted, url: str | None, told: Told
) -> Evaluation:
    embedders = Embedders(lambda: registry)
    try:
        async with database(url) as engine:
            return await evaluate(engine, embedders, asked, wanted, told)
    except EmbeddingError as error:
        hint = f"Another one can be named with --model, for example {MINILM.name}."
        raise Problem(f"the embedding model {wanted.model}: {error.message}. {hint}") from error
    except UnknownLanguage as error:
        raise Problem(f"--language: {error}.") from error
    finally:
        await embedders.aclose()


@contextmanager
def _progress(console: Console) -> Iterator[Told]:
    if not console.is_terminal:
        yield lambda _what, _done, _of: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bars:
        tasks = {}

        def told(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=of)
            bars.update(tasks[what], completed=done)

        yield told
