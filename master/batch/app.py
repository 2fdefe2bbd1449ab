"""The Celery application: one queue, three tasks, one clock.

Celery only says when. What is to be done is in the database, and so is who may do it: a message
that is lost, repeated or late changes nothing that the sweep or a claim does not put right.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID

from celery import Celery  # type: ignore[import-untyped]  # it ships no types

from master.settings import IngestSettings

QUEUE: Final = "ingest"
INGEST: Final = "millrace.ingest"
SWEEP: Final = "millrace.sweep"
LEARN: Final = "millrace.learn"

_PUBLISH_SECONDS: Final = 10
_PATIENCE: Final[Mapping[str, Any]] = {"max_retries": 1, "interval_start": 0, "interval_max": 0.2}
"""Once more, on a new connection: a kept one may be dead. The sweep does the rest."""


def make_celery(settings: IngestSettings) -> Celery:
    """An application without tasks, which is all that publishing needs."""
    if settings.celery_broker_url is None:
        raise ValueError("MILLRACE_CELERY_BROKER_URL is not set")
    app = Celery(
        "millrace", broker=settings.celery_broker_url.get_secret_value(), set_as_current=False
    )
    app.conf.update(_CONFIGURATION)
    app.conf.beat_schedule = {
        "sweep": {
            "task": SWEEP,
            "schedule": settings.ingest_sweep_seconds,
            # A sweep that is still behind a backlog when the next one comes is of no use: what it
            # would find waits in that backlog.
            "options": {"expires": settings.ingest_sweep_seconds},
        },
        "learn": {
            "task": LEARN,
            "schedule": settings.learning_seconds,
            "options": {"expires": settings.learning_seconds},
        },
    }
    return app


def add_tasks(
    app: Celery,
    ingest: Callable[[UUID, UUID], None],
    sweep: Callable[[], list[tuple[UUID, UUID]]],
    learn: Callable[[], None],
) -> None:
    """Give the application what a worker needs: to ingest one, to see what waits, to learn."""

    def ingest_one(tenant: str, document: str) -> None:
        ingest(UUID(tenant), UUID(document))

    def publish_what_waits() -> None:
        for tenant, document in sweep():
            publish(app, tenant, document)

    def learn_once() -> None:
        learn()

    app.task(ingest_one, name=INGEST)
    app.task(publish_what_waits, name=SWEEP)
    app.task(learn_once, name=LEARN)


def publish(app: Celery, tenant: UUID, document: UUID) -> None:
    """Put a document on the queue, confirmed. Blocks; raises what Celery raises."""
    app.send_task(
        INGEST,
        (str(tenant), str(document)),
        retry=True,
        retry_policy=_PATIENCE,
        confirm_timeout=_PUBLISH_SECONDS,
    )


_CONFIGURATION: Final[Mapping[str, Any]] = {
    "task_default_queue": QUEUE,
    "task_default_queue_type": "quorum",
    "task_create_missing_queues": False,
    # Acknowledged when it is done, and given back when its process was killed.
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "worker_prefetch_multiplier": 1,
    # The outcome is a row of `documents`.
    "task_ignore_result": True,
    "task_serializer": "json",
    "accept_content": ["json"],
    "broker_connection_retry_on_startup": True,
    "broker_transport_options": {"confirm_publish": True},
    "broker_connection_timeout": 4,
    # It needs transient queues, which newer brokers refuse.
    "worker_enable_remote_control": False,
    "worker_hijack_root_logger": False,
    # Celery declares 28 queues for tasks with a countdown beside any quorum queue. We have no such
    # tasks (`documents.available_at` is the countdown), so at least let them be cheap.
    "broker_native_delayed_delivery_queue_type": "classic",
    # The other one writes a file into the current folder.
    "beat_scheduler": "celery.beat:Scheduler",
    "enable_utc": True,
}
