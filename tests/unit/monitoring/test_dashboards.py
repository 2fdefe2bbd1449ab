"""Dashboards: made from the table, legible, without overlaps, and about metrics that there are."""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from scripts.dashboards import files, operator_rules
from tests.unit.monitoring.rules import FOLDER

DASHBOARDS = {
    path.stem: json.loads(path.read_text("utf-8")) for path in (FOLDER / "dashboards").glob("*")
}
every = pytest.mark.parametrize("name", sorted(files.ALL))
UNITS = {"short", "s", "ops", "reqps", "percentunit"}
WITHOUT_PLUGINS = {"timeseries", "stat", "heatmap", "table"}


def panels(name: str) -> list[dict[str, Any]]:
    return [each for each in DASHBOARDS[name]["panels"] if each["type"] != "row"]


def squares(panel: dict[str, Any]) -> Iterator[tuple[int, int]]:
    place = panel["gridPos"]
    yield from itertools.product(
        range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
    )


def test_the_files_are_what_the_table_makes() -> None:
    found = {path.name: path.read_text("utf-8") for path in (FOLDER / "dashboards").iterdir()}
    assert found == files.texts(), "run: make schemas"


def test_the_operator_gets_the_same_rules() -> None:
    assert operator_rules.FILE.read_text("utf-8") == operator_rules.text(), "run: make schemas"


def test_each_has_its_own_address_and_title() -> None:
    assert len({each["uid"] for each in DASHBOARDS.values()}) == len(DASHBOARDS)
    assert len({each["title"] for each in DASHBOARDS.values()}) == len(DASHBOARDS)
    for each in DASHBOARDS.values():
        assert re.fullmatch(r"[a-z-]{1,40}", each["uid"])
        assert each["id"] is None
        assert each["description"].endswith(".")


@every
def test_panels_lie_within_the_grid_and_beside_each_other(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARDS[name]["panels"]:
        for square in squares(panel):
            assert 0 <= square[0] < 24, panel["title"]
            assert square not in taken, f"{panel['title']} lies on {taken.get(square)}"
            taken[square] = panel["title"]


@every
def test_ids_titles_and_letters_of_queries_are_unique(name: str) -> None:
    ids = [panel["id"] for panel in DASHBOARDS[name]["panels"]]
    assert len(set(ids)) == len(ids)
    for row in _rows(name):
        titles = [panel["title"] for panel in row]
        assert len(set(titles)) == len(titles)
    for panel in panels(name):
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)


def _rows(name: str) -> Iterator[list[dict[str, Any]]]:
    row: list[dict[str, Any]] = []
    for panel in DASHBOARDS[name]["panels"]:
        if panel["type"] == "row":
            yield row
            row = []
        else:
            row.append(panel)
    yield row


@every
def test_a_panel_says_what_it_shows_and_in_which_unit(name: str) -> None:
    assert panels(name)
    for panel in panels(name):
        assert panel["title"]
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["type"] in WITHOUT_PLUGINS, panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        values = [step["value"] for step in steps]
        assert values[0] is None
        assert values[1:] == sorted(values[1:]), panel["title"]


@every
def test_everything_asks_the_data_source_that_is_chosen(name: str) -> None:
    dashboard = DASHBOARDS[name]
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    assert variables["datasource"]["query"] == "prometheus"
    asked = [panel["datasource"] for panel in panels(name)]
    asked += [target["datasource"] for panel in panels(name) for target in panel["targets"]]
    asked += [each["datasource"] for each in variables.values() if each["type"] == "query"]
    assert {each["uid"] for each in asked} == {"${datasource}"}
    used = set(re.findall(r'"\$(\w+)"', " ".join(_expressions(name))))
    assert used == variables.keys() - {"datasource"}


def _expressions(name: str) -> Iterator[str]:
    yield from (target["expr"] for panel in panels(name) for target in panel["targets"])


def test_kubernetes_and_compose_give_all_of_them_to_grafana() -> None:
    text = (FOLDER / "kustomization.yaml").read_text("utf-8")
    made = {each["name"]: each["files"] for each in yaml.safe_load(text)["configMapGenerator"]}
    assert set(made["grafana-dashboards"]) == {f"dashboards/{name}.json" for name in DASHBOARDS}
    rules = {f"rules/{path.name}" for path in (FOLDER / "rules").iterdir()}
    assert set(made["prometheus-rules"]) == rules
