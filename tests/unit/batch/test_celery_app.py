"""The Celery application says what the design wants of it."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr, ValidationError

from master.batch import app as batch
from master.settings import IngestSettings, MasterSettings


def settings(url: str = "amqp://guest:guest@127.0.0.1:1/celery") -> IngestSettings:
    given = {"DATABASE_URL": SecretStr("postgresql://x"), "celery_broker_url": SecretStr(url)}
    return IngestSettings(**given)  # type: ignore[arg-type]  # the aliases are not parameters


def test_there_is_one_quorum_queue_and_nothing_but_json() -> None:
    celery = batch.make_celery(settings())
    (queue,) = celery.amqp.queues.values()
    assert (queue.name, queue.queue_arguments) == ("ingest", {"x-queue-type": "quorum"})
    assert celery.conf.accept_content == ["json"]
    assert celery.conf.task_acks_late
    assert celery.conf.task_reject_on_worker_lost
    assert celery.conf.worker_prefetch_multiplier == 1
    assert celery.conf.result_backend is None
    for name, seconds in (("sweep", 15.0), ("learn", 300.0)):
        clock = celery.conf.beat_schedule[name]
        assert clock["schedule"] == clock["options"]["expires"] == seconds


def test_tasks_carry_ids_a_sweep_publishes_what_waits_and_learning_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[UUID, UUID]] = []
    published: list[tuple[UUID, UUID]] = []
    waiting = [(uuid4(), uuid4()) for _ in range(3)]
    celery = batch.make_celery(settings())
    learned: list[None] = []
    batch.add_tasks(
        celery, lambda *ids: seen.append(ids), lambda: waiting, lambda: learned.append(None)
    )
    monkeypatch.setattr(batch, "publish", lambda _, *ids: published.append(ids))
    tasks: dict[str, Callable[..., Any]] = celery.tasks
    tasks[batch.INGEST](*map(str, waiting[0]))
    tasks[batch.SWEEP]()
    tasks[batch.LEARN]()
    assert seen == waiting[:1]
    assert published == waiting
    assert learned == [None]


@pytest.mark.parametrize("url", ["redis://localhost", "postgresql://x", "memory://"])
def test_other_brokers_are_refused_at_start(url: str) -> None:
    with pytest.raises(ValidationError, match="amqp://"):
        settings(url)


def test_no_broker_means_that_masters_ingest() -> None:
    assert settings("").celery_broker_url is None
    with pytest.raises(ValueError, match="MILLRACE_CELERY_BROKER_URL"):
        batch.make_celery(settings(""))


def test_an_upload_must_hold_a_document() -> None:
    given = {"DATABASE_URL": SecretStr("postgresql://x"), "max_upload_bytes": 1000}
    with pytest.raises(ValidationError, match="MILLRACE_MAX_DOCUMENT_BYTES"):
        MasterSettings(**given)  # type: ignore[arg-type]  # the alias is not a parameter
