"""What the engines of one model have said of one answer, each going on where one broke off."""

from dataclasses import replace
from typing import Final

from queue_schemas.messages import Channel, Seam, SubtaskRequest
from worker.plain_text import PlainText
from worker.providers.protocol import Delta, Finish
from worker.usage import estimate_prompt, estimate_tokens

_BETWEEN_THOUGHTS: Final = "\n\n"


class Told:
    """The answer so far.

    No engine can go on with another one's thoughts. Before the text the next one thinks anew, and
    its thoughts follow those that were seen; within the text they only show that it is alive.
    """

    def __init__(self, subtask: SubtaskRequest) -> None:
        self.subtask = subtask
        """What the engine is asked that speaks now."""
        self.alive = False
        """The engine that speaks now has said something."""
        self.seams: tuple[Seam, ...] = ()
        self._asked = subtask
        self._speaker = ""
        self._broken_by = ""
        self._plain = PlainText()
        self._said: dict[Channel, list[str]] = {channel: [] for channel in Channel}
        self._thought = False
        self._spent = (0, 0)

    @property
    def begun(self) -> bool:
        """Whether an engine before this one had said some of the text."""
        return len(self.subtask.shown) > len(self._asked.shown)

    def speaks(self, speaker: str) -> None:
        """Another engine has its turn."""
        self._speaker = speaker
        self.alive = False

    def take(self, delta: Delta) -> Delta:
        """The same, as the client may have it."""
        self.alive = True
        said = self._said[delta.channel]
        if delta.channel is Channel.REASONING:
            first = not any(said)
            said.append(delta.text)
            return self._thoughts(delta, first=first)
        # As it will be stored: what half a character or a NUL would do to the next request.
        text = self._plain.take(delta)
        if text and not said and self.begun:
            offset = len(self.subtask.shown)
            seam = Seam(offset=offset, provider=self._speaker, code=self._broken_by)
            self.seams = (*self.seams, seam)
        if text:
            said.append(text)
        return delta

    def _thoughts(self, delta: Delta, *, first: bool) -> Delta:
        if self.begun:
            return Delta("", Channel.REASONING)
        if first and self._thought and delta.text:
            return Delta(_BETWEEN_THOUGHTS + delta.text, Channel.REASONING)
        return delta

    def broke_off(self, code: str, *, prompt_was_read: bool) -> None:
        """The engine that spoke has failed: the next one goes on with what was said."""
        prompt, completion = self._spent
        if prompt_was_read:
            prompt += estimate_prompt(self.subtask)
        self._spent = (prompt, completion + self._generated())
        self._broken_by = code
        self._thought = self._thought or any(self._said[Channel.REASONING])
        shown = self.subtask.shown + "".join(self._said[Channel.CONTENT])
        self.subtask = self._asked.model_copy(update={"shown": shown})
        self._said = {channel: [] for channel in Channel}

    def finish(self, finish: Finish) -> Finish:
        """With what the engines before have cost, which is estimated: they gave no counts."""
        if not any(self._spent):
            return finish
        prompt, completion = finish.prompt_tokens, finish.completion_tokens
        return replace(
            finish,
            prompt_tokens=self._spent[0]
            + (estimate_prompt(self.subtask) if prompt is None else prompt),
            completion_tokens=self._spent[1]
            + (self._generated() if completion is None else completion),
            estimated=True,
            seams=self.seams,
        )

    def _generated(self) -> int:
        return sum(estimate_tokens("".join(said)) for said in self._said.values())
