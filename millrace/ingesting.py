"""Having files and URLs ingested by a master: find them, send them, wait for them."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from master.retrieval.parsing.formats import SUFFIXES
from millrace.client import Master, Refused
from millrace.problems import Problem, reason

_AT_ONCE: Final = 4
_LOOKED_AT: Final = 20
_PAUSE_SECONDS: Final = 0.3
_SHOWN: Final = 200
"""Characters of a name that the master repeats."""
_ENDED: Final = frozenset({"ready", "failed"})
_GOES_ON: Final = (
    "What was sent goes on by itself as long as a master runs; run the same command again to see "
    "it, and to send what is missing."
)

Document = dict[str, Any]


@dataclass(frozen=True)
class File:
    """A file to send, and the name of its document: below a folder, the path from there."""

    path: Path
    name: str

    def __str__(self) -> str:
        return self.name


Source = File | str
"""A file or a URL."""


@dataclass(frozen=True)
class Skipped:
    """A file that is not sent, and why."""

    path: Path
    reason: str


@dataclass
class Ingested:
    """What became of each source so far."""

    documents: dict[str, Document] = field(default_factory=dict)
    """By id, as last seen."""
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    """Name, code and message of what the master did not take."""

    @property
    def pending(self) -> list[str]:
        """Documents that are neither ready nor failed, oldest first."""
        return [key for key, doc in self.documents.items() if doc["state"] not in _ENDED]

    @property
    def held_up(self) -> list[Document]:
        """Documents that wait although they were tried: something is away that they need."""
        documents = (self.documents[key] for key in self.pending)
        return [each for each in documents if each["state"] == "waiting" and each["error"]]

    @property
    def failures(self) -> list[tuple[str, str, str]]:
        """Name, code and message of everything that cannot be searched."""
        failed = [
            (doc["name"], doc["error"]["code"], doc["error"]["message"])
            for doc in self.documents.values()
            if doc["state"] == "failed"
        ]
        return self.refused + failed


def find(paths: Iterable[Path], *, recursive: bool = True) -> tuple[list[File], list[Skipped]]:
    """The files to send: those named, and those below the folders named. Raises `Problem`."""
    found: dict[Path, File] = {}
    skipped: list[Skipped] = []
    for path in paths:
        if path.is_dir():
            for file, why in _below(path, recursive=recursive):
                if why:
                    skipped.append(Skipped(file, why))
                else:
                    found.setdefault(file, File(file, file.relative_to(path).as_posix()))
        elif path.is_file():
            found.setdefault(path, File(path, path.name))
        else:
            raise Problem(f"there is no file or folder {str(path)!r}.")
    return list(found.values()), skipped


def in_short(skipped: Iterable[Skipped]) -> list[str]:
    """A line for each reason; many files of one reason are counted by their suffixes."""
    by_reason: dict[str, list[Path]] = {}
    for each in skipped:
        by_reason.setdefault(each.reason, []).append(each.path)
    return [f"{_counted(paths)}: {why}" for why, paths in by_reason.items()]


def _counted(paths: Sequence[Path]) -> str:
    if len(paths) == 1:
        return str(paths[0])
    kinds = Counter(path.suffix.lower() or path.name for path in paths)
    return ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())


def check_names(files: Iterable[File]) -> None:
    """Raises `Problem` when two files would replace each other."""
    seen: dict[str, Path] = {}
    for file in files:
        first = seen.setdefault(file.name, file.path)
        if first.resolve() != file.path.resolve():
            raise Problem(
                f"{first} and {file.path} would both be {file.name!r}, and one replace the other. "
                "Ingest the folder above both, use another --collection, or give --keep."
            )


def _below(folder: Path, *, recursive: bool) -> list[tuple[Path, str]]:
    """Every file under a folder, with the reason not to send it if there is one."""
    found = []
    for parent, folders, names in os.walk(folder):
        hidden = [name for name in folders if name.startswith(".")]
        found += [(Path(parent, name), "hidden folder") for name in sorted(hidden)]
        folders[:] = sorted(set(folders) - set(hidden)) if recursive else []
        found += [(Path(parent, name), _unwanted(Path(parent, name))) for name in sorted(names)]
    return found


def _unwanted(file: Path) -> str:
    """Why this file of a folder is not sent; one that is named is, whatever it is called."""
    if file.name.startswith("."):
        return "hidden file"
    if file.suffix.lower() not in SUFFIXES:
        return "unknown kind of file"
    return "" if file.is_file() else "not a regular file"


async def ingest(
    master: Master,
    sources: Sequence[Source],
    fields: Mapping[str, Any],
    on_change: Callable[[Ingested], None],
) -> Ingested:
    """Send all of them, a few at a time, and wait until each is ready or has failed.

    Raises `Problem` when the master is lost.
    """
    done = Ingested()
    try:
        await _ingest(master, sources, fields, on_change, done)
    except* Problem as lost:
        if not done.documents:
            raise
        raise Problem(f"{lost.exceptions[0]} {_GOES_ON}") from lost
    return done


async def _ingest(
    master: Master,
    sources: Sequence[Source],
    fields: Mapping[str, Any],
    on_change: Callable[[Ingested], None],
    done: Ingested,
) -> None:
    waiting = iter(sources)

    async def send() -> None:
        for source in waiting:
            await _send(master, source, fields, done)
            on_change(done)

    async with asyncio.TaskGroup() as group:
        senders = [group.create_task(send()) for _ in range(_AT_ONCE)]
        while done.pending or not all(sender.done() for sender in senders):
            async for document in _look(master, done.pending[:_LOOKED_AT]):
                done.documents[document["id"]] |= document
                on_change(done)
            await asyncio.sleep(_PAUSE_SECONDS)


async def until_done(
    master: Master, collection: str, on_change: Callable[[Mapping[str, int]], None]
) -> Mapping[str, int]:
    """Wait until no document of a collection waits or runs; how many are in which state."""
    while True:
        counts: Mapping[str, int] = (await master.get(f"/v1/collections/{collection}"))["documents"]
        on_change(counts)
        if not counts["waiting"] + counts["running"]:
            return counts
        await asyncio.sleep(_PAUSE_SECONDS)


async def _send(master: Master, source: Source, fields: Mapping[str, Any], done: Ingested) -> None:
    try:
        if isinstance(source, File):
            document = await master.upload(source.path, source.name, fields)
        else:
            document = await _send_url(master, source, fields)
    except Refused as refused:
        said = refused.said.removeprefix(f"{str(source)[:_SHOWN]!a}: ")
        done.refused.append((str(source), refused.code, said))
    except OSError as error:
        done.refused.append((str(source), "unreadable", reason(error)))
    else:
        done.documents[document["id"]] = document


async def _send_url(master: Master, url: str, fields: Mapping[str, Any]) -> Document:
    answer = await master.send("POST", "/v1/documents", {**fields, "url": url})
    document: Document = answer["data"][0]
    return document


async def _look(master: Master, identities: Sequence[str]) -> AsyncIterator[Document]:
    for identity in identities:
        try:
            yield await master.get(f"/v1/documents/{identity}")
        except Refused as refused:
            if refused.status != 404:
                raise
            gone = {"code": "deleted", "message": "it was deleted meanwhile"}
            yield {"id": identity, "state": "failed", "error": gone}
