"""What was done to two masters, and what must therefore stand in their tables."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import dead, usage
from queue_schemas.messages import Completed, ErrorKind, Failed, Started
from queue_schemas.states import REQUEST_TERMINAL, SUBTASK_TERMINAL
from tests.integration.db.replica import MAX_ATTEMPTS, MAX_LOSSES

Row = Mapping[str, Any]
Result = Completed | Failed
Key = tuple[UUID, int, UUID]

_REQUESTS = "SELECT id, state, answer, finish_reason, error, finished_at FROM millrace.requests"
_SUBTASKS = """
    SELECT id, request_id, step, depends_on, state, attempt, losses, execution, delivery, text,
           error, finished_at, coalesce(lease_until < now(), false) AS lease_is_over
      FROM millrace.subtasks ORDER BY created_at, position
"""
_OUTBOX = "SELECT subtask_id, attempt FROM millrace.outbox"
_LEDGER = """
    SELECT subtask_id, attempt, execution, model, outcome, applied, prompt_tokens,
           completion_tokens, engine_seconds FROM millrace.attempts
"""


@dataclass(frozen=True)
class Tables:
    """The tables at one moment."""

    requests: Mapping[UUID, Row] = field(default_factory=dict)
    subtasks: Mapping[UUID, Row] = field(default_factory=dict)
    outbox: Sequence[tuple[UUID, int]] = ()
    ledger: Sequence[Row] = ()
    dead: frozenset[UUID] = frozenset()
    spent: tuple[int, int, int, Decimal] = (0, 0, 0, Decimal(0))


async def read(engine: AsyncEngine) -> Tables:
    """The tables as they are now."""
    async with engine.connect() as connection:

        async def rows(query: str) -> list[Row]:
            return [dict(row) for row in (await connection.execute(text(query))).mappings()]

        bill = await usage.spent(connection, usage.By.TENANT, 3600)
        return Tables(
            {row["id"]: row for row in await rows(_REQUESTS)},
            {row["id"]: row for row in await rows(_SUBTASKS)},
            [(row["subtask_id"], row["attempt"]) for row in await rows(_OUTBOX)],
            await rows(_LEDGER),
            frozenset(row.id for row in await dead.list_dead(connection, settled=True)),
            (
                sum(line.executions for line in bill),
                sum(line.prompt_tokens for line in bill),
                sum(line.completion_tokens for line in bill),
                sum((line.engine_seconds for line in bill), Decimal(0)),
            ),
        )


class Books:
    """What the test did, and the tables as they were last found right."""

    def __init__(self) -> None:
        self.requests: dict[UUID, bool] = {}
        """Whether it ends in a synthesis."""
        self.begun: list[Started] = []
        self.stopped: set[UUID] = set()
        """Requests that a client cancelled in time."""
        self.late: set[UUID] = set()
        """Requests whose deadline has passed."""
        self.results: dict[Key, Result] = {}
        """That were collected, counted or not."""
        self.tables = Tables()

    def arrived(self, notes: Iterable[object]) -> None:
        """These messages were written."""
        for note in notes:
            if isinstance(note, Completed | Failed):
                self.results[note.subtask, note.attempt, note.execution] = note

    def must_count(self, note: Completed) -> bool:
        """Whether this is the answer of the latest delivery of an attempt that is still open."""
        subtask = self.tables.subtasks[note.subtask]
        is_open = subtask["state"] not in SUBTASK_TERMINAL and subtask["attempt"] == note.attempt
        rivals = [
            started
            for started in self.begun
            if (started.subtask, started.attempt) == (note.subtask, note.attempt)
            and started.execution != note.execution
        ]
        return is_open and all(rival.delivery < note.delivery for rival in rivals)

    def check(self, now: Tables) -> None:
        """Hold the tables against what was done, and against what they were."""
        self._nothing_goes_back(now)
        self._results_count_once(now)
        self._outbox_has_what_is_ready(now)
        self._requests_end_with_their_subtasks(now)
        self._the_dead_are_exhausted(now)
        self._all_is_accounted(now)
        self.tables = now

    def _nothing_goes_back(self, now: Tables) -> None:
        for id_, row in self.tables.requests.items():
            assert row["state"] not in REQUEST_TERMINAL or now.requests[id_] == row
        for id_, row in self.tables.subtasks.items():
            assert row["state"] not in SUBTASK_TERMINAL or now.subtasks[id_] == row
            assert now.subtasks[id_]["attempt"] >= row["attempt"]

    def _results_count_once(self, now: Tables) -> None:
        counted = [row for row in now.ledger if row["applied"]]
        attempts = Counter((row["subtask_id"], row["attempt"]) for row in counted)
        assert all(number == 1 for number in attempts.values()), "an attempt ended twice"
        answers = {row["subtask_id"]: row for row in counted if row["outcome"] == "completed"}
        succeeded = {id_: s for id_, s in now.subtasks.items() if s["state"] == "succeeded"}
        assert answers.keys() == succeeded.keys()
        assert len(answers) == sum(row["outcome"] == "completed" for row in counted)
        for id_, row in succeeded.items():
            key = (id_, row["attempt"], row["execution"])
            assert answers[id_]["execution"] == row["execution"]
            assert key in self.results, "a result of another attempt"
            assert row["text"] == self.results[key].text

    def _outbox_has_what_is_ready(self, now: Tables) -> None:
        rows = Counter(now.outbox)
        for id_, row in now.subtasks.items():
            number = rows.pop((id_, row["attempt"]), 0)
            if row["state"] == "ready":
                assert number == 1, f"{number} messages of {id_}, which is {row}"
            elif row["state"] in {"queued", "running"}:
                assert number <= 1, "its confirm is on the way, or the broker lost its message"
            else:
                assert number == 0, f"nobody needs a message of what is {row['state']}"
        assert not rows, "messages of attempts that are over"

    def _requests_end_with_their_subtasks(self, now: Tables) -> None:
        parts: dict[UUID, list[Row]] = {id_: [] for id_ in now.requests}
        for row in now.subtasks.values():
            parts[row["request_id"]].append(row)
        assert now.requests.keys() == self.requests.keys()
        for id_, request in now.requests.items():
            assert (request["state"] == "cancelled") == (id_ in self.stopped)
            assert request["state"] != "expired" or id_ in self.late
            ended = all(row["state"] in SUBTASK_TERMINAL for row in parts[id_])
            assert ended == (request["state"] in REQUEST_TERMINAL)
            if request["state"] in {"completed", "failed"}:
                texts = self._answer(parts[id_], synthesis=self.requests[id_])
                assert (request["state"] == "completed") == bool(texts)
                assert all(part in request["answer"] for part in texts)
            for row in parts[id_]:
                needs = [p["state"] for p in parts[id_] if p["step"] in row["depends_on"]]
                waits = not SUBTASK_TERMINAL.issuperset(needs)
                assert not waits or row["state"] in {"blocked", "cancelled"}
                assert row["state"] != "blocked" or waits

    def _answer(self, parts: Sequence[Row], *, synthesis: bool) -> list[str]:
        """The texts that must be in the answer; none: it has none."""
        texts = [row["text"] for row in parts if row["state"] == "succeeded"]
        if synthesis:
            last = parts[-1]
            if last["state"] == "succeeded" or last["text"]:
                return [last["text"]] if last["state"] == "succeeded" else []
        return texts

    def _the_dead_are_exhausted(self, now: Tables) -> None:
        corpses = {id_: row for id_, row in now.subtasks.items() if row["state"] == "dead"}
        assert now.dead == corpses.keys()
        for row in corpses.values():
            exhausted = row["attempt"] >= MAX_ATTEMPTS or row["losses"] + 1 >= MAX_LOSSES
            assert exhausted or (row["error"]["kind"] == ErrorKind.POISON and row["attempt"] >= 2)
        assert all(row["attempt"] <= MAX_ATTEMPTS for row in now.subtasks.values())

    def _all_is_accounted(self, now: Tables) -> None:
        """Every execution of which a result arrived, whatever became of it, and no other."""
        entries = {
            (row["subtask_id"], row["attempt"], row["execution"]): (
                f"w-{row['model']}",
                row["prompt_tokens"],
                row["completion_tokens"],
                row["engine_seconds"],
            )
            for row in now.ledger
        }
        bills = {key: (result.worker, *_bill(result)) for key, result in self.results.items()}
        assert entries == bills
        prompt, completion, seconds = (
            sum(bill[place] for bill in bills.values()) for place in (1, 2, 3)
        )
        assert now.spent == (len(bills), prompt, completion, Decimal(seconds))


def _bill(result: Result) -> tuple[int, int, float]:
    spent = result.usage
    return spent.prompt_tokens, spent.completion_tokens, spent.engine_seconds
