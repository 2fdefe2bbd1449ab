"""Labels stay few, whatever is thrown at them; and what scrapers are given."""

import random
import string
from collections.abc import Iterator
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bus import tracing
from bus.protocol import Depth
from db.census import Census
from db.engine import create_engine
from db.workers import ModelLoad
from master.fleet import FleetView, Look
from master.metrics import chats, learned, registry, searches
from master.metrics.exposition import render
from master.metrics.gauges import Replica
from master.metrics.labels import know, model_label, strategy_label
from queue_schemas.messages import Completed, ErrorKind, Failed, Usage
from queue_schemas.registry import Registry
from queue_schemas.states import RequestState, SubtaskState

HOSTILE = (
    "",
    "millrace/docs-x",
    "rag:millrace/docs-x",
    "a" * 100_000,
    'x"} 1\nmillrace_requests_total{strategy="',
    "\x00\ud800",
    str(uuid4()),
    "Other",
)
REGISTRY = Registry.model_validate({"models": [{"name": "mill", "provider": "scripted"}]})
OTHERS = Registry.model_validate({"models": [{"name": "gone", "provider": "scripted"}]})
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    know(REGISTRY)
    yield
    know(OTHERS)


def series(metric: str) -> int:
    return sum(len(family.samples) for family in registry.collect() if family.name == metric)


def test_what_is_not_registered_is_other() -> None:
    assert model_label("mill") == "mill"
    assert {model_label(name) for name in HOSTILE} == {"other"}
    know(OTHERS)
    assert model_label("mill") == "other", "it left the registry"


def test_a_strategy_is_named_without_what_it_is_applied_to() -> None:
    assert strategy_label("rag:handbook") == strategy_label("rag") == "rag"
    assert strategy_label(None) == "other"
    assert {strategy_label(name) for name in HOSTILE} <= {"other", "rag"}


def test_a_thousand_strange_names_make_no_thousand_series() -> None:
    dice = random.Random(7)
    names = ["".join(dice.choices(string.printable, k=20)) for _ in range(1000)]
    ids = {"request": uuid4(), "subtask": uuid4(), "execution": uuid4()}
    common = {**ids, "attempt": 1, "delivery": 0, "worker": "w", "usage": Usage()}
    failed = Failed(**common, kind=ErrorKind.POISON, code="x", message="x")
    done = Completed(**common, text="x", finish_reason="stop")
    counted = ("millrace_requests", "millrace_subtask_endings", "millrace_retries")
    before = {name: series(name) for name in counted}
    for name in (*HOSTILE, *names):
        chats.count_accepted(name)
        chats.count_ending(name, RequestState.FAILED, 1.0)
        chats.note_first_text(name, 0.1)
        chats.count_start(name, -5.0, 0)
        chats.count_retry(name, chats.RetryReason(failed.kind.value))
        chats.count_result(name, failed, counted=True)
        chats.count_result(name, done, counted=False)
        ending = chats.SubtaskEnding(name, name, SubtaskState.DEAD)
        chats.count_subtask_endings([ending])
    more = {name: series(name) - count for name, count in before.items()}
    assert all(count <= 2 * most for count, most in zip(more.values(), (2, 2, 1), strict=True))
    text = render(registry, "")[0].decode()
    assert max(map(len, text.splitlines())) < 1000


def test_every_error_kind_is_a_reason_for_another_try() -> None:
    assert {kind.value for kind in ErrorKind} <= {reason.value for reason in chats.RetryReason}


def test_what_waits_for_models_that_left_is_added_up() -> None:
    gone = {f"gone-{n}": ModelLoad(ready=2, oldest_seconds=n) for n in range(500)}
    worker = {"model": "gone-1", "slots": 3, "running": 1, "draining": False}
    view = FleetView(
        lambda: REGISTRY,
        window=2,
        loads=gone | {"mill": ModelLoad(delayed=9, queued=5, running=2)},
        workers=[worker, worker | {"model": "mill", "draining": True}],
        depths={"mill": Depth(ready=4, consumers=1), "gone-1": Depth(9, 9)},
        census=Census(dead={"gone-1": 1, "gone-2": 1}, documents={"ready": 7, "odd": 1}),
        fresh_until=dict.fromkeys(Look, float("inf")),
    )
    text = render(Replica(view, 3), "")[0].decode()
    for line in (
        'millrace_backlog_subtasks{model="other"} 1000.0',
        'millrace_backlog_subtasks{model="mill"} 0.0',
        'millrace_oldest_waiting_seconds{model="other"} 499.0',
        'millrace_subtasks{model="mill",state="queued"} 5.0',
        'millrace_subtasks{model="mill",state="delayed"} 9.0',
        'millrace_queue_messages{model="mill",state="ready"} 4.0',
        'millrace_queue_messages{model="mill",state="unacked"} 3.0',
        'millrace_model_workers{model="mill",state="draining"} 1.0',
        'millrace_model_slots{model="mill"} 0.0',
        'millrace_model_slots{model="other"} 3.0',
        'millrace_dead_subtasks{model="other"} 2.0',
        'millrace_documents{state="ready"} 7.0',
        "millrace_open_streams 3.0",
        'millrace_dependency_up{dependency="database"} 0.0',
    ):
        assert line in text.splitlines(), line
    assert "gone-" not in text
    assert 'state="odd"' not in text


