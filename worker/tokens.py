"""The text of one execution on its way to whoever streams it.

The first text goes at once. After that a slow engine's text goes as it comes and a fast engine's
is coalesced, so that a stream costs at most one message per window. Sending happens beside the
generation: a slow broker never holds the engine up. All text is kept until the execution ends,
so that any of it can be sent again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from queue_schemas.messages import Channel, Started, SubtaskRequest, TokenChunk

Send = Callable[[str, Started | TokenChunk], Awaitable[None]]
"""Sends a message to a queue, unconfirmed."""


@dataclass
class _Text:
    """The text of one channel: all of it, and what was not sent yet."""

    pieces: list[str] = field(default_factory=list)
    unsent: list[str] = field(default_factory=list)
    sent: int = 0
    """Code points before the unsent text."""

    def add(self, text: str) -> None:
        self.pieces.append(text)
        self.unsent.append(text)

    def whole(self) -> str:
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    def rewind(self, offset: int) -> None:
        whole = self.whole()
        self.sent = min(offset, len(whole))
        self.unsent = [whole[self.sent :]] if self.sent < len(whole) else []

    def cut(self) -> tuple[int, str]:
        """Take the unsent text, with its offset."""
        offset, text = self.sent, "".join(self.unsent)
        self.sent += len(text)
        self.unsent.clear()
        return offset, text


class TokenStream:
    """Sends the text of one execution in order. Offsets start behind what the client has."""

    def __init__(
        self, subtask: SubtaskRequest, started: Started, send: Send, window_seconds: float
    ) -> None:
        self._started: Started | None = started
        self._execution = started.execution
        self._delivery = started.delivery
        self._subtask = subtask
        self._send = send
        self._window = window_seconds
        self._to = subtask.reply_to
        self._texts = {channel: _Text() for channel in Channel}
        content = self._texts[Channel.CONTENT]
        content.pieces.append(subtask.shown)
        content.sent = len(subtask.shown)
        self._loop = asyncio.get_running_loop()
        self._not_before = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None
        self._wake()

    def text(self, channel: Channel = Channel.CONTENT) -> str:
        """All text until now, with what was shown before."""
        return self._texts[channel].whole()

    def add(self, text: str, channel: Channel = Channel.CONTENT) -> None:
        """Some more text."""
        self._texts[channel].add(text)
        if self._timer is None and self._sending is None:
            self._wake()

    def resend(self, offset: int, to: str, reasoning: int | None = None) -> None:
        """Send to another queue from now on, beginning at these offsets of content and reasoning.

        Without the latter, the reasoning goes on where it is.
        """
        self._to = to
        self._texts[Channel.CONTENT].rewind(offset)
        if reasoning is not None:
            self._texts[Channel.REASONING].rewind(reasoning)
        self._not_before = 0.0
        self._cancel_timer()
        if self._sending is None:
            self._wake()

    async def flush(self) -> None:
        """Send what there is, now."""
        self._cancel_timer()
        while self._sending is not None:
            await asyncio.wait([self._sending])
        self._cancel_timer()
        await self._send_all()

    def close(self) -> None:
        """Send nothing more."""
        self._cancel_timer()
        self._to = None
        if self._sending is not None:
            self._sending.cancel()

    def _wake(self) -> None:
        """Send at once, or as soon as the window since the last chunk is over."""
        self._timer = None
        if self._to is None:
            return
        wait = self._not_before - self._loop.time()
        if wait > 0:
            self._timer = self._loop.call_later(wait, self._wake)
            return
        self._sending = self._loop.create_task(self._send_all())
        self._sending.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending = None
        if not task.cancelled():
            task.result()  # a bug must not be lost
            if any(text.unsent for text in self._texts.values()):
                self._wake()

    async def _send_all(self) -> None:
        started, self._started = self._started, None
        if started is not None and self._to is not None:
            await self._send(self._to, started)
        for _ in Channel:
            channel = self._first_unsent()
            if channel is not None and self._to is not None:
                await self._send(self._to, self._chunk(channel, *self._texts[channel].cut()))
                self._not_before = self._loop.time() + self._window

    def _first_unsent(self) -> Channel | None:
        """A model thinks before it answers, also where both go out together or again."""
        thought_first = (Channel.REASONING, Channel.CONTENT)
        return next((channel for channel in thought_first if self._texts[channel].unsent), None)

    def _chunk(self, channel: Channel, offset: int, text: str) -> TokenChunk:
        answers = channel is Channel.CONTENT
        return TokenChunk(
            request=self._subtask.request,
            subtask=self._subtask.subtask,
            attempt=self._subtask.attempt,
            execution=self._execution,
            delivery=self._delivery,
            channel=channel,
            offset=offset,
            thought=self._texts[Channel.REASONING].sent if answers else 0,
            text=text,
        )

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
