"""States of a request, a subtask, a document and a rule, and the tables that say who follows whom.

The database guard is derived from these tables (`sources`), and so is the drawing in
`docs/architecture.md` (`drawing`), so neither can drift from the code.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

_State = TypeVar("_State", bound=StrEnum)


class RequestState(StrEnum):
    """Where a client's request stands."""

    ACCEPTED = "accepted"
    """Committed by submit; no worker has begun. Left when the first subtask starts."""
    PLANNING = "planning"
    """A plan subtask is being answered by a model. Left when its steps are known."""
    RUNNING = "running"
    """At least one answering subtask was started by a worker."""
    COMPLETED = "completed"
    """Collect applied the last result; the text of record is stored."""
    FAILED = "failed"
    """Collect or sweep found that no answer can come."""
    CANCELLED = "cancelled"
    """The client asked for it: disconnect, stop button or DELETE."""
    EXPIRED = "expired"
    """Sweep found the request past its deadline."""


class SubtaskState(StrEnum):
    """Where one model call of a request stands."""

    BLOCKED = "blocked"
    """Waits for the results it depends on. Collect moves it out."""
    READY = "ready"
    """An outbox row waits to be published. Submit, collect or a retry put it here."""
    QUEUED = "queued"
    """The broker confirmed the message. Dispatch put it here."""
    RUNNING = "running"
    """A worker reported Started; its lease is renewed by heartbeats."""
    SUCCEEDED = "succeeded"
    """Collect applied a Completed."""
    FAILED = "failed"
    """Collect applied a permanent Failed."""
    CANCELLED = "cancelled"
    """Its request was cancelled or expired first."""
    SKIPPED = "skipped"
    """Something it depends on did not succeed."""
    DEAD = "dead"
    """Attempts are exhausted, or it kills its workers; kept for inspection."""


class DocumentState(StrEnum):
    """Where a document of a collection stands. Nothing is for ever: it can be done again."""

    WAITING = "waiting"
    """Stored, and due from `available_at` on. Add, a retry or a reindex put it here."""
    RUNNING = "running"
    """Claimed for one attempt, with a lease that its ingest renews."""
    READY = "ready"
    """Its chunks can be found. Publish put it here; a reindex moves it out."""
    FAILED = "failed"
    """It cannot be read or embedded; `error` says why. Left when somebody asks again."""


class DocumentStage(StrEnum):
    """What is done with a running document, in this order."""

    PARSE = "parse"
    CHUNK = "chunk"
    EMBED = "embed"
    STORE = "store"


class RuleState(StrEnum):
    """Where one version of a rule stands."""

    PROPOSED = "proposed"
    """Stored by a person, a workflow or a roll-up; changes nothing."""
    SHADOW = "shadow"
    """Only counts how often it would hold. A person, or a trial that is allowed, put it here."""
    CANARY = "canary"
    """Holds for a share of the questions that it fits, and is compared with the others."""
    ACTIVE = "active"
    """Approved by a person or by a measured lift. At most one version of a name."""
    RETIRED = "retired"
    """Replaced, taken back, or found to do harm. A rollback makes it active again."""
    REJECTED = "rejected"
    """A person or a trial refused it."""


_R, _S, _D, _L = RequestState, SubtaskState, DocumentState, RuleState

# A result may overtake its own Started (they travel on different queues), hence the moves that
# jump over `running`, and over `queued` when a worker is faster than the mark after the confirm.
REQUEST_MOVES: Mapping[RequestState, frozenset[RequestState]] = {
    _R.ACCEPTED: frozenset(
        {_R.PLANNING, _R.RUNNING, _R.COMPLETED, _R.FAILED, _R.CANCELLED, _R.EXPIRED}
    ),
    _R.PLANNING: frozenset({_R.RUNNING, _R.COMPLETED, _R.FAILED, _R.CANCELLED, _R.EXPIRED}),
    _R.RUNNING: frozenset({_R.COMPLETED, _R.FAILED, _R.CANCELLED, _R.EXPIRED}),
    _R.COMPLETED: frozenset(),
    _R.FAILED: frozenset(),
    _R.CANCELLED: frozenset(),
    _R.EXPIRED: frozenset(),
}

_ENDS = frozenset({_S.SUCCEEDED, _S.FAILED, _S.DEAD, _S.CANCELLED})
SUBTASK_MOVES: Mapping[SubtaskState, frozenset[SubtaskState]] = {
    _S.BLOCKED: frozenset({_S.READY, _S.SKIPPED, _S.CANCELLED}),
    # ready -> ready, queued -> ready, running -> ready: the next attempt
    _S.READY: _ENDS | {_S.QUEUED, _S.RUNNING, _S.READY},
    _S.QUEUED: _ENDS | {_S.RUNNING, _S.READY},
    # running -> running: a redelivered message is claimed by a newer execution
    _S.RUNNING: _ENDS | {_S.RUNNING, _S.READY},
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.SKIPPED: frozenset(),
    _S.DEAD: frozenset(),
}

DOCUMENT_MOVES: Mapping[DocumentState, frozenset[DocumentState]] = {
    _D.WAITING: frozenset({_D.RUNNING}),
    # running -> running: its lease ran out and another attempt claims it
    _D.RUNNING: frozenset({_D.READY, _D.FAILED, _D.WAITING, _D.RUNNING}),
    _D.READY: frozenset({_D.WAITING}),
    _D.FAILED: frozenset({_D.WAITING}),
}

RULE_MOVES: Mapping[RuleState, frozenset[RuleState]] = {
    _L.PROPOSED: frozenset({_L.SHADOW, _L.CANARY, _L.ACTIVE, _L.REJECTED}),
    _L.SHADOW: frozenset({_L.CANARY, _L.ACTIVE, _L.REJECTED}),
    _L.CANARY: frozenset({_L.ACTIVE, _L.REJECTED}),
    _L.ACTIVE: frozenset({_L.RETIRED}),
    _L.RETIRED: frozenset({_L.ACTIVE}),
    _L.REJECTED: frozenset(),
}


def sources(moves: Mapping[_State, frozenset[_State]], target: _State) -> frozenset[_State]:
    """The states from which `target` may be reached in one move."""
    return frozenset(state for state, targets in moves.items() if target in targets)


def terminal(moves: Mapping[_State, frozenset[_State]]) -> frozenset[_State]:
    """The states that nothing leaves."""
    return frozenset(state for state, targets in moves.items() if not targets)


REQUEST_TERMINAL = terminal(REQUEST_MOVES)
SUBTASK_TERMINAL = terminal(SUBTASK_MOVES)


def drawing(moves: Mapping[_State, frozenset[_State]]) -> str:
    """A mermaid state diagram of a move table."""
    first = next(iter(moves))
    lines = ["stateDiagram-v2", f"    [*] --> {first}"]
    for state, targets in moves.items():
        lines += [f"    {state} --> {target}" for target in moves if target in targets]
        if not targets:
            lines.append(f"    {state} --> [*]")
    return "\n".join(lines)
