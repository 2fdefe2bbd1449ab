"""`millrace demo`: one question about real documents through the whole path, in one process.

Nothing of it is special: the same master, worker, queue contract and database as everywhere, on a
temporary embedded Postgres and the memory bus, asked over HTTP.
"""

import contextlib
import tempfile
from pathlib import Path

from rich.console import Console
from rich.panel import Panel

from bus.memory import MemoryBroker, MemoryBus
from master import app
from master.fleet import queues
from millrace import one_machine
from millrace.client import Master
from millrace.conversation import ask_live
from millrace.problems import Problem
from millrace.question import body, read_documents
from millrace.up import settings_for

QUESTION = """\
1. What happens to a subtask when its worker is killed?
2. Why are deadlines sent as seconds and not as a time of day?
3. How do I attach Open WebUI?"""

_PLACES = ("README.md", "docs/*.md", "docs/decisions/*.md")
_STRATEGY = "millrace/split"


async def demo(console: Console) -> None:
    """Start everything, ask, show, stop."""
    documents = find_documents(Path.cwd())
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-demo-")))
        with console.status("starting Postgres, queue, workers and master"):
            database_url = await stack.enter_async_context(one_machine.database(folder))
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
        console.print(f"[dim]context: {len(documents)} markdown files of this repository[/dim]\n")
        console.print(Panel(QUESTION, title=f"asked of {_STRATEGY}", title_align="left"))
        await _ask(console, url, key, documents)
    console.print(_HOW_TO_GO_ON, highlight=False)


async def _ask(console: Console, url: str, key: str, documents: dict[str, str]) -> None:
    asked = body(_STRATEGY, QUESTION, documents)
    async with Master(url, key) as master:
        await ask_live(master, asked, console, whole=False)


def find_documents(folder: Path) -> dict[str, str]:
    """The markdown of the checkout that the demo is started in."""
    paths = [path for place in _PLACES for path in sorted(folder.glob(place))]
    if not paths:
        raise Problem("there are no markdown files here; start the demo in Millrace's repository.")
    return read_documents(paths)


_HOW_TO_GO_ON = """
[bold]Go on[/bold]
  millrace up                      the same, to stay: prints URL and API key
  Open WebUI                       Admin > Settings > Connections > OpenAI API:
                                   http://127.0.0.1:8000/v1 and the key
  OpenAI SDK                       OpenAI(base_url=URL, api_key=KEY)
                                   model="millrace/split", or one of your own
"""
