"""How long one engine may be silent, where another one could answer instead."""

import asyncio
from collections.abc import AsyncGenerator

from queue_schemas.messages import ErrorKind
from queue_schemas.registry import Model
from worker.providers.diagnosis import TRUNCATED, failure
from worker.providers.protocol import Delta, Finish, ProviderError


async def next_item(
    items: AsyncGenerator[Delta | Finish, None], model: Model, *, alive: bool
) -> Delta | Finish:
    """What the engine says next. Raises ProviderError when it says nothing for too long."""
    if alive:
        seconds, code, what = model.inter_token_seconds, "inter_token_timeout", "fell silent for"
    else:
        seconds, code, what = model.first_token_seconds, "first_token_timeout", "said nothing for"
    try:
        async with asyncio.timeout(seconds) as alarm:
            return await anext(items)
    except StopAsyncIteration as error:
        raise failure(TRUNCATED, "the engine ended without saying so") from error
    except TimeoutError as error:
        if not alarm.expired():
            raise
        said = f"the engine {what} {seconds:g} s"
        raise ProviderError(ErrorKind.TRANSIENT, code, said) from error
