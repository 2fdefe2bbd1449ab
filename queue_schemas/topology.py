"""Names and arguments of every queue and exchange; nothing else in the project spells one.

Only what RabbitMQ 3.10 and 4.x both support: quorum queues with an explicit delivery limit,
at-least-once dead-lettering (which needs `reject-publish`), exclusive reply queues, no priority.
"""

from dataclasses import dataclass

CONTROL_EXCHANGE = "control"
EVENTS_EXCHANGE = "events"

DELIVERY_LIMIT = 20
"""A fuse for workers that die with the message; retries proper are the master's decision."""

LOOKS = 1_000_000
"""Whoever looks at a message and puts it back delivers it once more. RabbitMQ 4 drops a message
after 20 deliveries where no limit is given, and only 4 knows a negative one as "never"."""

LONGEST_SUBTASK_SECONDS = 3600
CONSUMER_TIMEOUT_SECONDS = LONGEST_SUBTASK_SECONDS + 600


@dataclass(frozen=True)
class Queue:
    """A queue as data. `exclusive` queues live and die with one connection.

    What is `lossy` carries notes whose loss the next one heals; full, it drops the oldest. All
    others are quorum queues, which refuse when they are full; those that are given `events` of a
    pattern drop the oldest too, because nobody would be told of a refusal.
    """

    name: str
    max_length: int
    exclusive: bool = False
    lossy: bool = False
    dead_letter_to: str | None = None
    delivery_limit: int | None = None
    consumer_timeout_seconds: int | None = None
    events: str | None = None
    """Topic pattern of the events that it is given, whether or not anybody takes them."""

    def arguments(self) -> dict[str, str | int]:
        """The arguments of `queue.declare`."""
        if self.exclusive or self.lossy:
            return {"x-max-length": self.max_length, "x-overflow": "drop-head"}
        arguments: dict[str, str | int] = {
            "x-queue-type": "quorum",
            "x-max-length": self.max_length,
            "x-overflow": "reject-publish" if self.events is None else "drop-head",
        }
        if self.dead_letter_to is not None:
            arguments["x-dead-letter-exchange"] = ""
            arguments["x-dead-letter-routing-key"] = self.dead_letter_to
            arguments["x-dead-letter-strategy"] = "at-least-once"
        if self.delivery_limit is not None:
            arguments["x-delivery-limit"] = self.delivery_limit
        if self.consumer_timeout_seconds is not None:
            arguments["x-consumer-timeout"] = self.consumer_timeout_seconds * 1000
        return arguments


DEAD = Queue("dead", max_length=100_000, delivery_limit=LOOKS)
QUARANTINE = Queue("quarantine", max_length=100_000, delivery_limit=LOOKS)
RESULTS = Queue("results", 1_000_000, dead_letter_to=DEAD.name, delivery_limit=DELIVERY_LIMIT)
FEEDBACK = Queue("feedback", 100_000, dead_letter_to=DEAD.name, delivery_limit=DELIVERY_LIMIT)
WORKERS = Queue("workers", 100_000, lossy=True)

SHARED = (DEAD, QUARANTINE, RESULTS, FEEDBACK, WORKERS)

N8N = Queue("n8n", max_length=100_000, delivery_limit=DELIVERY_LIMIT, events="#")
"""What happened while n8n was away. `millrace n8n provision` declares it: where there is no n8n,
nobody would ever empty it."""


def subtasks(slug: str) -> Queue:
    """The work queue of a model. KEDA watches it, so its name is public."""
    return Queue(
        f"subtasks.{slug}",
        max_length=100_000,
        dead_letter_to=DEAD.name,
        delivery_limit=DELIVERY_LIMIT,
        consumer_timeout_seconds=CONSUMER_TIMEOUT_SECONDS,
    )


def tokens(master: str) -> Queue:
    """The stream queue of one master replica: bounded, oldest chunks are dropped first."""
    return Queue(f"tokens.{master}", max_length=200_000, exclusive=True)


def control(worker: str) -> Queue:
    """One worker's own copy of everything on the `control` exchange."""
    return Queue(f"control.{worker}", max_length=10_000, exclusive=True)


def watcher(name: str) -> Queue:
    """A queue for somebody who watches the `events` exchange for as long as it is connected."""
    return Queue(f"events.{name}", max_length=10_000, exclusive=True)
