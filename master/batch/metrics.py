"""Metrics of a Celery worker: of all of its processes together, on a port of the main one.

The processes of the pool write their numbers into files of one folder, which the library reads
when somebody asks. It wants to know the folder before it is imported.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from itertools import product
from pathlib import Path
from socket import AF_INET6
from socketserver import TCPServer, ThreadingMixIn
from threading import Thread
from typing import Any, Final

from celery.signals import worker_process_init  # type: ignore[import-untyped]  # has no types
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

from master.metrics.exposition import registry, render

FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The library's own name for it."""

tasks_total = Counter(
    "millrace_celery_tasks",
    "Tasks that ended; what became of documents is in millrace_ingests_total.",
    ["task", "outcome"],
    registry=registry,
)
task_seconds = Histogram(
    "millrace_celery_task_seconds",
    "What tasks took.",
    ["task"],
    buckets=(0.01, 0.05, 0.25, 1, 2.5, 5, 10, 30, 60, 300, 900),
    registry=registry,
)

for _task, _outcome in product(("ingest", "sweep", "learn"), ("succeeded", "failed")):
    tasks_total.labels(_task, _outcome)  # Prometheus sees no increase in what begins with 1


@contextmanager
def counted(task: str) -> Iterator[None]:
    """Count a task and its time."""
    began, outcome = time.monotonic(), "failed"
    try:
        yield
        outcome = "succeeded"
    finally:
        tasks_total.labels(task, outcome).inc()
        task_seconds.labels(task).observe(time.monotonic() - began)


class _Server(ThreadingMixIn, TCPServer):
    """One thread for each scraper that is being answered."""

    allow_reuse_address = True
    daemon_threads = True


class _Server6(_Server):
    """The same at an address of IPv6."""

    address_family = AF_INET6


class _Answers(BaseHTTPRequestHandler):
    """GET of /metrics; nothing else."""

    timeout = 10.0

    def do_GET(self) -> None:
        """Answer one request."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # the library's own
        body, media_type = render(together, self.headers.get("accept", ""))
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing of each."""


@contextmanager
def serving(host: str, port: int) -> Iterator[int]:
    """Answer on this port, which 0 leaves to the system, while the block runs. Raises OSError."""
    if not Path(os.environ.get(FOLDER, "")).is_dir():
        raise RuntimeError(f"{FOLDER} must name a folder before this is imported")
    server = (_Server6 if ":" in host else _Server)((host, port), _Answers)

    def let_go(**_: Any) -> None:
        server.socket.close()  # or a process of the pool would hold the port

    worker_process_init.connect(let_go, weak=False)
    Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        worker_process_init.disconnect(let_go)
        server.shutdown()
        server.server_close()