def test_what_was_seen_too_long_ago_is_not_shown() -> None:
    view = FleetView(lambda: REGISTRY, window=2, census=Census(), depths={"mill": Depth(4, 1)})
    of_looks = {
        Look.TABLES: ("subtasks", "backlog_subtasks", "model_workers", "outbox_rows"),
        Look.DEPTHS: ("queue_consumers", "quarantined_messages"),
        Look.CENSUS: ("dead_subtasks", "documents", "rules"),
    }
    for fresh in of_looks:
        view.fresh_until = {fresh: float("inf")}
        shown = names_of(Replica(view, 0))
        for look, names in of_looks.items():
            assert (shown & {f"millrace_{name}" for name in names} != set()) is (look is fresh)
        assert "millrace_queue_messages" not in shown, "it is worked out of two looks"
        assert {"millrace_queue_window", "millrace_dependency_up"} <= shown
    view.fresh_until = dict.fromkeys(Look, float("inf"))
    assert "millrace_queue_messages" in names_of(Replica(view, 0))


def names_of(replica: Replica) -> set[str]:
    return {sample.name for metric in replica.gauges() for sample in metric.samples}


def test_connections_are_shown_where_there_is_a_pool() -> None:
    url = "postgresql://nobody@127.0.0.1:%d/millrace"
    pools = {
        "requests": create_engine(url % 5432, pool_size=7).pool,
        "corpus": create_engine(url % 6543).pool,
    }
    view = FleetView(lambda: REGISTRY, window=2)
    text = render(Replica(view, 0, pools), "")[0].decode()
    found = {line for line in text.splitlines() if line.startswith("millrace_database_conn")}
    assert found == {
        'millrace_database_connections{pool="requests",state="busy"} 0.0',
        'millrace_database_connections{pool="requests",state="free"} 7.0',
    }, "another pooler has those of the other"


def test_nothing_is_said_of_what_was_not_counted_yet() -> None:
    text = render(Replica(FleetView(lambda: REGISTRY, window=2), 0), "")[0].decode()
    for name in ("dead_subtasks", "documents", "rules"):
        assert f"millrace_{name}{{" not in text


def test_times_carry_the_trace_in_force_or_that_of_their_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing, "current_trace_id", lambda: "ab" * 16)
    searches.count_search(searches.Found.HITS, {"total": 1.5})
    chats.count_start("mill", 0.7, 0, "cd" * 16)
    chats.count_ending("direct", RequestState.COMPLETED, 70.0, "ef" * 16)
    body, media_type = render(registry, OPEN_METRICS)
    assert media_type.startswith("application/openmetrics-text")
    assert b"_created" not in body
    found = [
        sample.exemplar.labels
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if sample.exemplar
    ]
    assert {each["trace_id"][:2] for each in found} >= {"ab", "cd", "ef"}
    assert b"ab" * 16 not in render(registry, "text/plain")[0]


@pytest.mark.parametrize(
    "accept",
    [f"{OPEN_METRICS[:-5]}x", f"{OPEN_METRICS[:-5]}1.a.0", "application/openmetrics-text;version="],
)
def test_a_strange_version_is_answered_all_the_same(accept: str) -> None:
    own = CollectorRegistry()
    Counter("turns", "Of the wheel.", registry=own).inc()
    body, _ = render(own, accept)
    assert b"turns_total 1.0" in body


@pytest.mark.parametrize(
    ("score", "said"), [(1.0, "good"), (0.5, "mixed"), (0.0, "bad"), (None, "none")]
)
def test_a_score_is_a_verdict(score: float | None, said: str) -> None:
    assert learned.verdict(score) == said
