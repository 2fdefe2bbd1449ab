"""`millrace search`."""

import asyncio
import json
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from millrace.commands import options

app = typer.Typer(rich_markup_mode="rich", add_completion=False)

_LONGEST_PIECE = 160


class Legs(StrEnum):
    """How to search."""

    DENSE = "dense"
    SPARSE = "sparse"
    HYBRID = "hybrid"


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    collection: Annotated[
        str, typer.Option(metavar="NAME", help="The documents to search.")
    ] = "default",
    strategy: Annotated[
        Legs | None,
        typer.Option(help="By meaning, by words, or both.", show_default="as it is set up"),
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=100, help="How many pieces to show.")] = 5,
    as_json: options.AsJson = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Find pieces of documents, with their scores and what each stage took.

    \b
    [bold]Examples[/bold]
      millrace search "error E-4711"
      millrace search "who pays for travel" --collection handbook --strategy dense
    """
    body: dict[str, Any] = {"query": query, "collection": collection, "top": top}
    if strategy:
        body["strategy"] = strategy.value
    found = asyncio.run(_search(body, (url, api_key)))
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    console = Console()
    console.print(_table(found["hits"]) if found["hits"] else "Nothing was found.")
    console.print(_took(found), style="dim", highlight=False)


async def _search(body: dict[str, Any], at: tuple[str, str | None]) -> dict[str, Any]:
    async with options.master_client(*at) as master:
        return await master.send("POST", "/v1/search", body)


def _table(hits: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("Score", "Dense", "BM25"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Piece", ratio=1)
    for hit in hits:
        where = Text(_where(hit), style="bold")
        text = " ".join(hit["text"].split())
        piece = text if len(text) <= _LONGEST_PIECE else f"{text[:_LONGEST_PIECE]}…"
        scores = [_score(hit[name]) for name in ("rerank_score", "dense_score", "sparse_score")]
        table.add_row(*scores, Text.assemble(where, "\n", piece))
    return table


def _where(hit: dict[str, Any]) -> str:
    page = f", page {hit['page']}" if hit["page"] else ""
    heading = f": {' / '.join(hit['heading'])}" if hit["heading"] else ""
    return f"{hit['document']['name']}{page}{heading}"


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _took(found: dict[str, Any]) -> str:
    stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in found["latency_ms"].items())
    without = f"; without: {', '.join(found['degraded'])}" if found["degraded"] else ""
    return f"ms: {stages}{without}"
