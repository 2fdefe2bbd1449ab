"""`millrace demo`: documents in, a cited answer out, through the whole path in one process.

Nothing of it is special: the same master, worker, queue contract and database as everywhere, on a
temporary embedded Postgres and the memory bus, asked over HTTP.
"""

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.panel import Panel

from bus.memory import MemoryBroker, MemoryBus
from master import app
from master.fleet import queues
from millrace import one_machine
from millrace.client import Master
from millrace.conversation import ask_live
from millrace.ingesting import File, ingest
from millrace.problems import Problem
from millrace.question import body
from millrace.show.ingesting import watching
from millrace.up import settings_for

QUESTION = """\
1. What happens to a subtask when its worker is killed?
2. Why are deadlines sent as seconds and not as a time of day?
3. How do I attach Open WebUI?"""

_CHUNKING = {"method": "headings", "size": 200, "overlap": 20}
_PLACES = ("README.md", "docs/*.md", "docs/decisions/*.md")
_STRATEGY = "millrace/rag"


async def demo(console: Console) -> None:
    """Start everything, ask, show, stop."""
    documents = find_documents(Path.cwd())
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-demo-")))
        with console.status("starting Postgres, queue, workers and master"):
            database_url = await stack.enter_async_context(
                one_machine.database(folder / "postgres")
            )
            registry, note = await stack.enter_async_context(one_machine.models(None))
            key = await one_machine.make_key(database_url, "demo", "demo")
            broker = MemoryBroker()
            bus = MemoryBus(broker)
            stack.push_async_callback(bus.aclose)
            settings = settings_for(database_url, host="127.0.0.1", drain_seconds=0)
            await bus.declare(queues(registry()))
            behind = one_machine.workers_here(broker, registry(), settings.heartbeat_seconds)
            await stack.enter_async_context(behind)
            running = await stack.enter_async_context(app.run(settings, registry, bus))
            sock = app.listen(settings.host, 0)
            url = f"http://{settings.host}:{sock.getsockname()[1]}"
            await stack.enter_async_context(app.serving(running, sock))
        console.print(f"[dim]{note}[/dim]")
        master = await stack.enter_async_context(Master(url, key))
        await _ingest(console, master, documents)
        console.print(Panel(QUESTION, title=f"asked of {_STRATEGY}", title_align="left"))
        await ask_live(master, body(_STRATEGY, QUESTION), console, whole=False)
    console.print(_HOW_TO_GO_ON, highlight=False)


async def _ingest(console: Console, master: Master, documents: Sequence[File]) -> None:
    with watching(console, len(documents), quiet=False) as on_change:
        done = await ingest(master, documents, {"chunking": _CHUNKING}, on_change)
    if done.failures:
        name, _, message = done.failures[0]
        raise Problem(f"{name} could not be ingested: {message}.")
    [collection] = (await master.get("/v1/collections"))["data"]
    how = collection["embedding_model"] or "words alone: no embedding model is here"
    console.print(
        f"[dim]documents: {len(documents)} markdown files of this repository in "
        f"{collection['chunks']} chunks, found by {how}[/dim]\n"
    )


def find_documents(folder: Path) -> list[File]:
    """The markdown of the checkout that the demo is started in."""
    paths = [path for place in _PLACES for path in sorted(folder.glob(place))]
    files = [File(path, path.relative_to(folder).as_posix()) for path in paths]
    if not files:
        raise Problem("there are no markdown files here; start the demo in Millrace's repository.")
    return files


_HOW_TO_GO_ON = """
[bold]Go on[/bold]
  millrace up                      the same, to stay: prints URL and API key
  millrace ingest FOLDER           your own documents: PDF, DOCX, HTML, Markdown, text, CSV, JSON
  Open WebUI                       Admin > Settings > Connections > OpenAI API:
                                   http://127.0.0.1:8000/v1 and the key
  OpenAI SDK                       OpenAI(base_url=URL, api_key=KEY)
                                   model="millrace/rag", "millrace/split", or one of your own
"""
