"""Alerts: each fires when it should and not before, and has its section in the runbook."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.prometheus import program
from tests.unit.monitoring.alert_cases import CASES, Series
from tests.unit.monitoring.rules import FILES, REPOSITORY, alerts

ALERTS = alerts()
RUNBOOK = (REPOSITORY / "docs" / "runbook.md").read_text("utf-8")


@dataclass
class Together:
    """Cases that share no metric, in one run: each run is a database of its own."""

    series: dict[str, str] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)

    def takes(self, series: Series) -> bool:
        return {_metric(each) for each in self.series}.isdisjoint(map(_metric, series))

    def add(self, alert: str, series: Series, minutes: int, *, fires: bool) -> None:
        self.series |= series
        self.asked.append(
            {
                "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})',
                "eval_time": f"{minutes}m",
                "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
            }
        )

    def told(self) -> dict[str, Any]:
        series = [{"series": name, "values": values} for name, values in self.series.items()]
        return {"interval": "1m", "input_series": series, "promql_expr_test": self.asked}


def _metric(series: str) -> str:
    return series.partition("{")[0]


def _tests() -> Iterator[dict[str, Any]]:
    runs: list[Together] = []
    for alert, case in CASES.items():
        quiet = filter(None, (case.is_quiet, case.also_quiet))
        for series, fires in ((case.fires, True), *((each, False) for each in quiet)):
            run = next((each for each in runs if each.takes(series)), Together())
            if not run.asked:
                runs.append(run)
            run.add(alert, series, case.minutes, fires=fires)
    yield from (run.told() for run in runs)


def test_alerts_fire_when_they_should_and_not_before(tmp_path: Path) -> None:
    file = tmp_path / "alerts.yml"
    told = {"rule_files": [str(each) for each in FILES], "tests": list(_tests())}
    file.write_text(yaml.safe_dump(told), "utf-8")
    command = [program("promtool"), "test", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case() -> None:
    assert CASES.keys() == ALERTS.keys()


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_what_it_means_and_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert re.fullmatch(r"Millrace([A-Z][a-z]+)+", name)
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    said = alert["annotations"]
    assert said["summary"].endswith(".")
    assert said["description"].endswith(".")
    assert said["runbook"] == f"docs/runbook.md#{name.lower()}"


def test_the_runbook_has_a_section_for_every_alert_and_for_no_other() -> None:
    sections = re.findall(r"(?m)^### (\w+)$", RUNBOOK)
    assert sorted(sections) == sorted(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_a_section_says_what_it_means_how_to_look_and_what_to_do(name: str) -> None:
    section = RUNBOOK.partition(f"### {name}\n")[2].partition("\n##")[0]
    for part in ("**Means.**", "**Look.**", "**Do.**"):
        assert part in section, name
    waits = re.sub(r"(\d+)m", lambda m: f"for {m[1]} minutes", ALERTS[name].get("for", "at once"))
    waits = waits.replace(" 1 minutes", " 1 minute")
    assert section.splitlines()[1] == f"*{ALERTS[name]['labels']['severity']}, {waits}*", name
