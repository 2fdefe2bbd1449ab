"""Engines that go on when the test says so: for states that would pass by themselves."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator

from queue_schemas.messages import SubtaskRequest
from queue_schemas.registry import Model
from worker.providers.protocol import Delta, Finish
from worker.providers.scripted import Scripted

_BEGINNING = 0


class Gates:
    """Makes scripted engines, the `provider` of an installation; each waits at its model's gates.

    They are behind so many tokens of every answer; without a number there is one, before the first.
    A pace counts from the first token that was let through, so what waited long comes at once.
    """

    def __init__(self, *after_tokens: int) -> None:
        self._places = after_tokens or (_BEGINNING,)
        self._gates: defaultdict[tuple[str, int], asyncio.Event] = defaultdict(asyncio.Event)

    def __call__(self, model: Model) -> Scripted:
        """The engine of a model."""
        return _Gated(model, {place: self._gates[model.name, place] for place in self._places})

    def open(self, model: str, after_tokens: int | None = None) -> None:
        """Let all pass this gate, or every gate of the model, from now on."""
        for place in self._places:
            if after_tokens in {None, place}:
                self._gates[model, place].set()


class _Gated(Scripted):
    def __init__(self, model: Model, gates: dict[int, asyncio.Event]) -> None:
        super().__init__(model)
        self._gates = gates

    async def complete(self, subtask: SubtaskRequest) -> AsyncGenerator[Delta | Finish, None]:
        await self._pass(_BEGINNING)
        produced = 0
        async for said in super().complete(subtask):
            yield said
            produced += 1
            await self._pass(produced)

    async def _pass(self, produced: int) -> None:
        if gate := self._gates.get(produced):
            await gate.wait()
