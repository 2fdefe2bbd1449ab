"""Queue arguments: only what every supported RabbitMQ takes, and nothing that can drop work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_schemas import topology
from queue_schemas.registry import slug
from queue_schemas.topology import Queue

SHARED = (*topology.SHARED, topology.subtasks("codellama-34b"))
KEPT = tuple(queue for queue in SHARED if not queue.lossy)
LOSSY = (
    topology.WORKERS,
    topology.tokens("master-1"),
    topology.control("worker-1"),
    topology.watcher("n8n"),
)
kept = pytest.mark.parametrize("queue", KEPT, ids=lambda queue: queue.name)
lossy = pytest.mark.parametrize("queue", LOSSY, ids=lambda queue: queue.name)

SUPPORTED_ARGUMENTS = {
    "x-queue-type",
    "x-max-length",
    "x-overflow",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-delivery-limit",
    "x-consumer-timeout",
}
"""What RabbitMQ 3.10 and 4.x both accept. `x-max-priority` on a quorum queue, for one, is not."""


def test_names_are_unique() -> None:
    names = [queue.name for queue in (*KEPT, *LOSSY, topology.N8N)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("queue", [*KEPT, *LOSSY, topology.N8N], ids=lambda queue: queue.name)
def test_only_arguments_that_every_supported_broker_takes(queue: Queue) -> None:
    assert set(queue.arguments()) <= SUPPORTED_ARGUMENTS


@kept
def test_a_shared_queue_is_replicated_and_refuses_when_full(queue: Queue) -> None:
    arguments = queue.arguments()
    assert not queue.exclusive
    assert arguments["x-queue-type"] == "quorum"
    assert arguments["x-overflow"] == "reject-publish"
    assert arguments["x-max-length"] == queue.max_length > 0


@pytest.mark.parametrize(
    "queue",
    [queue for queue in KEPT if queue not in (topology.DEAD, topology.QUARANTINE)],
    ids=lambda queue: queue.name,
)
def test_a_message_that_kills_its_consumers_ends_in_dead_without_loss(queue: Queue) -> None:
    arguments = queue.arguments()
    assert arguments["x-delivery-limit"] == topology.DELIVERY_LIMIT
    assert arguments["x-dead-letter-exchange"] == ""
    assert arguments["x-dead-letter-routing-key"] == topology.DEAD.name
    assert arguments["x-dead-letter-strategy"] == "at-least-once"


@pytest.mark.parametrize("queue", [topology.DEAD, topology.QUARANTINE], ids=lambda q: q.name)
def test_nothing_leaves_the_last_queues_by_itself(queue: Queue) -> None:
    arguments = queue.arguments()
    assert "x-dead-letter-exchange" not in arguments
    assert int(arguments["x-delivery-limit"]) >= 1_000_000  # RabbitMQ 4 has 20 otherwise


@kept
def test_every_dead_letter_target_is_declared_at_start(queue: Queue) -> None:
    assert queue.dead_letter_to in {None, *(shared.name for shared in topology.SHARED)}


def test_the_broker_waits_longer_than_the_longest_subtask() -> None:
    milliseconds = topology.subtasks("any").arguments()["x-consumer-timeout"]
    margin_seconds = int(milliseconds) / 1000 - topology.LONGEST_SUBTASK_SECONDS
    assert margin_seconds >= 300


@lossy
def test_a_queue_of_notes_and_tokens_forgets_its_oldest(queue: Queue) -> None:
    assert queue.arguments() == {"x-max-length": queue.max_length, "x-overflow": "drop-head"}


def test_events_are_kept_for_n8n_and_the_oldest_go_when_there_are_too_many() -> None:
    arguments = topology.N8N.arguments()
    assert arguments["x-queue-type"] == "quorum"
    assert arguments["x-overflow"] == "drop-head"
    assert arguments["x-max-length"] == topology.N8N.max_length > 0
    assert topology.N8N not in topology.SHARED  # where there is no n8n, nobody empties it


def test_only_heartbeats_and_claims_are_lossy_among_the_shared_queues() -> None:
    assert [queue.name for queue in SHARED if queue.lossy] == ["workers"]


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=200))
def test_any_model_name_gives_a_queue_name_that_amqp_can_carry(name: str) -> None:
    queue = topology.subtasks(slug(name)).name
    assert queue.isascii()
    assert len(queue.encode()) <= 255
