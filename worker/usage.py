"""Counting tokens where the engine did not.

A token is taken for four characters of text, which is close for English prose and too low for
code and for most other languages; the message says that the count is an estimate.
"""

from typing import Final

from queue_schemas.messages import SubtaskRequest
from worker.providers.prompt import text_of

CHARACTERS_PER_TOKEN: Final = 4
TOKENS_PER_MESSAGE: Final = 4
"""Role and delimiters, as chat templates write them."""


def estimate_tokens(text: str) -> int:
    """Tokens in a text, rounded up."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def estimate_prompt(subtask: SubtaskRequest) -> int:
    """Tokens in everything an engine is given; images are not counted."""
    texts = [text_of(message.get("content")) for message in subtask.messages]
    texts += [passage.text for passage in subtask.passages]
    texts.append(subtask.shown)
    return sum(map(estimate_tokens, texts)) + TOKENS_PER_MESSAGE * len(subtask.messages)
