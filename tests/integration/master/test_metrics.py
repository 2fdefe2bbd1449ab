"""What a master counts, and how it shows it."""

import asyncio
from collections import Counter

from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families

from db import census
from millrace.chaos.stack import until
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import Mill, a_script

PARTS = "1. Explain what the wind is\n2. Explain what the weather is"
MILL = a_script(
    text="word " * 20,
    faults=[
        {"kind": "fail", "contains": "once more", "attempts": [1]},
        {"kind": "fail", "contains": "hopeless"},
        {"kind": "hang", "contains": "for ever", "after_tokens": 2},
    ],
)
WAITING = ("ready", "queued")
OPEN_METRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


async def numbers(mill: Mill) -> Counter[str]:
    """Every sample, as `name{label=value,…}`."""
    text = (await mill.http.get("/metrics")).text
    found: Counter[str] = Counter()
    for family in families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value  # type: ignore[assignment]  # floats
    return found


async def cancelled(mill: Mill, *, by_leaving: bool) -> None:
    async with mill.stream("for ever") as answer:
        request = answer.headers["x-millrace-request-id"]
        await mill.until_state(request, "running", seconds=30)
        if not by_leaving:
            await mill.http.delete(f"/v1/requests/{request}")
    await mill.until_state(request, "cancelled", seconds=30)


async def searched(mill: Mill) -> None:
    body = {"text": "The sluice is shut.", "name": "mill.txt", "strategy": "sparse"}
    sent = await mill.http.post("/v1/documents", json=body)
    identity = sent.json()["data"][0]["id"]

    async def ready() -> bool:
        found = (await mill.http.get(f"/v1/documents/{identity}")).json()
        return bool(found["state"] == "ready")

    await until(ready, 60)
    for words in ("sluice", "elephant"):
        found = await mill.http.post("/v1/search", json={"query": words})
        assert found.status_code == 200, found.text
    nowhere = {"query": "sluice", "collection": "millrace-docs-x"}
    assert (await mill.http.post("/v1/search", json=nowhere)).status_code == 404


async def test_what_happens_is_counted_once(make_mill: MakeMill) -> None:
    mill = await make_mill(MILL, a_script("idle"), max_attempts=2, ingest_seconds=0.2)
    before = await numbers(mill)
    split, again, dead = await asyncio.gather(
        mill.streamed(PARTS, "millrace/split"),
        mill.ask("once more"),
        mill.ask("this is hopeless"),
    )
    assert split.text
    assert (again.status_code, dead.status_code) == (200, 502)
    await cancelled(mill, by_leaving=False)
    await cancelled(mill, by_leaving=True)
    await searched(mill)
    said = {"request": split.request, "rating": -1}
    assert (await mill.http.post("/v1/feedback", json=said)).status_code == 201
    await mill.idle(30)
    expected = {
        "millrace_requests_total{strategy=split}": 1,
        "millrace_requests_total{strategy=direct}": 4,
        "millrace_request_endings_total{state=completed,strategy=split}": 1,
        "millrace_request_endings_total{state=completed,strategy=direct}": 1,
        "millrace_request_endings_total{state=failed,strategy=direct}": 1,
        "millrace_request_endings_total{state=cancelled,strategy=direct}": 2,
        "millrace_request_seconds_count{strategy=direct}": 4,
        "millrace_first_text_seconds_count{strategy=split}": 1,
        "millrace_subtask_endings_total{model=mill,state=succeeded,strategy=split}": 2,
        "millrace_subtask_endings_total{model=mill,state=succeeded,strategy=direct}": 1,
        "millrace_subtask_endings_total{model=mill,state=dead,strategy=direct}": 1,
        "millrace_subtask_endings_total{model=mill,state=cancelled,strategy=direct}": 2,
        "millrace_dead_total{model=mill}": 1,
        "millrace_results_total{model=mill,outcome=completed}": 3,
        "millrace_results_total{model=mill,outcome=failed}": 3,
        "millrace_results_total{model=mill,outcome=cancelled}": 2,
        "millrace_stop_seconds_count{model=mill}": 2,
        "millrace_retries_total{model=mill,reason=transient}": 2,
        "millrace_cancels_total{cause=client}": 1,
        "millrace_cancels_total{cause=left}": 1,
        "millrace_ingests_total{outcome=ready}": 1,
        "millrace_ingest_stage_seconds_count{stage=chunk}": 1,
        "millrace_searches_total{outcome=hits}": 1,
        "millrace_searches_total{outcome=nothing}": 1,
        "millrace_searches_total{outcome=refused}": 1,
        "millrace_retrieval_stage_seconds_count{stage=sparse}": 2,
        "millrace_judgements_total{source=api,verdict=bad}": 1,
        "millrace_judgements_total{source=system,verdict=none}": 2,
    }

    async def all_counted() -> bool:
        after = await numbers(mill)
        found = {name: after[name] - before[name] for name in expected}
        return found == expected

    try:
        await until(all_counted, 30)
    except AssertionError:
        after = await numbers(mill)
        assert {name: after[name] - before[name] for name in expected} == expected
    after = await numbers(mill)
    waits = "millrace_queue_seconds_count{model=mill}"
    assert after[waits] - before[waits] >= 5, "two parts, two cancelled ones, an answer"
    assert after["millrace_tokens_total{kind=completion,model=mill}"] > 60
    async with mill.running.engine.connect() as connection:
        # Its own turn may be long in coming on a slow machine: it rests for as long as it took.
        mill.running.view.census = await census.take(connection)
    found = await numbers(mill)
    assert found["millrace_dead_subtasks{model=mill}"] == 1
    assert found["millrace_documents{state=ready}"] == 1


