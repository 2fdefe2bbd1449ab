"""Rendered files on disk: which of them differ, and writing them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from millrace.k8s.labels import MARK
from millrace.k8s.problems import Unfit
from millrace.problems import reason


class Kind(StrEnum):
    """What is to be done with a file."""

    NEW = "new"
    CHANGED = "changed"
    GONE = "gone"
    """Rendered once, and not any more."""


@dataclass(frozen=True)
class Change:
    """A file that is not as it should be."""

    kind: Kind
    path: Path


def changes(wanted: Mapping[Path, str], folder: Path) -> list[Change]:
    """What differs between the rendering and the disk; in `folder`, also what is left over."""
    found = [
        Change(Kind.CHANGED if path.exists() else Kind.NEW, path)
        for path, text in wanted.items()
        if _text(path) != text
    ]
    others = [path for path in folder.glob("*") if path.is_file() and path not in wanted]
    # What somebody else put there is not ours to take away.
    found += [Change(Kind.GONE, path) for path in others if (_text(path) or "").startswith(MARK)]
    return sorted(found, key=lambda change: change.path)


def write(wanted: Mapping[Path, str], found: list[Change]) -> None:
    """Make the disk as the rendering is. Raises `Unfit` where that is not allowed."""
    for change in found:
        try:
            if change.kind is Kind.GONE:
                change.path.unlink()
            else:
                replace(change.path, wanted[change.path], 0o644)
        except OSError as error:
            raise Unfit([f"{change.path}: cannot be written: {reason(error)}"]) from error


def replace(path: Path, text: str, mode: int) -> None:
    """Write a file in one step: whoever dies in between leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
    beside.chmod(mode)
    beside.replace(path)


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
