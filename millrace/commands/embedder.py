"""`millrace embedder`."""

import os
import socket
from typing import Annotated

import typer

from master.embedder import run
from master.embedder.settings import EmbedderSettings
from master.retrieval.embedders.protocol import EmbeddingError
from master.retrieval.rerankers.protocol import RerankError
from millrace import event_loop, logs, tracing
from millrace.commands import options
from millrace.problems import Problem

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.command()
def embedder(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which model (all-MiniLM-L6-v2).")
    ] = None,
    path: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where it is; none: by its name.")
    ] = None,
    cross_encoder: Annotated[
        str | None, typer.Option(metavar="NAME", help="A second model, for /rerank.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", min=0, max=65535)] = None,
    download: Annotated[
        bool | None,
        typer.Option("--download/--offline", help="Whether a missing model may be fetched."),
    ] = None,
) -> int:
    """Run one embedder: an embedding model behind HTTP, without database and queue.

    It loads the model at start; /health answers 503 until then. SIGTERM or Ctrl-C lets running
    requests finish. Give its address as `endpoint` of a model with the provider `embedder`.

    \b
    [bold]Examples[/bold]
      millrace embedder --model all-MiniLM-L6-v2 --host 0.0.0.0 --port 8001
      curl -d '{"text": "hello"}' -H 'Content-Type: application/json' localhost:8001/embed
    """
    given = {
        "model": model,
        "path": path,
        "cross_encoder": cross_encoder,
        "host": host,
        "port": port,
        "download": download,
    }
    said = {name: value for name, value in given.items() if value is not None}
    settings = EmbedderSettings(**said)  # type: ignore[arg-type]  # the environment has the rest
    logs.configure("embedder", debug=options.debug(context))
    with tracing.traced(settings, "millrace-embedder", f"{socket.gethostname()}-{os.getpid()}"):
        return event_loop.run(_serve(settings))


async def _serve(settings: EmbedderSettings) -> None:
    try:
        await run.serve(settings)
    except (EmbeddingError, RerankError) as error:
        raise Problem(error.message) from error
