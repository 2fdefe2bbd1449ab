"""Whatever happens in whatever order: every subtask one result, every request one end, one bill.

Hypothesis submits requests to two replicas and then acts as broker, workers, clients and clock:
it delivers, repeats, loses and delays messages, freezes and kills workers, ends leases, cancels,
lets deadlines pass and does dead requests again. The masters' own functions write on a real
Postgres. After every step the tables are held against what was done, and in the end everything
must come to its end.

That it notices what it is there for is tested too: see `BROKEN`, guards of the SQL that are taken
out one by one. While it was written it found outbox rows of succeeded subtasks, and ready subtasks
without one after an execution that was told to stop.
"""

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from typing import TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.exc import DBAPIError

from bus.memory import MemoryBroker
from db import requests, subtasks, tenants
from db.engine import create_engine
from master.fleet import queues
from master.planning.plan import AggregatorName
from queue_schemas.messages import (
    Completed,
    ErrorKind,
)
from tests.integration.db.acts import (
    Execution,
    Message,
    Site,
    a_plan,
    begin,
    choose,
    execute,
    forgotten,
    heartbeat,
    redrive_twice,
    result,
    store,
    together,
)
from tests.integration.db.books import Books, read
from tests.integration.db.replica import REGISTRY, Note, Replica

T = TypeVar("T")
MAIN_LINE = ("submit", "deliver", "finish", "collect", "break", "collect", "deliver", "finish")
RARELY = st.sampled_from([False, False, False, True])
PICK = st.integers(0, 11)
"""Which of what there is; taken modulo."""
OUTCOMES = (None, None, *ErrorKind, "cancelled")
"""None: it succeeds."""


