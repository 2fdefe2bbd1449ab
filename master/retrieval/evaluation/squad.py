"""SQuAD's JSON, 1.1 and 2.0: paragraphs are the passages, questions with answers the questions."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from master.retrieval.evaluation.sets import Passage, Question, RetrievalSet, SetError


def read_file(path: Path) -> RetrievalSet:
    """The set in a file. Raises SetError, whose place is a path within the JSON.

    A question that the paragraph does not answer is left out and counted.
    """
    content = _parsed(path)
    if not isinstance(content, dict):
        raise SetError(path, None, "is not a JSON object with 'data'")
    reading = _Reading(path)
    for place, article in _items(path, "", content, "data"):
        title = _text(path, place, article, "title", missing="")
        for where, paragraph in _items(path, place, article, "paragraphs"):
            reading.paragraph(where, title, paragraph)
    if not reading.questions:
        raise SetError(path, None, "no question has an answer")
    passages, questions = tuple(reading.passages.values()), tuple(reading.questions.values())
    return RetrievalSet(path.stem, passages, questions, reading.left_out)


@dataclass
class _Reading:
    path: Path
    passages: dict[tuple[str, str], Passage] = field(default_factory=dict)
    questions: dict[str, Question] = field(default_factory=dict)
    left_out: int = 0

    def paragraph(self, place: str, title: str, paragraph: Any) -> None:
        """Take a paragraph and its questions in; one that was there before stays one passage."""
        text = _text(self.path, place, paragraph, "context")
        passage = Passage(f"p{len(self.passages) + 1}", title.replace("_", " "), text)
        passage = self.passages.setdefault((title, text), passage)
        for where, asked in _items(self.path, place, paragraph, "qas"):
            self._question(where, asked, passage)

    def _question(self, place: str, asked: Any, passage: Passage) -> None:
        name = _text(self.path, place, asked, "id")
        if name in self.questions:
            raise SetError(self.path, place, f"the id {name!r} is used twice")
        answers = list(_items(self.path, place, asked, "answers"))
        if asked.get("is_impossible") is True or not answers:
            self.left_out += 1
            return
        text = _text(self.path, place, asked, "question")
        if not text.strip():
            raise SetError(self.path, place, "the question is empty")
        self.questions[name] = Question(name, text, {passage.id: 1})


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise SetError(path, error.lineno, f"is not JSON: {error.msg.lower()}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise SetError(path, None, "is not JSON in UTF-8") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SetError(path, None, f"cannot be read: {reason}") from error


def _items(path: Path, place: str, entry: Any, name: str) -> Iterator[tuple[str, Any]]:
    where = f"{place}.{name}" if place else name
    found = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(found, list):
        raise SetError(path, where, "is not a list")
    for position, item in enumerate(found):
        yield f"{where}[{position}]", item


def _text(path: Path, place: str, entry: Any, name: str, *, missing: str | None = None) -> str:
    found = entry.get(name, missing) if isinstance(entry, dict) else None
    if not isinstance(found, str):
        raise SetError(path, f"{place}.{name}", "is not a text")
    return found
