"""The Celery side: an application and its task. Runs in the peers' environment.

celery --app bench.celery_app worker
"""

import os

from celery import Celery
from kombu import Queue

RESULTS = {"postgres": os.environ.get("BENCH_RESULTS_URL", ""), "rpc": "rpc://"}
"""Where results go: a table, or a message to the client that asked."""

app = Celery(
    "bench",
    broker=os.environ["BENCH_BROKER_URL"],
    backend=RESULTS[os.environ["BENCH_RESULTS"]],
)
app.conf.update(
    task_queues=[Queue("celery", queue_arguments={"x-queue-type": "quorum"})],
    broker_transport_options={"confirm_publish": True},
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_detect_quorum_queues=True,
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "16")),
    result_persistent=True,
    task_ignore_result=False,
    worker_hijack_root_logger=False,
    broker_pool_limit=16,
)


@app.task  # type: ignore[untyped-decorator]  # Celery has no types
def answer(messages: list[dict[str, str]]) -> dict[str, object]:
    """As much of an answer as Millrace's scripted engine gives."""
    assert messages
    return {"text": "turns", "finish_reason": "stop", "prompt_tokens": 10, "completion_tokens": 1}
