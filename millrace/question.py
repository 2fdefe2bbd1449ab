"""A question of the command line as the body of a chat request."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from html import escape
from pathlib import Path
from typing import Any

from millrace.problems import Problem, reason

LARGEST_FILE_BYTES = 10_000_000


class Strategy(StrEnum):
    """How the request becomes subtasks."""

    AUTO = "auto"
    SPLIT = "split"
    DIRECT = "direct"
    RAG = "rag"
    ENSEMBLE = "ensemble"
    CREW = "crew"
    ROUTER = "router"


def body(model: str, question: str, documents: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The chat request: the documents, if any, and the question at the end."""
    content = f"{context(documents)}\n\n{question}" if documents else question
    return {"model": model, "messages": [{"role": "user", "content": content}]}


def context(documents: Mapping[str, str]) -> str:
    """Documents by name, written as Open WebUI writes what it retrieved."""
    sources = [
        f'<source id="{number}" name="{escape(name)}">{_inside(text)}</source>'
        for number, (name, text) in enumerate(documents.items(), start=1)
    ]
    return "\n".join(["<context>", *sources, "</context>"])


def _inside(text: str) -> str:
    # A document about this very format must not end its own element.
    return text.replace("</source>", "&lt;/source&gt;").replace("</context>", "&lt;/context&gt;")


def read_documents(paths: Sequence[Path]) -> dict[str, str]:
    """The texts of files, by a name that tells them apart."""
    short = [path.name for path in paths]
    names = short if len(set(short)) == len(short) else [str(path) for path in paths]
    return {name: _read(path) for name, path in zip(names, paths, strict=True)}


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise Problem(f"{path}: larger than {LARGEST_FILE_BYTES:,} bytes.")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem(f"{path}: not UTF-8 text. --file takes text and markdown.") from error
    except OSError as error:
        raise Problem(f"{path}: {reason(error)}.") from error
    if "\0" in text:
        raise Problem(f"{path}: not text (it has NUL bytes). --file takes text and markdown.")
    if not text.strip():
        raise Problem(f"{path}: the file is empty.")
    return text
