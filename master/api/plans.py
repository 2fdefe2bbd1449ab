"""A stored plan that cannot be read is an error of its own, which says so, on every route."""

import contextlib
from collections.abc import Iterator

from master.api.errors import ApiError
from master.planning.plan import PLAN_BROKEN, PlanUnreadable


@contextlib.contextmanager
def answered() -> Iterator[None]:
    """Turn a plan that cannot be read into an answer; asking again would be of no use."""
    try:
        yield
    except PlanUnreadable as error:
        message = f"this request is stored, but cannot be shown: {error}"
        never = {"x-should-retry": "false"}
        raise ApiError(500, PLAN_BROKEN, message, headers=never) from error
