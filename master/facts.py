"""What the master learns from the broker, in the order it learns it; collect writes it down."""

from dataclasses import dataclass
from uuid import UUID

from bus.protocol import Delivery
from queue_schemas.messages import Completed, Failed, Heartbeat, Started


@dataclass(frozen=True)
class Confirmed:
    """The broker has stored the message of an attempt."""

    request: UUID
    subtask: UUID
    attempt: int


@dataclass(frozen=True)
class Received:
    """A message, with the delivery that is acknowledged once it is written."""

    delivery: Delivery
    message: Completed | Failed | Started | Heartbeat
    at: int = 0
    """When it came, by `tracing.now`."""


Fact = Confirmed | Received | Started
"""A bare Started is one that a heartbeat stood in for."""


def is_urgent(fact: Fact) -> bool:
    """Whether somebody waits for it to be written: results end streams, the rest can linger."""
    return isinstance(fact, Received) and isinstance(fact.message, Completed | Failed)
