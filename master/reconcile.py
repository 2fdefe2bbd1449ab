"""Reconcile: does the broker have what the database says, and can the database be right?

Looking changes nothing; `master.mend` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from bus.protocol import Bus, Depth
from db import outbox
from db import reconcile as facts
from db.reconcile import Counts
from master.peeked import FOREIGN, Peeked, peek
from queue_schemas import topology
from queue_schemas.codec import KeyRing
from queue_schemas.registry import Model, Registry


class Kind(StrEnum):
    """What does not agree."""

    NO_QUEUE = "no queue"
    MISSING = "missing message"
    SURPLUS = "more messages"
    ORPHAN = "orphan message"
    DUPLICATE = "duplicate message"
    UNREADABLE = "unreadable message"
    UNSENT = "ready but not in the outbox"
    STALE = "stale outbox row"
    SILENT = "expired lease"
    OVERDUE = "request past its deadline"
    IDLE = "request that nothing moves"


@dataclass(frozen=True)
class Finding:
    """One kind of disagreement at one place."""

    kind: Kind
    count: int
    text: str
    model: str | None = None
    ids: tuple[UUID, ...] = ()
    """Subtasks, or requests where the kind speaks of requests."""
    attempts: tuple[int, ...] = ()
    """Of the subtasks, where it matters which one is meant."""


@dataclass(frozen=True)
class ModelState:
    """One model, in the database and at the broker."""

    model: str
    queue: str
    counts: Counts
    depth: Depth | None
    unacked: int | None = None
    """Messages in workers' hands; None where the broker was not asked."""


@dataclass(frozen=True)
class Look:
    """Everything seen at one time."""

    models: tuple[ModelState, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Scope:
    """What to look at and how closely."""

    older_seconds: float = 10.0
    """Younger differences are work in progress."""
    peek: int = 0
    """Read so many messages of each queue; 0: decide by counts alone."""


@dataclass(frozen=True)
class Installation:
    """What is looked at."""

    engine: AsyncEngine
    bus: Bus
    registry: Registry
    key_ring: KeyRing | None


async def look(at: Installation, scope: Scope) -> Look:
    """Compare; with `scope.peek`, messages are taken into the hand and returned."""
    models: list[ModelState] = []
    findings: list[Finding] = []
    for model in at.registry.chat_models():
        state, found = await _look_at_model(at, model, scope)
        models.append(state)
        findings += found
    findings += await _look_at_shared(at.bus)
    findings += await _look_at_database(at.engine, scope)
    return Look(tuple(models), tuple(findings))


async def _look_at_model(
    at: Installation, model: Model, scope: Scope
) -> tuple[ModelState, list[Finding]]:
    queue = topology.subtasks(model.slug)
    async with at.engine.connect() as connection:
        before = (await facts.counts(connection)).get(model.name, Counts())
    depth = await at.bus.depth(queue.name)
    peeked = None
    if depth and scope.peek:
        peeked = await peek(at.engine, at.bus, queue, scope.peek, at.key_ring)
    async with at.engine.connect() as connection:
        age = scope.older_seconds if depth else 0.0  # without its queue a message is lost at once
        queued = await facts.queued(connection, model.name, age)
        after = (await facts.counts(connection)).get(model.name, Counts())
    state = ModelState(model.name, queue.name, after, depth)
    findings = []
    if depth is None:
        findings.append(Finding(Kind.NO_QUEUE, 1, f"{queue.name} is not declared", model.name))
    if peeked is not None:
        findings += _messages(model.name, peeked)
    elif depth is not None:
        findings += _surplus(model.name, depth, max(before.queued, after.queued), before, after)
    findings += _missing(model.name, depth, queued, peeked)
    return state, findings


def _surplus(model: str, depth: Depth, queued: int, before: Counts, after: Counts) -> list[Finding]:
    # The message of a ready subtask may be there already: its confirm is on its way.
    most = queued + max(before.ready, after.ready)
    if depth.ready <= most:
        return []
    number = depth.ready - most
    return [Finding(Kind.SURPLUS, number, "than subtasks that wait for them", model)]


def _missing(
    model: str,
    depth: Depth | None,
    queued: Sequence[tuple[UUID, int]],
    peeked: Peeked | None,
) -> list[Finding]:
    if peeked is not None and peeked.complete:
        lost = [waiting for waiting in queued if waiting not in peeked.current]
    elif depth is None or depth.ready == 0:
        lost = list(queued)
    elif len(queued) > depth.ready:
        number = len(queued) - depth.ready
        text = "which ones is not known without --peek"
        return [Finding(Kind.MISSING, number, text, model)]
    else:
        return []
    if not lost:
        return []
    text = "queued in the database, not at the broker"
    ids, attempts = zip(*lost, strict=True)
    return [Finding(Kind.MISSING, len(lost), text, model, ids, attempts)]


def _messages(model: str, seen: Peeked) -> list[Finding]:
    found = (
        (Kind.ORPHAN, seen.orphans, "their subtask ended or has a newer attempt"),
        (Kind.ORPHAN, seen.foreign, FOREIGN),
        (Kind.DUPLICATE, seen.duplicates, "one attempt has several"),
    )
    findings = [
        Finding(kind, len(those), text, model, tuple(m.subtask for m in those.values()))
        for kind, those, text in found
        if those
    ]
    if seen.unreadable:
        reason = next(iter(seen.unreadable.values()))
        findings.append(Finding(Kind.UNREADABLE, len(seen.unreadable), reason, model))
    return findings


async def _look_at_shared(bus: Bus) -> list[Finding]:
    missing = [queue.name for queue in topology.SHARED if await bus.depth(queue.name) is None]
    if not missing:
        return []
    return [Finding(Kind.NO_QUEUE, len(missing), f"{', '.join(missing)}: not declared")]


async def _look_at_database(engine: AsyncEngine, scope: Scope) -> list[Finding]:
    age = scope.older_seconds
    async with engine.connect() as connection:
        found = (
            (Kind.UNSENT, await outbox.unsent(connection), "nobody would ever publish them"),
            (Kind.STALE, await facts.stale(connection, age), "their subtask is further already"),
            (Kind.SILENT, await facts.silent(connection, age), "their workers fell silent"),
            (Kind.OVERDUE, await facts.overdue(connection, age), "no master has ended them"),
            (Kind.IDLE, await facts.idle(connection), "all their subtasks ended or wait"),
        )
    return [Finding(kind, len(ids), text, ids=tuple(ids)) for kind, ids, text in found if ids]
