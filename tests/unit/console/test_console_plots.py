"""Plots are well-formed, in bounds, named, and hold nothing but what they were given."""

import re
from xml.etree import ElementTree

import pytest

from master.console.plots import Series, bar, columns, sparkline

NASTY = '"><script>alert(1)</script>&'


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def test_a_bar_is_as_long_as_its_parts_together() -> None:
    shapes = parsed(bar([("part-running", 1), ("part-queued", 2)], 4, "three of four")).findall(
        "rect"
    )
    assert [shape.get("width") for shape in shapes] == ["240", "60", "120"]
    assert [shape.get("x") for shape in shapes] == [None, "0", "60"]


def test_one_of_thousands_is_still_to_be_seen() -> None:
    shapes = parsed(bar([("part-running", 1), ("part-queued", 9999)], 10_000, "many")).findall(
        "rect"
    )
    widths = [float(shape.get("width", "")) for shape in shapes[1:]]
    assert widths[0] == 2
    assert sum(widths) <= 240


@pytest.mark.parametrize("most", [0, -1])
def test_a_bar_of_nothing_is_empty(most: float) -> None:
    assert len(parsed(bar([("part-running", 0)], most, "nothing")).findall("rect")) == 1


def test_the_newest_value_of_a_sparkline_is_at_its_right_edge() -> None:
    line = parsed(sparkline([0, 5], "two", places=60)).findall("path")[1].get("d", "")
    points = [tuple(map(float, point.split())) for point in line[1:].split("L")]
    assert points[-1] == (120, 2)
    assert points[0] == pytest.approx((118, 24), abs=0.1)


@pytest.mark.parametrize("values", [[], [3], [None, None, 3], [None]])
def test_a_sparkline_without_a_past_has_no_line(values: list[float | None]) -> None:
    assert parsed(sparkline(values, "none")).findall("path") == []


def test_a_sparkline_has_gaps_where_nothing_is_known() -> None:
    paths = parsed(sparkline([1, 2, None, None, 3, 4, None], "two lines")).findall("path")
    lines = [path.get("d", "") for path in paths if path.get("class") == "line"]
    xs = [[float(point.split()[0]) for point in line[1:].split("L")] for line in lines]
    assert xs == [[0, 20], [80, 100]]


def test_columns_stand_on_each_other_and_stay_inside() -> None:
    drawn = parsed(
        columns([Series("a", [1, 0, 2]), Series("b", [1, 0, 2])], "sums", labels=("", ""))
    )
    paths = {path.get("class"): path.get("d", "") for path in drawn.iter("path")}
    tops = {css: [float(y) for y in re.findall(r"M\S+ ([\d.]+)", d)] for css, d in paths.items()}
    assert tops == {"a": [75, 50], "b": [50, 0]}


def test_columns_of_nothing_are_an_empty_drawing() -> None:
    for series in ([], [Series("a", [])], [Series("a", [0, 0])]):
        assert list(parsed(columns(series, "nothing", labels=("then", "now"))).iter("path")) == []


def test_words_cannot_break_out() -> None:
    drawings = (
        bar([("part-running", 1)], 1, NASTY),
        sparkline([1, 2], NASTY),
        columns([Series("a", [1])], NASTY, labels=(NASTY, NASTY), unit=NASTY),
    )
    for drawing in drawings:
        root = parsed(drawing)
        assert not list(root.iter("script"))
        assert any(element.get("aria-label") == NASTY for element in root.iter())


def test_every_plot_says_what_it_shows() -> None:
    for drawing in (bar([], 1, "a title"), sparkline([], "a title")):
        root = parsed(drawing)
        assert root.get("role") == "img"
        assert root.findtext("title") == "a title" == root.get("aria-label")
