"""Metrics of a Celery worker."""

import pytest

from master.batch import metrics


@pytest.mark.parametrize("task", ["ingest", "sweep", "learn"])
@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_what_never_happened_is_shown_as_0(task: str, outcome: str) -> None:
    values = {
        (sample.labels["task"], sample.labels["outcome"]): sample.value
        for family in metrics.tasks_total.collect()
        for sample in family.samples
        if sample.name == "millrace_celery_tasks_total"
    }
    assert values[task, outcome] == 0.0
