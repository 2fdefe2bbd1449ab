"""What a master can say now: each answer apart, so that one that is missing hides no other."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from millrace.client import Master, Refused
from millrace.problems import Problem

T = TypeVar("T")
Row = Mapping[str, Any]

_ITS_FAULT = 500


@dataclass(frozen=True)
class Fleet:
    """Workers and queues, as far as they are known. None: nobody can say now."""

    ready: Row
    workers: Sequence[Row] | None
    queues: Sequence[Row] | None
    broker_answers: bool = True
    """False: of the queues only the database's numbers are known."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """What is missing, and why."""


async def fleet(master: Master) -> Fleet:
    """Ask a master. Raises `Problem` where it is away, and `Refused` where the key is wrong."""
    unknown: dict[str, str] = {}
    ready, workers, queues = await asyncio.gather(
        master.get("/ready", refused=False),
        answer("workers", master.get("/v1/workers"), unknown),
        answer("queues", master.get("/v1/queues"), unknown),
    )
    return Fleet(
        ready,
        workers["data"] if workers else None,
        queues["data"] if queues else None,
        # An older master says nothing of its broker, or nothing at all.
        bool((queues or {}).get("broker_answers", True)),
        unknown,
    )


async def answer(name: str, asked: Awaitable[T], unknown: dict[str, str]) -> T | None:
    """An answer; None where the master cannot give it now, with the reason in `unknown`.

    Raises `Refused` where it would be the same if one asked again.
    """
    try:
        return await asked
    except Refused as refusal:
        if refusal.status < _ITS_FAULT:
            raise
        unknown[name] = refusal.said
    except Problem as problem:
        unknown[name] = str(problem).rstrip(".")
    return None


def missing(unknown: Mapping[str, str], *, broker_answers: bool) -> str:
    """What is missing, and why, in words; empty where nothing is."""
    said = []
    for why in dict.fromkeys(unknown.values()):
        *names, last = sorted(name for name in unknown if unknown[name] == why)
        which = f"{', '.join(names)} and {last}" if names else last
        said.append(f"{why}: {which} are not known")
    if not broker_answers:
        said.append("the broker does not answer: what waits there is not known")
    return "; ".join(said)
