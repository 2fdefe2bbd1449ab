"""Queries of panels and rules: every metric and label is in the code, and promtool reads them."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from master.embedder.metrics import Answer, Call
from master.fleet import Dependency
from master.metrics.loops import Loop
from master.metrics.searches import Found
from queue_schemas.messages import ErrorKind
from queue_schemas.states import DocumentState, RequestState, RuleState, SubtaskState
from tests.prometheus import program
from tests.unit.monitoring.known_metrics import FOREIGN, OF_SCRAPING, ours
from tests.unit.monitoring.promql import Matcher, named
from tests.unit.monitoring.rules import FILES, FOLDER, REPOSITORY, rules


class Query(NamedTuple):
    """An expression, and where it stands."""

    where: str
    expr: str
    legend: str = ""


def of_panels() -> Iterator[Query]:
    for path in sorted((FOLDER / "dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text("utf-8"))
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                where = f"{path.stem}: {panel['title']}"
                yield Query(where, target["expr"], target["legendFormat"])
        for each in dashboard["annotations"]["list"]:
            yield Query(f"{path.stem}: annotations", each["target"]["expr"])
        for each in dashboard["templating"]["list"]:
            if found := re.fullmatch(r"label_values\((\w+), (\w+)\)", each.get("definition", "")):
                yield Query(f"{path.stem}: {each['name']}", f"count by ({found[2]}) ({found[1]})")


def of_rules() -> Iterator[Query]:
    for rule in rules():
        yield Query(rule.get("alert") or rule["record"], rule["expr"])


QUERIES = [*of_panels(), *of_rules()]
RECORDED = {rule["record"]: named(rule["expr"]).grouped_by for rule in rules() if "record" in rule}
VALUES: Mapping[tuple[str, str], type[StrEnum]] = {
    ("millrace_subtasks", "state"): SubtaskState,
    ("millrace_subtask_endings_total", "state"): SubtaskState,
    ("millrace_request_endings_total", "state"): RequestState,
    ("millrace_documents", "state"): DocumentState,
    ("millrace_rules", "state"): RuleState,
    ("millrace_dependency_up", "dependency"): Dependency,
    ("millrace_loop_failures_total", "loop"): Loop,
    ("millrace_searches_total", "outcome"): Found,
    ("millrace_worker_engine_failures_total", "kind"): ErrorKind,
    ("millrace_embedder_requests_total", "outcome"): Answer,
    ("millrace_embedder_requests_total", "call"): Call,
}
"""What a label may say, where the code has a list of it."""
WORDS: Mapping[tuple[str, str], set[str]] = {
    ("millrace_model_workers", "state"): {"live", "draining"},
    ("millrace_queue_messages", "state"): {"ready", "unacked"},
    ("millrace_database_connections", "state"): {"busy", "free"},
    ("millrace_results_total", "outcome"): {"completed", "failed", "late", "cancelled"},
    ("millrace_tokens_total", "kind"): {"prompt", "completion"},
    ("millrace_worker_tokens_total", "kind"): {"prompt", "completion"},
    ("millrace_ingests_total", "outcome"): {"ready", "failed", "again", "not_ours"},
    ("millrace_celery_tasks_total", "outcome"): {"succeeded", "failed"},
    ("millrace_judgements_total", "verdict"): {"good", "mixed", "bad", "none"},
    ("millrace_cache_total", "found"): {"yes", "no"},
    ("ALERTS", "alertstate"): {"firing", "pending"},
    ("keda_scaler_metrics_value", "namespace"): {"millrace"},
    ("keda_scaler_active", "namespace"): {"millrace"},
    ("keda_scaler_detail_errors_total", "namespace"): {"millrace"},
}
"""The same where it has none; docs/metrics.md lists them."""


@pytest.fixture(scope="module")
def known() -> dict[str, frozenset[str]]:
    """Labels by metric."""
    return {**ours(), **FOREIGN, **RECORDED}


def test_every_metric_is_in_the_code_or_is_known_of_others(
    known: Mapping[str, frozenset[str]],
) -> None:
    unknown = {
        f"{query.where}: {metric}"
        for query in QUERIES
        for metric in named(query.expr).metrics - known.keys()
    }
    assert unknown == set()


def test_every_label_is_one_of_its_metric(known: Mapping[str, frozenset[str]]) -> None:
    wrong = set()
    for query in QUERIES:
        found = named(query.expr)
        wrong |= {
            f"{query.where}: {each.metric} has no {each.label}"
            for each in found.matchers
            if each.label not in known[each.metric] | OF_SCRAPING
        }
        there = OF_SCRAPING.union(*(known[metric] for metric in found.metrics))
        wrong |= {f"{query.where}: nothing has {each}" for each in found.grouped_by - there}
    assert wrong == set()


def test_values_that_are_asked_for_by_name_are_said_by_the_code() -> None:
    for query in QUERIES:
        for each in named(query.expr).matchers:
            if each.values and each.label not in OF_SCRAPING:
                assert each.values <= _values(each), query.where


def _values(matcher: Matcher) -> set[str]:
    key = matcher.metric, matcher.label
    return {str(value) for value in VALUES[key]} if key in VALUES else WORDS[key]


def test_a_legend_names_labels_that_the_series_have() -> None:
    for query in of_panels():
        used = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
        assert used <= named(query.expr).grouped_by | {"le", "instance"}, query.where


def test_every_metric_of_ours_is_shown_or_watched() -> None:
    """What nobody looks at is not worth its counting; sums and counts belong to histograms."""
    shown = {metric for query in QUERIES for metric in named(query.expr).metrics}
    unseen = {name for name in ours() if not name.endswith(("_sum", "_count", "_created"))} - shown
    assert unseen == set()


def test_a_quantile_of_nothing_is_nothing_and_not_nan() -> None:
    asked = [query for query in of_panels() if "histogram_quantile" in query.expr]
    assert asked
    assert [query.where for query in asked if not query.expr.endswith(" >= 0")] == []


def test_the_dashboard_and_the_alert_mean_the_same_by_a_failure() -> None:
    [recorded] = [each.expr for each in of_rules() if each.where.endswith("failed_share10m")]
    [shown] = [each.expr for each in of_panels() if each.where.endswith("Failed, of 10 minutes")]
    assert shown.split() == recorded.split()


def test_promtool_reads_all_expressions_and_rules(tmp_path: Path) -> None:
    variables = {"$__rate_interval": "5m", "$model": ".*", "$strategy": ".*"}
    recorded = []
    for number, query in enumerate(of_panels()):
        expr = query.expr
        for variable, value in variables.items():
            expr = expr.replace(variable, value)
        recorded.append({"record": f"panel:{number}", "expr": expr})
    wrapped = tmp_path / "panels.yml"
    wrapped.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    command = [
        program("promtool"),
        "check",
        "rules",
        "--lint-fatal",
        str(wrapped),
        *map(str, FILES),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(recorded)} rules found" in done.stdout


def test_promtool_reads_the_configurations_which_find_the_rules() -> None:
    configurations = [FOLDER / "prometheus.yml", REPOSITORY / "compose" / "prometheus.yml"]
    command = [program("promtool"), "check", "config", "--syntax-only", *map(str, configurations)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for file in configurations:
        told = yaml.safe_load(file.read_text("utf-8"))
        assert told["rule_files"] == ["/etc/millrace/rules/*.yml"]
        jobs = {job["job_name"] for job in told["scrape_configs"]}
        assert {"millrace-master", "millrace-worker", "millrace-celery"} < jobs
        assert {"millrace-embedder", "rabbitmq", "rabbitmq-queues"} < jobs


def test_an_expression_is_taken_apart() -> None:
    found = named(
        'sum by (le, model) (rate(a_bucket{model=~"$m", state="x|y"}[5m])) / on (model) b:c > 1e3 '
        "unless bool d offset 5m"
    )
    assert found.metrics == {"a_bucket", "b:c", "d"}
    assert found.grouped_by == {"le", "model"}
    assert [each.values for each in found.matchers] == [set(), {"x", "y"}]
