"""Conversations: a table of them, what was said in one, and files of it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from millrace.problems import one_line
from millrace.show.answer import AnswerText
from millrace.show.numbers import NONE, count

Row = Mapping[str, Any]
Messages = Sequence[Mapping[str, str]]

_SPEAKERS = {"user": "You", "assistant": "Millrace", "tool": "Tool", "system": "Instructions"}
_SHORT_ID = 13
"""`conv_` and eight digits, which is enough to name one."""


def conversations_table(conversations: Iterable[Row], *, numbered: bool = False) -> Table:
    """A line for each conversation."""
    table = Table(box=SIMPLE_HEAD, expand=True, collapse_padding=True, pad_edge=False)
    if numbered:
        table.add_column("", no_wrap=True, justify="right")
    table.add_column("Conversation", no_wrap=True, overflow="ellipsis", ratio=1)
    for name in ("Exchanges", "Last used (UTC)", "Id"):
        table.add_column(name, no_wrap=True)
    for number, each in enumerate(conversations, start=1):
        table.add_row(
            *([Text(str(number), "dim")] if numbered else []),
            Text(title(each)),
            Text(count(each["exchanges"]), justify="right"),
            Text(_when(each["updated_at"])),
            Text(each["id"][:_SHORT_ID], "dim"),
        )
    return table


def title(conversation: Row) -> str:
    """What a conversation is called, as one line."""
    return one_line(conversation["title"] or conversation["name"] or NONE, 200)


def transcript(messages: Messages) -> list[Text]:
    """What was said, for a terminal."""
    lines: list[Text] = []
    for message in messages:
        lines += [Text(_speaker(message), "bold"), *_styled(message["content"]), Text()]
    return lines[:-1]


def summary_lines(conversation: Row) -> list[Text]:
    """What is left of older exchanges for the models, if there is a summary."""
    summary = conversation["summary"]
    if not summary:
        return []
    head = f"Summary of the first {count(summary['exchanges'])} exchanges"
    return [Text(head, "bold"), *_styled(summary["text"]), Text()]


def as_json_line(conversation: Row, messages: Messages) -> str:
    """A conversation as one line of JSON."""
    return json.dumps({**conversation, "messages": list(messages)}, ensure_ascii=False)


def as_markdown(conversation: Row, messages: Messages) -> str:
    """A conversation as a page."""
    head = [
        f"# {title(conversation)}",
        f"{conversation['id']}, {_when(conversation['updated_at'])}",
    ]
    said = [f"## {_speaker(message)}\n\n{message['content'].strip()}" for message in messages]
    return "\n\n".join([*head, *said]) + "\n"


def _speaker(message: Mapping[str, str]) -> str:
    return _SPEAKERS.get(message["role"], message["role"])


def _styled(text: str) -> list[Text]:
    shape = AnswerText()
    return [*shape.feed(text), *shape.close()]


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
