"""What must hold whatever fails: one pure function for each invariant, from evidence to violations.

`docs/chaos.md` says in words what each of them means.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from millrace.chaos import texts
from millrace.chaos.evidence import Evidence, Move, Request, Subtask
from millrace.chaos.installation import HEARTBEAT_SECONDS
from millrace.chaos.visits import Closing, Errand, StreamSeen, Visit
from queue_schemas.states import REQUEST_TERMINAL, SUBTASK_TERMINAL

MEMORY_MARGIN_BYTES: Final = 128 * 1024 * 1024
"""How much a master may grow over what it had when it was ready."""
OVERDUE_SECONDS: Final = 2 * HEARTBEAT_SECONDS
UNPUBLISHED_SECONDS: Final = 5.0
"""A row of the outbox that is due is taken within a fraction of a second."""
_KILL_SECONDS: Final = 6.0
"""Of a stream of which nobody noted when it began: its client notices the kill within this time."""
_INJECTED: Final = frozenset(
    {
        "engine_busy",
        "engine_error",
        "engine_timeout",
        "engine_unreachable",
        "diverged",  # a wayward engine, time and again
        "upstream_malformed",
        "upstream_truncated",
        "worker_lost",
    }
)
"""Codes of failures that the kit itself causes; any other one is a fault of the system."""

Check = Callable[[Evidence], Iterator[str]]


def nothing_accepted_is_lost(seen: Evidence) -> Iterator[str]:
    """I1. Who was given an id finds its request, ended, and was told so."""
    for visit in seen.visits:
        if visit.request is None:
            continue
        stored = seen.requests.get(visit.request)
        if stored is None:
            yield f"request {visit.request} was accepted and is not stored"
        elif visit.state is None and not visit.left:
            yield f"request {visit.request}: its client never learnt how it ended"
    for request in seen.requests.values():
        if request.state not in REQUEST_TERMINAL:
            yield f"request {request.id} is still {request.state}"
        if request.state == "expired":
            yield f"request {request.id} was not answered within its time"
        if request.state == "failed" and request.error not in _INJECTED:
            yield f"request {request.id} failed with {request.error}, which nobody injected"
    for death in seen.deaths:
        yield f"a process died by itself: {death}"


def applied_exactly_once(seen: Evidence) -> Iterator[str]:
    """I2. A subtask succeeds once, by one result; a key names one request."""
    successes = Counter(
        move.id for move in seen.moves if move.kind == "subtask" and move.after == "succeeded"
    )
    for subtask, times in successes.items():
        if times > 1:
            yield f"subtask {subtask} succeeded {times} times"
    if not seen.final:
        return
    applied = Counter(e.subtask for e in seen.executions if e.applied and e.outcome == "completed")
    for one in seen.subtasks.values():
        wanted = int(one.state == "succeeded")
        if applied[one.id] != wanted:
            yield f"subtask {one.id} is {one.state} and has {applied[one.id]} applied results"
    yield from _one_request_for_each_key(seen)


def _one_request_for_each_key(seen: Evidence) -> Iterator[str]:
    by_key: dict[str, set[str]] = defaultdict(set)
    for visit in seen.visits:
        stored = seen.requests.get(visit.request or "")
        # A cancelled request gives its name back: its client went away.
        if visit.key and stored and stored.state != "cancelled":
            by_key[visit.key].add(stored.id)
    for key, requests in by_key.items():
        if len(requests) > 1:
            yield f"the Idempotency-Key {key!r} stands for {sorted(requests)}"


def one_terminal_event(seen: Evidence) -> Iterator[str]:
    """I3. A stream has one terminal event, unless its client left or its master was killed."""
    for visit in seen.visits:
        for stream in visit.streams:
            if (wrong := _wrong_end(stream, seen)) is not None:
                yield f"{visit.errand} {visit.request}: {wrong}"


def _wrong_end(stream: StreamSeen, seen: Evidence) -> str | None:
    if len(stream.terminals) > 1 or (stream.done or 0) > 1:
        return f"more than one terminal event: {stream.terminals}, {stream.done} times [DONE]"
    if stream.closing is Closing.CLEAN:
        if not stream.terminals:
            return "the stream ended without a terminal event"
        if stream.done == 0:
            return "the stream ended without [DONE]"
    if stream.closing is Closing.CUT and not _was_killed(stream, seen):
        return f"the stream was cut by {stream.url}, which nobody had killed: {stream.reason}"
    if stream.closing is None and seen.final:
        return "the stream never ended"
    return None


def _was_killed(stream: StreamSeen, seen: Evidence) -> bool:
    """Whether its master was killed while it was open, however late its client noticed."""
    since = stream.closed_at - _KILL_SECONDS if stream.asked_at is None else stream.asked_at
    return any(
        url == stream.url and since <= at <= stream.closed_at + 1.0 for url, at in seen.killed
    )


def tokens_are_the_result(seen: Evidence) -> Iterator[str]:
    """I4. What clients read is what is stored, and that is what the engine said."""
    regenerated = _regenerated(seen)
    for visit in seen.visits:
        stored = seen.requests.get(visit.request or "")
        if diverged(visit, stored) and visit.request in regenerated:
            yield from _beginning(visit)
        else:
            yield from _visit_text(visit, stored)
    parts: dict[str, dict[str, Subtask]] = defaultdict(dict)
    for subtask in seen.subtasks.values():
        parts[subtask.request][subtask.step] = subtask
        if subtask.state == "succeeded" and (bad := texts.flaw(subtask.prompt, subtask.text or "")):
            yield f"subtask {subtask.id}: the text is not the engine's: {bad}"
    for request in seen.requests.values():
        if (bad := _wrong_answer(request, parts[request.id])) is not None:
            yield f"request {request.id}: {bad}"


def diverged(visit: Visit, stored: Request | None) -> bool:
    """Whether a wayward engine contradicted what this client had seen.

    A known limit, counted and not a violation: when an engine says something else the second time,
    only the replica that streams knows what was shown. If that one dies before it has noted it, the
    client has the beginning of one answer and the database another; its stream ends with an error.
    """
    wayward = texts.WAYWARD in visit.prompt
    return wayward and bool(stored and stored.answer and not stored.answer.startswith(visit.text))


def _regenerated(seen: Evidence) -> set[str]:
    """Requests of which a subtask was executed more than once."""
    executions: dict[str, set[str | None]] = defaultdict(set)
    for move in seen.moves:
        if move.kind == "subtask" and move.execution is not None:
            executions[move.id].add(move.execution)
    return {
        row.request
        for row in seen.subtasks.values()
        if row.attempt > 1 or len(executions[row.id]) > 1
    }


def _beginning(visit: Visit) -> Iterator[str]:
    for odd in visit.odd:
        yield f"{visit.errand} {visit.request}: {odd}"
    if bad := texts.flaw(visit.prompt, visit.text, whole=False):
        yield f"{visit.errand} {visit.request}: the client's text is wrong: {bad}"


def _visit_text(visit: Visit, stored: Request | None) -> Iterator[str]:
    for odd in visit.odd:
        yield f"{visit.errand} {visit.request}: {odd}"
    if visit.errand is not Errand.SPLIT and visit.text:
        whole = visit.state == "completed"
        if bad := texts.flaw(visit.prompt, visit.text, whole=whole):
            yield f"{visit.errand} {visit.request}: the client's text is wrong: {bad}"
    if stored is None or stored.answer is None:
        return
    if visit.state == "completed" and visit.text != stored.answer:
        yield f"{visit.errand} {visit.request}: the client's text is not the stored answer"
    if not stored.answer.startswith(visit.text):
        yield f"{visit.errand} {visit.request}: text was shown that the answer does not begin with"


def _wrong_answer(request: Request, parts: Mapping[str, Subtask]) -> str | None:
    if request.state != "completed" or any(p.state != "succeeded" for p in parts.values()):
        return None  # a part that failed is named in the answer instead
    by_step = {step: part.text or "" for step, part in parts.items()}
    if request.sections is None:
        [expected] = by_step.values()
    else:
        expected = texts.joined([(title, by_step[step]) for step, title in request.sections])
    return None if request.answer == expected else "the answer is not made of its parts"


def no_tokens_of_an_older_attempt(seen: Evidence) -> Iterator[str]:
    """I5. Once a later call has spoken, an earlier one is not heard; attempts only go up."""
    for visit in seen.visits:
        if word := texts.older_call_after_newer(visit.text):
            yield f"{visit.errand} {visit.request}: {word!r} came after a later call's words"
    for subtask, moves in _by_row(seen.moves, "subtask").items():
        for one, other in pairwise(moves):
            if (one.attempt or 0) > (other.attempt or 0):
                yield f"subtask {subtask} went from attempt {one.attempt} to {other.attempt}"


def no_expired_lease_stays(seen: Evidence) -> Iterator[str]:
    """I6. A subtask whose worker fell silent is taken away from it."""
    for lease in seen.overdue:
        if min(lease.seconds, seen.calm_seconds) > OVERDUE_SECONDS:
            yield f"subtask {lease.subtask} runs with a lease that is over"


def outbox_is_published(seen: Evidence) -> Iterator[str]:
    """I7. What is to be published is published, or its request has ended."""
    for row in seen.unpublished:
        if row.request_state in REQUEST_TERMINAL:
            if row.has_row and seen.final:
                yield f"subtask {row.subtask} has an outbox row, and its request has ended"
        elif seen.final or min(row.late_seconds, seen.calm_seconds) > UNPUBLISHED_SECONDS:
            what = "is not published" if row.has_row else "is ready without an outbox row"
            yield f"subtask {row.subtask} {what}"


def dead_letters_are_accounted_for(seen: Evidence) -> Iterator[str]:
    """I8. No open work lies in `dead`, dead rows say why, and nothing of ours was unreadable."""
    for letter in seen.letters:
        row = seen.subtasks.get(letter.subtask or "")
        if row is None:
            yield "a message in `dead` belongs to no subtask"
        elif row.state not in SUBTASK_TERMINAL:
            yield f"subtask {row.id} is {row.state} and its message is in `dead`"
    for row in seen.subtasks.values():
        if row.state == "dead" and row.error is None:
            yield f"subtask {row.id} is dead and nobody says why"
    if seen.quarantined:
        yield f"{seen.quarantined} messages of our own were put aside as unreadable"


def tenants_are_apart(seen: Evidence) -> Iterator[str]:
    """I9. Whatever another tenant asks for does not exist."""
    for glance in seen.glances:
        if glance.owner and glance.status != 200:
            yield f"the owner got {glance.status} for {glance.path}, so the others prove nothing"
        if not glance.owner and glance.status != 404:
            yield f"another tenant got {glance.status} for {glance.path}"


def queues_drain(seen: Evidence) -> Iterator[str]:
    """I10. In the end queues are empty and every process consumes."""
    for queue in seen.queues:
        if queue.messages:
            yield f"{queue.messages} messages stay in {queue.name}"
        if queue.wanted_consumers not in {None, queue.consumers}:
            yield f"{queue.name} has {queue.consumers} consumers, not {queue.wanted_consumers}"


def memory_is_bounded(seen: Evidence) -> Iterator[str]:
    """I11. A master does not grow without end."""
    for master in seen.memory:
        if master.most - master.first > MEMORY_MARGIN_BYTES:
            grown = (master.most - master.first) // 2**20
            yield f"{master.process} grew by {grown} MiB"


def ends_are_final(seen: Evidence) -> Iterator[str]:
    """I12. A terminal state never changes, in the tables and for those who were told it."""
    for move in seen.moves:
        ends = REQUEST_TERMINAL if move.kind == "request" else SUBTASK_TERMINAL
        if move.before in ends:
            yield f"{move.kind} {move.id} went from {move.before} to {move.after}"
    for visit in seen.visits:
        for before, after in pairwise(visit.polled):
            if before not in {"queued", "in_progress"}:
                yield f"request {visit.request} was {before}, then {after}"
        stored = seen.requests.get(visit.request or "")
        if diverged(visit, stored):
            continue  # it was told so; the request has its answer
        if stored and visit.state and visit.state != stored.state:
            yield f"request {stored.id} is {stored.state}; its client was told {visit.state}"


def _by_row(moves: list[Move], kind: str) -> dict[str, list[Move]]:
    found: dict[str, list[Move]] = defaultdict(list)
    for move in moves:
        if move.kind == kind:
            found[move.id].append(move)
    return found


@dataclass(frozen=True)
class Invariant:
    """What must hold, and how to see whether it does."""

    says: str
    check: Check
    during: bool = False
    """Whether it is checked after each fault too; all are checked at the end."""


INVARIANTS: Final[Mapping[str, Invariant]] = {
    "I1": Invariant("no accepted request is lost", nothing_accepted_is_lost),
    "I2": Invariant("each result is applied exactly once", applied_exactly_once, during=True),
    "I3": Invariant("each stream has one terminal event", one_terminal_event, during=True),
    "I4": Invariant("tokens shown are the stored result", tokens_are_the_result),
    "I5": Invariant("no tokens of an older attempt", no_tokens_of_an_older_attempt, during=True),
    "I6": Invariant("no expired lease stays", no_expired_lease_stays, during=True),
    "I7": Invariant("every outbox row is published", outbox_is_published, during=True),
    "I8": Invariant("dead letters are accounted for", dead_letters_are_accounted_for),
    "I9": Invariant("no row is visible to another tenant", tenants_are_apart),
    "I10": Invariant("queues drain, all consume", queues_drain),
    "I11": Invariant("memory of masters is bounded", memory_is_bounded, during=True),
    "I12": Invariant("terminal states never change", ends_are_final, during=True),
}


def violations(seen: Evidence) -> dict[str, list[str]]:
    """What is violated, by invariant. A look during the run checks what it can."""
    return {
        name: list(invariant.check(seen))
        for name, invariant in INVARIANTS.items()
        if seen.final or invariant.during
    }
