"""`millrace ingest`."""

import asyncio
import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from millrace.commands import options
from millrace.ingesting import Ingested, Skipped, Source, check_names, find, in_short, ingest
from millrace.problems import Problem
from millrace.show.documents import failures_table
from millrace.show.ingesting import watching
from millrace.show.numbers import plural

app = typer.Typer(rich_markup_mode="rich", add_completion=False)

_Collection = Annotated[str, typer.Option(metavar="NAME", help="Made if it is missing.")]
_Urls = Annotated[list[str] | None, typer.Option("--url", metavar="URL", help="A page to fetch.")]
_Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="KEY=VALUE", help="Kept with each document; may repeat."),
]
_Recursive = Annotated[bool, typer.Option(help="Also the folders below a folder.")]
_Keep = Annotated[
    bool, typer.Option("--keep", help="Keep documents of the same name; else they are replaced.")
]
_Strategy = Annotated[
    str | None, typer.Option(metavar="HOW", help="dense, sparse or hybrid; of a new collection.")
]
_Model = Annotated[
    str | None,
    typer.Option("--embedding-model", metavar="NAME", help="Of a new collection."),
]
_Language = Annotated[
    str | None, typer.Option(metavar="NAME", help="For its words: english, german; simple: none.")
]
_Method = Annotated[
    str | None, typer.Option("--chunking", metavar="HOW", help="words, sentences or headings.")
]
_Size = Annotated[
    int | None, typer.Option("--chunk-size", min=1, max=2000, help="Words in a chunk.")
]
_Overlap = Annotated[
    int | None,
    typer.Option(min=0, max=1000, help="Words that two chunks share; at most half of a chunk."),
]
_Master = Annotated[
    str,
    typer.Option("--master", envvar="MILLRACE_URL", metavar="URL", help="Address of the master."),
]


@app.command("ingest")
def ingest_command(  # noqa: PLR0913, PLR0917  every option is a parameter
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH...", help="Files and folders.")
    ] = None,
    collection: _Collection = "default",
    urls: _Urls = None,
    metadata: _Metadata = None,
    recursive: _Recursive = True,
    keep: _Keep = False,
    strategy: _Strategy = None,
    embedding_model: _Model = None,
    language: _Language = None,
    method: _Method = None,
    chunk_size: _Size = None,
    overlap: _Overlap = None,
    as_json: options.AsJson = False,
    url: _Master = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> int:
    """Have files, folders and URLs ingested, and wait until they can be searched.

    From folders it takes PDF, DOCX, HTML, Markdown, text, CSV and JSON, and nothing hidden. The
    exit code is 1 when anything failed. What is there already is not ingested twice. A file that
    was changed replaces the document of its name as soon as it is ready; files of a folder are
    named by their path from there.

    \b
    [bold]Examples[/bold]
      millrace ingest handbook/ notes.pdf
      millrace ingest --url https://example.org/page.html --collection web
      millrace ingest letters/ --collection letters --language german --metadata year=2026
    """
    files, skipped = find(paths or [], recursive=recursive)
    sources: list[Source] = [*files, *(urls or [])]
    if not sources:
        raise _nothing(paths or [], skipped, as_json=as_json)
    if not keep:
        check_names(files)
    chunking = {"method": method, "size": chunk_size, "overlap": overlap}
    fields = {
        "collection": collection,
        "metadata": _pairs(metadata or []),
        "replace": not keep,
        "strategy": strategy,
        "embedding_model": embedding_model,
        "language": language,
        "chunking": {name: value for name, value in chunking.items() if value is not None},
    }
    said = {name: value for name, value in fields.items() if value}
    return asyncio.run(_run(url, api_key, sources, skipped, said, as_json=as_json))


async def _run(
    url: str,
    api_key: str | None,
    sources: list[Source],
    skipped: list[Skipped],
    fields: dict[str, Any],
    *,
    as_json: bool,
) -> int:
    console = Console(stderr=as_json)
    async with options.master_client(url, api_key) as master:
        with watching(console, len(sources), quiet=as_json) as on_change:
            done = await ingest(master, sources, fields, on_change)
    if as_json:
        typer.echo(json.dumps(_as_json(done, skipped), indent=2, ensure_ascii=False))
    else:
        _report(console, done, skipped)
    return 1 if done.failures else 0


def _pairs(texts: list[str]) -> dict[str, Any]:
    pairs = [text.partition("=") for text in texts]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise typer.BadParameter("write it as KEY=VALUE", param_hint="--metadata")
    return {key: _value(value) for key, _, value in pairs}


def _value(text: str) -> int | float | bool | str:
    """Numbers and truth values as what they are, so that a filter can say them."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    finite = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return value if finite else text


def _nothing(paths: list[Path], skipped: list[Skipped], *, as_json: bool) -> Problem:
    if not paths:
        return Problem("there is nothing to ingest: name files, folders or --url.")
    if not as_json:
        _report_skipped(Console(), skipped)
    folders = ", ".join(str(path) for path in paths)
    number = plural(len(skipped), "file")
    return Problem(f"there is nothing to ingest in {folders} ({number} skipped).")


def _report_skipped(console: Console, skipped: list[Skipped]) -> None:
    for line in in_short(skipped):
        console.print(f"skipped {line}", style="dim", markup=False, soft_wrap=True)


def _report(console: Console, done: Ingested, skipped: list[Skipped]) -> None:
    _report_skipped(console, skipped)
    ready = [d for d in done.documents.values() if d["state"] == "ready"]
    chunks = sum(document["progress"]["chunks"] for document in ready)
    known = sum(bool(document.get("duplicate")) for document in ready)
    line = f"{plural(len(ready), 'document')} ready with {plural(chunks, 'chunk')}"
    line += f", {known} of them there before" if known else ""
    line += f", {len(done.failures)} failed" if done.failures else ""
    line += f", {plural(len(skipped), 'file')} skipped" if skipped else ""
    console.print(line + ".", markup=False, highlight=False)
    if done.failures:
        console.print(failures_table(done.failures))


def _as_json(done: Ingested, skipped: list[Skipped]) -> dict[str, Any]:
    names = ("name", "code", "message")
    return {
        "documents": list(done.documents.values()),
        "failures": [dict(zip(names, failure, strict=True)) for failure in done.failures],
        "skipped": [{"path": str(each.path), "reason": each.reason} for each in skipped],
    }
