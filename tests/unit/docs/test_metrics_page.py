"""docs/metrics.md has every metric of the code, and says what it tells."""

from collections import Counter

from scripts import metrics_page


def test_the_tables_are_those_of_the_code() -> None:
    page = metrics_page.PAGE.read_text("utf-8")
    assert metrics_page.filled(page) == page, "run `make schemas`"


def test_every_metric_keeps_to_the_rules_of_names() -> None:
    rows = [row for found in metrics_page.rows().values() for row in found]
    for row in rows:
        assert row.name.startswith("millrace_"), row.name
        assert row.name.endswith("_total") is (row.kind == "counter"), row.name
        assert row.text.endswith("."), row.name
        assert not {"tenant", "user", "request", "conversation", "collection"} & {*row.labels}
        if row.kind == "histogram":
            assert row.name.endswith(("_seconds", "_per_second", "_texts")), row.name


def test_what_masters_and_celery_both_do_is_counted_by_both_and_nothing_else_twice() -> None:
    names = Counter(row.name for found in metrics_page.rows().values() for row in found)
    twice = {name for name, count in names.items() if count > 1}
    ingestion = {"millrace_ingests_total", "millrace_ingest_stage_seconds"}
    assert twice == ingestion | {"millrace_loop_failures_total"}


def test_a_prefix_that_names_a_process_is_only_that_processs() -> None:
    for process, rows in metrics_page.rows().items():
        others = {"worker", "celery", "embedder"} - {process}
        for row in rows:
            assert not row.name.startswith(tuple(f"millrace_{name}_" for name in others)), row.name
