"""Having files and URLs ingested by a master: find them, send them, wait for them."""

import asyncio
import os
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
_ENDED: Final = frozenset({"ready", "failed"})

Document = dict[str, Any]
Source = Path | str
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
    def failures(self) -> list[tuple[str, str, str]]:
        """Name, code and message of everything that cannot be searched."""
        failed = [
            (doc["name"], doc["error"]["code"], doc["error"]["message"])
            for doc in self.documents.values()
            if doc["state"] == "failed"
        ]
        return self.refused + failed


def find(paths: Iterable[Path], *, recursive: bool = True) -> tuple[list[Path], list[Skipped]]:
    """The files to send: those named, and those below the folders named. Raises `Problem`."""
    found: dict[Path, None] = {}
    skipped: list[Skipped] = []
    for path in paths:
        if path.is_dir():
            for file, why in _below(path, recursive=recursive):
                if why:
                    skipped.append(Skipped(file, why))
                else:
                    found[file] = None
        elif path.is_file():
            found[path] = None
        else:
            raise Problem(f"there is no file or folder {str(path)!r}.")
    return list(found), skipped


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
        return f"unknown kind of file ({file.suffix or 'no suffix'})"
    return "" if file.is_file() else "not a regular file"


async def ingest(
    master: Master,
    sources: Sequence[Source],
    fields: Mapping[str, Any],
    on_change: Callable[[Ingested], None],
) -> Ingested:
    """Send all of them, a few at a time, and wait until each is ready or has failed."""
    done = Ingested()
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
    return done


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
        if isinstance(source, Path):
            document = await master.upload(source, fields)
        else:
            document = await _send_url(master, source, fields)
    except Refused as refused:
        done.refused.append((str(source), refused.code, str(refused)))
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