class Mill(RuleBasedStateMachine):
    """The world around two masters."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        self.touched = True
        self.do(execute(site.engine, "DELETE FROM millrace.requests"))
        for replica in site.replicas:
            replica.notebook.take()
        self.waiting: list[Message] = []
        self.working: list[Execution] = []
        self.notes: list[Note] = []
        """On the queues `workers` and `results`."""
        self.books = Books()
        hello = [heartbeat(f"w-{model.name}", model.name) for model in REGISTRY.chat_models()]
        self.do(site.replicas[0].write(hello))

    def do(self, work: Awaitable[T]) -> T:
        """Have something done that may change the tables."""
        self.touched = True
        return self.site.loop.run_until_complete(work)

    @rule(course=st.lists(st.tuples(st.sampled_from(MAIN_LINE), PICK), min_size=4, max_size=12))
    def go_on(self, course: list[tuple[str, int]]) -> None:
        """Several steps at once: most of what is of interest lies behind a few results."""
        for verb, pick in course:
            if verb == "submit" and len(self.books.requests) < 4:
                self.submit(1 + pick % 4, synthesis=bool(pick % 2))
            elif verb == "deliver" and self.something_waits():
                self.deliver(pick, note_is_lost=False)
            elif verb == "finish" and (self.working or self.something_waits()):
                self.finish(pick, choose(OUTCOMES, pick), tokens=pick, ack_is_lost=False)
            elif verb == "break" and self.holding():
                self.connection_breaks(pick, dies=False)
            elif verb == "collect":
                self.collect([pick] * max(1, pick % 4), at_once=False, dies=False)

    def something_waits(self) -> bool:
        return bool(self.waiting or self.books.tables.outbox)

    # --- clients

    @precondition(lambda self: len(self.books.requests) < 4)
    @rule(parts=st.integers(1, 4), synthesis=st.booleans())
    def submit(self, parts: int, synthesis: bool) -> None:
        made = a_plan(parts, synthesis=synthesis and parts > 1)
        request = self.do(store(self.site, made))
        self.books.requests[request] = made.aggregator is AggregatorName.SYNTHESIS
        self.all_is_right()

    @precondition(lambda self: self.has_calmed())
    @rule(pick=PICK, replica=st.integers(0, 1))
    def cancel(self, pick: int, replica: int) -> None:
        request = choose(list(self.books.requests), pick)
        if self.do(self.site.replicas[replica].cancel(request, self.site.tenant)):
            self.books.stopped.add(request)

    @precondition(lambda self: self.has_calmed())
    @rule(pick=PICK)
    def deadline_passes(self, pick: int) -> None:
        request = choose(list(self.books.requests), pick)
        late = """UPDATE millrace.requests SET created_at = created_at - interval '1 h',
                         deadline_at = deadline_at - interval '1 h' WHERE id = :id"""
        self.do(execute(self.site.engine, late, id=request))
        self.books.late.add(request)
        one, other = self.site.replicas
        self.do(together(one.sweeper.expire_requests(), other.sweeper.expire_requests()))

    @precondition(lambda self: self.books.requests)
    @rule(pick=PICK)
    def redrive(self, pick: int) -> None:
        request = choose(list(self.books.requests), pick)
        first, second = self.do(redrive_twice(self.site.engine, request))
        assert first == second
        if first is not None:
            self.books.requests[first] = self.books.requests[request]

    # --- the broker

    @precondition(lambda self: self.books.tables.outbox)
    @rule(replica=st.integers(0, 1), dies=RARELY)
    def release(self, replica: int, dies: bool) -> None:
        """Publish what is due; a replica that dies has published, and never hears the confirm."""
        self.do(execute(self.site.engine, "UPDATE millrace.outbox SET available_at = now()"))
        master = self.site.replicas[replica]
        self.waiting += [Message(call) for call in self.do(master.release())]
        if dies:
            master.notebook.take()
        self.all_is_right()

    @precondition(lambda self: self.something_waits())
    @rule(pick=PICK, note_is_lost=RARELY)
    def deliver(self, pick: int, note_is_lost: bool) -> None:
        if not self.waiting:
            self.release(pick % 2, dies=False)
        if not self.waiting:
            return
        message = choose(self.waiting, pick)
        self.waiting.remove(message)
        execution = begin(message)
        message.handed_out += 1
        self.working.append(execution)
        self.books.begun.append(execution.started)
        if not note_is_lost:
            self.notes.append(execution.started)

    @precondition(lambda self: self.holding())
    @rule(pick=PICK, dies=st.booleans())
    def connection_breaks(self, pick: int, dies: bool) -> None:
        """The broker hands the message out again. A worker that lives works on, or was frozen."""
        execution = choose(self.holding(), pick)
        execution.holds = False
        self.waiting.append(execution.message)
        if dies:
            self.working.remove(execution)

    @precondition(lambda self: self.waiting)
    @rule(really=RARELY)
    def broker_loses_its_data(self, really: bool) -> None:
        """Or the sweep only thinks so: then there are two messages of one attempt."""
        if really:
            self.waiting.clear()
        self.do(forgotten(self.site.engine))

    # --- workers

    @precondition(lambda self: self.working or self.something_waits())
    @rule(
        pick=PICK,
        outcome=st.sampled_from(OUTCOMES),
        tokens=st.integers(0, 9),
        ack_is_lost=RARELY,
    )
    def finish(
        self, pick: int, outcome: ErrorKind | str | None, tokens: int, ack_is_lost: bool
    ) -> None:
        if not self.working:
            self.deliver(pick, note_is_lost=False)
        if not self.working:
            return
        execution = choose(self.working, pick)
        self.working.remove(execution)
        self.notes.append(result(execution.started, outcome, tokens))
        if execution.holds and ack_is_lost:
            self.waiting.append(execution.message)

    @precondition(lambda self: self.working)
    @rule(pick=PICK)
    def beat(self, pick: int) -> None:
        started = choose(self.working, pick).started
        model = started.worker.removeprefix("w-")
        self.notes.append(heartbeat(started.worker, model, started))

    @precondition(lambda self: self.holding())
    @rule(pick=PICK)
    def is_overtaken(self, pick: int) -> None:
        """A frozen worker's message goes to another one, whose answer is here before its claim."""
        frozen = choose(self.holding(), pick)
        if frozen.started in self.notes:
            self.collect([self.notes.index(frozen.started)], at_once=False, dies=False)
        frozen.holds = False
        other = begin(frozen.message)
        frozen.message.handed_out += 1
        self.books.begun.append(other.started)
        self.notes.append(result(other.started, None, pick))
        self.collect([len(self.notes) - 1], at_once=False, dies=False)

    # --- the masters

    @rule(picks=st.lists(PICK, min_size=1, max_size=4), at_once=st.booleans(), dies=RARELY)
    def collect(self, picks: list[int], at_once: bool, dies: bool) -> None:
        """Each replica takes some messages and writes them together with what it noted itself.

        One that dies before it acknowledges has written all the same; its messages come again.
        """
        if not self.notes and (self.working or self.something_waits()):
            self.finish(picks[0], None, tokens=3, ack_is_lost=False)
        taken = self.take(picks)
        half = len(taken) // 2 if at_once else 0
        writes = [
            replica.write([*replica.notebook.take(), *share])
            for replica, share in zip(self.site.replicas, (taken[half:], taken[:half]), strict=True)
        ]
        answers = [note for note in taken if isinstance(note, Completed)]
        must = [note for note in answers if len(taken) == 1 and self.books.must_count(note)]
        self.do(together(*writes))
        self.books.arrived(taken)
        if dies:
            self.notes += taken
        self.all_is_right()
        for note in must:
            row = self.books.tables.subtasks[note.subtask]
            assert row["execution"] == note.execution, "the latest answer was thrown away"

    @precondition(lambda self: self.running())
    @rule(pick=PICK, replicas=st.sampled_from([(0,), (0, 1)]), picks=st.lists(PICK, max_size=2))
    def lease_ends(self, pick: int, replicas: tuple[int, ...], picks: list[int]) -> None:
        """Sweeps of one or both replicas, while one of them collects something."""
        over = """UPDATE millrace.subtasks SET lease_until = now() - interval '1 s'
                   WHERE id = :id AND state = 'running'"""
        self.do(execute(self.site.engine, over, id=choose(self.running(), pick)))
        taken = self.take(picks)
        sweeps = [self.site.replicas[number].sweeper.rescue_lost() for number in replicas]
        self.do(together(*sweeps, self.site.replicas[0].write(taken)))
        self.books.arrived(taken)

    # --- what must be true

    @invariant()
    def all_is_right(self) -> None:
        if self.touched:
            self.books.check(self.do(read(self.site.engine)))
            self.touched = False

    def teardown(self) -> None:
        """No more faults: everything comes to its end."""
        for execution in self.holding():
            self.waiting.append(execution.message)
        self.working.clear()
        for _ in range(40):
            if not self.round():
                break
        else:
            raise AssertionError("something never ends")
        self.all_is_right()

    def round(self) -> bool:
        """Whether there was anything to do."""
        if self.books.tables.outbox:
            self.release(0, dies=False)
        busy = bool(self.waiting or self.working or self.notes)
        while self.waiting:
            self.deliver(0, note_is_lost=False)
        while self.working:
            self.finish(0, outcome=None, tokens=1, ack_is_lost=False)
        self.collect(list(range(len(self.notes))) or [0], at_once=False, dies=False)
        if busy:
            return True
        over = "UPDATE millrace.subtasks SET lease_until = now() WHERE state = 'running'"
        self.do(execute(self.site.engine, over))
        self.do(self.site.replicas[0].sweeper.rescue_lost())
        self.do(forgotten(self.site.engine))
        self.all_is_right()
        return any(row["finished_at"] is None for row in self.books.tables.requests.values())

    def running(self) -> list[UUID]:
        rows = self.books.tables.subtasks.values()
        return [row["id"] for row in rows if row["state"] == "running"]

    def has_calmed(self) -> bool:
        """Not too many requests are ended early: what then comes is not very interesting."""
        ended = len(self.books.stopped) + len(self.books.late)
        return len(self.books.requests) > ended and len(self.books.begun) >= 3 * ended

    def holding(self) -> list[Execution]:
        return [execution for execution in self.working if execution.holds]

    def take(self, picks: Sequence[int]) -> list[Note]:
        number = min(len(picks), len(self.notes))
        return [self.notes.pop(pick % len(self.notes)) for pick in picks[:number]]


