"""What is known of a run: rows of the database, queues of the broker, records of the clients.

A journal of the tables is kept by triggers, so that no move of a state is missed between two looks.
"""

from dataclasses import dataclass, field
from typing import Any

import asyncpg

from master.planning.plan import AggregatorName, Plan
from millrace.chaos.visits import Visit

JOURNAL = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.moves (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL, id uuid NOT NULL, before text NOT NULL, after text NOT NULL,
    attempt integer, execution uuid, at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE FUNCTION chaos.note_request() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.moves (kind, id, before, after)
    VALUES ('request', OLD.id, OLD.state, CASE TG_OP WHEN 'DELETE' THEN 'gone' ELSE NEW.state END);
    RETURN NULL;
END $$;
CREATE FUNCTION chaos.note_subtask() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO chaos.moves (kind, id, before, after, attempt)
        VALUES ('subtask', OLD.id, OLD.state, 'gone', OLD.attempt);
    ELSE
        INSERT INTO chaos.moves (kind, id, before, after, attempt, execution)
        VALUES ('subtask', OLD.id, OLD.state, NEW.state, NEW.attempt, NEW.execution);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_moves AFTER UPDATE OF state OR DELETE ON millrace.requests
    FOR EACH ROW EXECUTE FUNCTION chaos.note_request();
CREATE TRIGGER chaos_moves AFTER UPDATE OF state OR DELETE ON millrace.subtasks
    FOR EACH ROW EXECUTE FUNCTION chaos.note_subtask();
"""


@dataclass(frozen=True)
class Request:
    """A row of `requests`."""

    id: str
    state: str
    answer: str | None
    error: str | None
    """Its code."""
    key: str | None
    sections: tuple[tuple[str, str], ...] | None
    """Step and title of each part of a split; None where the answer is one text."""


@dataclass(frozen=True)
class Subtask:
    """A row of `subtasks`."""

    id: str
    request: str
    step: str
    state: str
    attempt: int
    losses: int
    text: str | None
    error: str | None
    prompt: str
    """What the engine was asked."""


@dataclass(frozen=True)
class Execution:
    """A row of the ledger."""

    subtask: str
    attempt: int
    execution: str
    outcome: str
    applied: bool


@dataclass(frozen=True)
class Move:
    """A row of the journal."""

    kind: str
    """`request` or `subtask`."""
    id: str
    before: str
    after: str
    attempt: int | None = None
    execution: str | None = None


@dataclass(frozen=True)
class Overdue:
    """A running subtask whose lease is over."""

    subtask: str
    seconds: float


@dataclass(frozen=True)
class Unpublished:
    """A row of the outbox, or a ready subtask that lacks one."""

    subtask: str
    request_state: str
    late_seconds: float
    has_row: bool = True


@dataclass(frozen=True)
class Glance:
    """What another tenant got when it asked for somebody's request, or the owner itself."""

    path: str
    status: int
    owner: bool = False


@dataclass(frozen=True)
class Queue:
    """A queue at the broker; None where the number is of no interest."""

    name: str
    messages: int
    consumers: int
    wanted_consumers: int | None = None


@dataclass(frozen=True)
class Letter:
    """A message in `dead`: the subtask and attempt that it carries, if it carries one."""

    subtask: str | None
    attempt: int = 0


@dataclass(frozen=True)
class Memory:
    """The memory of one master process over its life, in bytes."""

    process: str
    first: int
    most: int


@dataclass
class Evidence:
    """Everything that invariants are checked on; a look during the run fills only a part."""

    requests: dict[str, Request] = field(default_factory=dict)
    subtasks: dict[str, Subtask] = field(default_factory=dict)
    executions: list[Execution] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    overdue: list[Overdue] = field(default_factory=list)
    unpublished: list[Unpublished] = field(default_factory=list)
    glances: list[Glance] = field(default_factory=list)
    queues: list[Queue] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    quarantined: int = 0
    memory: list[Memory] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    killed: list[tuple[str, float]] = field(default_factory=list)
    """URLs of masters that were killed, and when."""
    deaths: list[str] = field(default_factory=list)
    """Processes that ended although nobody had told them to."""
    calm_seconds: float = 0.0
    """How long everything has been in order; what needs time cannot be asked of a storm."""
    final: bool = False
    """Everything has had the time to come to rest."""


_MOVES = """
    SELECT kind, id::text, before, after, attempt, execution::text
      FROM chaos.moves ORDER BY number
"""
_OVERDUE = """
    SELECT id::text, extract(epoch FROM clock_timestamp() - lease_until)::float8
      FROM millrace.subtasks WHERE state = 'running' AND lease_until < clock_timestamp()
"""
_UNPUBLISHED = """
    SELECT s.id::text, q.state,
           extract(epoch FROM clock_timestamp() - coalesce(o.available_at, s.ready_at))::float8,
           o.id IS NOT NULL
      FROM millrace.subtasks s JOIN millrace.requests q ON q.id = s.request_id
      LEFT JOIN millrace.outbox o ON o.subtask_id = s.id
     WHERE o.id IS NOT NULL OR s.state = 'ready'
"""


async def look(connection: asyncpg.Connection, evidence: Evidence) -> None:
    """Add what is quickly read while the load runs."""

    evidence.moves = [Move(*row) for row in await connection.fetch(_MOVES)]
    evidence.overdue = [Overdue(*row) for row in await connection.fetch(_OVERDUE)]
    evidence.unpublished = [Unpublished(*row) for row in await connection.fetch(_UNPUBLISHED)]


async def read_tables(connection: asyncpg.Connection, evidence: Evidence) -> None:
    """Add every request with all that belongs to it."""
    rows = await connection.fetch(
        """SELECT id::text, state, answer, error->>'code' AS error, idempotency_key AS key,
                  plan::text
             FROM millrace.requests"""
    )
    plans = {row["id"]: Plan.model_validate_json(row["plan"]) for row in rows}
    for row in rows:
        columns = {name: value for name, value in row.items() if name != "plan"}
        sections = _sections(plans[row["id"]])
        evidence.requests[row["id"]] = Request(**columns, sections=sections)
    for row in await connection.fetch(
        """SELECT id::text, request_id::text AS request, step, state, attempt, losses, text,
                  error->>'code' AS error
             FROM millrace.subtasks"""
    ):
        prompt = _prompt(plans[row["request"]], row["step"])
        evidence.subtasks[row["id"]] = Subtask(**dict(row), prompt=prompt)
    evidence.executions = [
        Execution(*row)
        for row in await connection.fetch(
            """SELECT subtask_id::text, attempt, execution::text, outcome, applied
                 FROM millrace.attempts"""
        )
    ]


def _sections(plan: Plan) -> tuple[tuple[str, str], ...] | None:
    if plan.aggregator is not AggregatorName.SECTIONS:
        return None
    return tuple((step.key, " ".join(step.title.split())) for step in plan.steps)


def _prompt(plan: Plan, key: str) -> str:
    messages: Any = next(step.messages for step in plan.steps if step.key == key)
    return str(next(m["content"] for m in reversed(messages) if m["role"] == "user"))
