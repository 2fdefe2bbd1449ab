"""A worker as a process of its own, on a real RabbitMQ: `python -m tests.doubles.worker_process`.

Arguments: the broker's URL, the worker's name, the model as JSON.
"""

import asyncio
import signal
import sys

from bus import rabbitmq
from queue_schemas.registry import Model
from worker.consumer import run
from worker.providers.registry import make_provider
from worker.settings import WorkerSettings


async def main(url: str, name: str, model: Model) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    bus = await rabbitmq.connect(url, name=name)
    provider = make_provider(model)
    settings = WorkerSettings(name=name, heartbeat_seconds=0.2)
    try:
        await run(bus, model, settings, provider, stop)
    finally:
        await bus.aclose()
        await provider.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Model.model_validate_json(sys.argv[3])))
