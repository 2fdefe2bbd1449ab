"""BEIR's folders: corpus.jsonl, queries.jsonl, and qrels/test.tsv or qrels.tsv."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from master.retrieval.evaluation.sets import Passage, Question, RetrievalSet, SetError
from master.retrieval.evaluation.text_lines import numbered_lines

_JUDGEMENTS = ("qrels/test.tsv", "qrels.tsv")


def read_folder(folder: Path) -> RetrievalSet:
    """The set in a folder. Raises SetError."""
    passages = _passages(folder / "corpus.jsonl")
    texts = _questions(folder / "queries.jsonl")
    path = next((folder / name for name in _JUDGEMENTS if (folder / name).is_file()), None)
    if path is None:
        raise SetError(folder, None, f"has neither {' nor '.join(_JUDGEMENTS)}")
    grades = _judgements(path, texts, passages)
    questions = [
        Question(question, texts[question], relevant)
        for question, found in grades.items()
        if (relevant := {passage: grade for passage, grade in found.items() if grade > 0})
    ]
    if not questions:
        raise SetError(path, None, "no question has a relevant passage")
    left_out = len(grades) - len(questions)
    return RetrievalSet(folder.name, tuple(passages.values()), tuple(questions), left_out)


def _passages(path: Path) -> dict[str, Passage]:
    found: dict[str, Passage] = {}
    for number, entry in _entries(path):
        passage = Passage(
            _string(path, number, entry, "_id"),
            _string(path, number, entry, "title", missing=""),
            _string(path, number, entry, "text"),
        )
        if passage.id in found:
            raise SetError(path, number, f"the id {passage.id!r} is used twice")
        found[passage.id] = passage
    return found


def _questions(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, entry in _entries(path):
        question = _string(path, number, entry, "_id")
        if question in found:
            raise SetError(path, number, f"the id {question!r} is used twice")
        found[question] = _string(path, number, entry, "text")
        if not found[question].strip():
            raise SetError(path, number, f"the question {question!r} is empty")
    return found


def _entries(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in numbered_lines(path):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SetError(path, number, "is not JSON") from error
        if not isinstance(entry, dict):
            raise SetError(path, number, "is not a JSON object")
        yield number, entry


def _string(
    path: Path, number: int, entry: Mapping[str, Any], name: str, *, missing: str | None = None
) -> str:
    value = entry.get(name, missing)
    if not isinstance(value, str) or (name == "_id" and not value):
        raise SetError(path, number, f"{name!r} is not a text" if name in entry else f"no {name!r}")
    return value


def _judgements(
    path: Path, questions: Mapping[str, str], passages: Mapping[str, Passage]
) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    for order, (number, line) in enumerate(numbered_lines(path)):
        fields = line.split("\t")
        if len(fields) != 3:
            raise SetError(path, number, f"has {len(fields)} tab-separated fields, not 3")
        question, passage, grade = (part.strip() for part in fields)
        if order == 0 and _grade(grade) is None:
            continue  # the heading, which not every tool writes
        if (graded := _grade(grade)) is None:
            raise SetError(path, number, f"the score {grade!r} is not a whole number")
        _known(path, number, "question", question, questions)
        _known(path, number, "passage", passage, passages)
        if passage in grades.setdefault(question, {}):
            raise SetError(path, number, f"{question!r} and {passage!r} were judged before")
        grades[question][passage] = graded
    return grades


def _grade(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _known(path: Path, number: int, kind: str, name: str, known: Mapping[str, object]) -> None:
    if name not in known:
        raise SetError(path, number, f"the {kind} {name!r} does not exist")
