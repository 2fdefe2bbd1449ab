"""What dispatch assumes of the bus."""

import inspect

from bus import rabbitmq
from bus.protocol import DELETION_SECONDS
from master.dispatch import HOLD_SECONDS


def test_a_row_is_held_longer_than_its_publish_may_take() -> None:
    """Otherwise another replica publishes what this one is still publishing."""
    timeout = inspect.signature(rabbitmq.connect).parameters["publish_timeout_seconds"].default
    assert timeout + DELETION_SECONDS < HOLD_SECONDS
