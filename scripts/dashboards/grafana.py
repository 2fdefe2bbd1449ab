"""Grafana's JSON of a dashboard: panels flow over its grid, row by row.

A panel says what it shows and how wide it is; places, ids, colours and legends are made here, so
that all dashboards look alike. The JSON is that of Grafana 12 and 13 without any plugin.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from scripts.dashboards.panels import Dashboard, Kind, Panel, Query, Row, Variable

SCHEMA_VERSION: Final = 41
COLUMNS: Final = 24
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_HEIGHTS: Final[Mapping[str, int]] = {"stat": 4}


def made(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    return {
        "id": None,
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["millrace"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "fiscalYearStartMonth": 0,
        "links": [_to_the_others()],
        "annotations": {"list": [_alerts_in_the_background()]},
        "templating": {"list": [_datasource(), *map(_variable, dashboard.variables)]},
        "panels": list(_placed(dashboard.rows)),
    }


def _placed(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Panels from left to right, as many in a line as fit; every row begins a new line."""
    number, y = 0, 0
    for row in rows:
        number += 1
        yield _row(number, row.title, y)
        x, y, tallest = 0, y + 1, 0
        for each in row.panels:
            height = _HEIGHTS.get(each.kind, 8)
            if x + each.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            yield _panel(number, each, {"x": x, "y": y, "w": each.width, "h": height})
            x, tallest = x + each.width, max(tallest, height)
        y += tallest


def _row(number: int, title: str, y: int) -> dict[str, Any]:
    place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
    return {
        "id": number,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": place,
        "panels": [],
    }


def _panel(number: int, each: Panel, place: Mapping[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": each.kind,
        "title": each.title,
        "description": each.about,
        "gridPos": dict(place),
        "datasource": _SOURCE,
        "targets": [_target(at, query, each) for at, query in enumerate(each.queries)],
        "fieldConfig": {"defaults": _defaults(each), "overrides": []},
        "options": _options(each.kind),
    }


def _target(at: int, query: Query, each: Panel) -> dict[str, Any]:
    now = each.kind in {"stat", "table"}
    forms = {"heatmap": "heatmap", "table": "table"}
    return {
        "refId": chr(ord("A") + at),
        "datasource": _SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend,
        "editorMode": "code",
        "instant": now,
        "range": not now,
        "exemplar": each.exemplars,
        "format": forms.get(each.kind, "time_series"),
    }


def _defaults(each: Panel) -> dict[str, Any]:
    steps = [{"value": None, "color": "green"}]
    steps += [{"value": value, "color": color} for value, color in each.steps]
    by_steps = each.kind == "stat"
    found: dict[str, Any] = {
        "unit": each.unit,
        "color": {"mode": "thresholds" if by_steps else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "mappings": [],
    }
    if by_steps:
        found["noValue"] = "none"
    if each.kind == "timeseries":
        found |= {"min": 0, "custom": _lines(each)}
    return found


def _lines(each: Panel) -> dict[str, Any]:
    return {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 25 if each.stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "axisLabel": "",
        "stacking": {"group": "A", "mode": "normal" if each.stacked else "none"},
        "thresholdsStyle": {"mode": "dashed" if each.steps else "off"},
    }


def _options(kind: Kind) -> dict[str, Any]:
    match kind:
        case "timeseries":
            legend = {
                "showLegend": True,
                "displayMode": "table",
                "placement": "bottom",
                "calcs": ["lastNotNull", "max"],
            }
            return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
        case "heatmap":
            return {
                "calculate": False,
                "cellGap": 1,
                "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "fill": "dark-blue"},
                "filterValues": {"le": 1e-9},
                "legend": {"show": True},
                "rowsFrame": {"layout": "auto"},
                "showValue": "never",
                "tooltip": {"mode": "single", "showColorScale": True, "yHistogram": True},
                "yAxis": {"axisPlacement": "left", "unit": "s", "reverse": False},
                "exemplars": {"color": "rgba(255,0,255,0.7)"},
            }
        case "table":
            return {"showHeader": True, "cellHeight": "sm"}
        case _:
            return {
                "colorMode": "value",
                "graphMode": "none",
                "justifyMode": "auto",
                "orientation": "auto",
                "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
                "textMode": "value",
                "wideLayout": True,
            }


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Data source",
        "description": "The Prometheus that scrapes Millrace.",
        "type": "datasource",
        "query": "prometheus",
        "regex": "",
        "refresh": 1,
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "options": [],
    }


def _variable(each: Variable) -> dict[str, Any]:
    return {
        "name": each.name,
        "label": each.label,
        "type": "query",
        "datasource": _SOURCE,
        "definition": each.query,
        "query": {"qryType": 1, "query": each.query, "refId": "PrometheusVariableQueryEditor"},
        "regex": "",
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "options": [],
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _alerts_in_the_background() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "datasource": _SOURCE,
        "target": {
            "refId": "Anno",
            "expr": 'ALERTS{alertstate="firing", alertname=~"Millrace.*"}',
            "interval": "60s",
        },
        "titleFormat": "{{alertname}}",
        "textFormat": "{{model}}",
    }


def _to_the_others() -> dict[str, Any]:
    return {
        "type": "dashboards",
        "title": "Millrace",
        "tags": ["millrace"],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "The other dashboards of Millrace.",
        "url": "",
    }