async def test_gauges_say_what_waits_and_who_works(make_mill: MakeMill) -> None:
    one_slot = a_script(tokens=100_000, tokens_per_second=50, entry={"slots": 1, "max_workers": 1})
    mill = await make_mill(one_slot, window=1)
    asking = [asyncio.create_task(mill.ask(f"number {n}", cache=0)) for n in range(3)]
    wanted = {
        "millrace_subtasks{model=mill,state=running}": 1,
        "millrace_subtasks{model=mill,state=blocked}": 0,
        "millrace_queue_messages{model=mill,state=unacked}": 1,
        "millrace_queue_consumers{model=mill}": 1,
        "millrace_queue_window{model=mill}": 1,
        "millrace_model_workers{model=mill,state=live}": 1,
        "millrace_model_workers{model=mill,state=draining}": 0,
        "millrace_model_slots{model=mill}": 1,
        "millrace_model_slots_busy{model=mill}": 1,
        "millrace_open_streams{}": 3,
        "millrace_dependency_up{dependency=broker}": 1,
        "millrace_dependency_up{dependency=database}": 1,
        "millrace_quarantined_messages{}": 0,
        "millrace_database_connections{pool=corpus,state=busy}": 0,
    }

    async def as_wanted() -> bool:
        found = await numbers(mill)
        ready, queued = (found[f"millrace_subtasks{{model=mill,state={s}}}"] for s in WAITING)
        return (
            {name: found[name] for name in wanted} == wanted
            and ready + queued == 2
            and found["millrace_backlog_subtasks{model=mill}"] == ready
            and found["millrace_queue_messages{model=mill,state=ready}"] == queued
            and found["millrace_oldest_waiting_seconds{model=mill}"] > 0
        )

    try:
        await until(as_wanted, 30)
    except AssertionError:
        found = await numbers(mill)
        assert {name: found[name] for name in wanted} == wanted
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_every_scraper_gets_something(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())
    for accept in ("", "text/html", "application/openmetrics-text;version=x", "/" * 5000, ";=,;"):
        answer = await mill.http.get("/metrics", headers={"Accept": accept})
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "millrace_build_info" in answer.text
    said = await mill.http.get("/metrics", headers={"Accept": OPEN_METRICS})
    assert said.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert any(family.name == "millrace_requests" for family in open_families(said.text))
