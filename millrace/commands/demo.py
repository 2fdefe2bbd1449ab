"""`millrace demo`."""

import typer
from rich.console import Console

from millrace import event_loop, logs
from millrace.commands import options
from millrace.demo import demo as run_demo

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.command()
def demo(context: typer.Context) -> int:
    """Answer a three-part question about real documents, end to end, then stop.

    It starts a database, a queue, workers and a master of its own; an Ollama is used if it answers.

    \b
    [bold]Examples[/bold]
      millrace demo
      OLLAMA_HOST=gpu-1 millrace demo
    """
    debug = options.debug(context)
    logs.configure("demo", debug=debug, quiet=not debug)
    return event_loop.run(run_demo(Console()))
