"""Copies of real requests: as many as were wanted, and each of them can be shown."""

from bench import console_examples, console_filling
from tests.integration.master.mill import installation

MODELS = ("mill", "other")
COPIES = 60


async def test_copies_of_requests_are_shown_as_the_requests_are(migrated_url: str) -> None:
    models = [{"name": name, "slots": 8, **console_examples.script()} for name in MODELS]
    async with installation(migrated_url, *models) as mill:
        examples = await console_examples.ask(mill.http, "mill")
        await console_filling.fill(migrated_url, examples, COPIES, model="mill", models=MODELS)
        rows = await mill.rows("SELECT id, state FROM millrace.requests WHERE end_user <> ''")
        assert len(rows) == COPIES
        assert {row.state for row in rows} == {"completed", "failed", "cancelled"}
        records = [await mill.record(row.id) for row in rows]
        originals = {(await mill.record(str(id_)))["strategy"] for id_ in examples}
        ages = await mill.rows("SELECT max(now() - created_at) AS oldest FROM millrace.requests")
    assert {record["strategy"] for record in records} == originals
    used = {subtask["model"] for record in records for subtask in record["subtasks"]}
    assert used == set(MODELS)
    for record in records:
        assert record["created_at"] <= record["finished_at"]
        assert len(record["subtasks"]) == len(record["plan"]["steps"])
        answered = [one for one in record["subtasks"] if one["state"] == "succeeded"]
        assert all(one["attempts"] and one["completion_tokens"] > 0 for one in answered)
    assert 1 < ages[0].oldest.days <= console_filling.DAYS