# --- running it ------------------------------------------------------------------------------

SETTINGS = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # a failure is found in seconds and shrunk in many minutes
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def site(migrated_url: str) -> Iterator[Site]:
    """Two replicas on a database of their own, which need not survive a power cut."""
    with asyncio.Runner() as runner:
        made = runner.run(make_site(migrated_url))
        yield made
        runner.run(end_site(made))


async def make_site(url: str) -> Site:
    engine = create_engine(url, pool_size=5)
    broker = MemoryBroker()
    replicas = [Replica(name, engine, broker, url) for name in ("one", "other")]
    await replicas[0].bus.declare(queues(REGISTRY))
    name = engine.url.database
    await execute(engine, f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    async with engine.begin() as connection:
        tenant = await tenants.ensure_tenant(connection, "acme")
    await engine.dispose()  # the setting is for new connections
    return Site(engine, tenant, replicas, asyncio.get_running_loop())


async def end_site(site: Site) -> None:
    for replica in site.replicas:
        await replica.bus.aclose()
    await site.engine.dispose()


@pytest.mark.timeout(300)
def test_whatever_happens_each_subtask_has_one_result_and_each_request_one_end(
    site: Site,
) -> None:
    run_state_machine_as_test(lambda: Mill(site), settings=SETTINGS)


BROKEN = {
    "a result in any state": (subtasks, "_SUCCEED", "s.state IN (", "(true OR s.state IN "),
    "a retry without a message": (subtasks, "_ENQUEUE", "s.id = :subtask", "false"),
    "a cancel that leaves messages": (requests, "_DROP_OUTBOX", "s.request_id = :request", "false"),
    "the holder's result only": (subtasks, "_SUCCEED", "s.delivery < r.delivery", "false"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_guard_that_is_missing_is_noticed(
    site: Site, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    module, name, guard, instead = BROKEN[fault]
    statement = getattr(module, name)
    assert guard in statement.text
    broken = type(statement)(statement.text.replace(guard, instead))
    monkeypatch.setattr(module, name, broken)
    with pytest.raises((AssertionError, DBAPIError)):
        run_state_machine_as_test(lambda: Mill(site), settings=settings(SETTINGS, derandomize=True))
