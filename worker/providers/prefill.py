"""Going on from text that the client has already seen."""

from pydantic import JsonValue

from queue_schemas.messages import SubtaskRequest

SHORTEST_ECHO = 16
"""Below this a continuation may begin like the shown text by chance, as in `ha` after `ha`."""


def prefilled(subtask: SubtaskRequest) -> list[dict[str, JsonValue]]:
    """The messages, with the shown text as the beginning of the assistant's answer."""
    messages = list(subtask.messages)
    if subtask.shown:
        messages.append({"role": "assistant", "content": subtask.shown})
    return messages


class EchoFilter:
    """Drops the shown text where an engine repeats it before it goes on."""

    def __init__(self, shown: str) -> None:
        self._shown = shown if len(shown) >= SHORTEST_ECHO else ""
        self._held = ""

    def feed(self, text: str) -> str:
        """The part of the text that is certainly new; the rest is held back until it is clear."""
        if not self._shown:
            return text
        self._held += text
        if self._shown.startswith(self._held):
            return ""
        held, shown = self._held, self._shown
        self._held = self._shown = ""
        return held.removeprefix(shown)

    def rest(self) -> str:
        """What is still held when the engine is done, unless it is an echo that was cut off."""
        return self._held if len(self._held) < SHORTEST_ECHO else ""
