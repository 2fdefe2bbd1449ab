"""The picture of a burst."""

import re
from xml.etree import ElementTree

from scripts.scaling_plot import MOST_WORKERS, Panel, Sample, svg

BURST = [Sample(0, 0, 0, 1, 1), Sample(9, 20, 1, 8, 3), Sample(60, 0, 0, 2, 2)]


def test_it_is_a_picture_whose_values_stay_within_it() -> None:
    picture = ElementTree.fromstring(svg(BURST))
    wide, high = float(picture.attrib["width"]), float(picture.attrib["height"])
    drawn = [each.attrib["points"] for each in picture if "points" in each.attrib]
    assert len(drawn) == 4
    for x, y in (point.split(",") for points in drawn for point in points.split()):
        assert 0 <= float(x) <= wide
        assert 0 <= float(y) <= high


def test_it_says_that_its_times_are_not_the_default_ones() -> None:
    words = " ".join(re.findall(r">([^<]+)<", svg(BURST)))
    assert "a tenth of the default times" in words
    assert f"1 to {MOST_WORKERS} workers" in words


def test_a_value_is_drawn_at_its_height() -> None:
    panel = Panel(top=10, height=100, most=20, step=5)
    assert (panel.y(0), panel.y(10), panel.y(20)) == (110, 60, 10)
