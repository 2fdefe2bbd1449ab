"""Small plots as inline SVG: classes only, because the page allows no styles in attributes. Pure.

Each has a title for those who do not see it; what it shows also stands in a table or in words.
"""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from master.console.filters import number


class Series(NamedTuple):
    """Values of one kind, one for each place on the x axis."""

    css: str
    """Class of its shapes."""
    values: Sequence[float]


def _svg(width: float, height: float, title: str, body: str, css: str = "") -> Markup:
    return Markup(  # noqa: S704 - numbers, our own shapes, and what is escaped here
        f'<svg class="plot {escape(css)}" viewBox="0 0 {_short(width)} {_short(height)}"'
        f' role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>{body}</svg>'
    )


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def bar(parts: Sequence[tuple[str, float]], most: float, title: str) -> Markup:
    """One stacked bar; `parts` are (class, value), `most` is what fills its width."""
    width, height = 240.0, 10.0
    scale = width / most if most > 0 else 0.0
    shapes, left = [f'<rect class="ground" width="{width:.0f}" height="{height:.0f}" rx="2"/>'], 0.0
    for css, value in parts:
        length = min(max(0.0, value) * scale, width - left)
        if value > 0:
            length = min(max(length, 2.0), width - left)  # one of thousands is to be seen
        if length > 0:
            shapes.append(
                f'<rect class="{escape(css)}" x="{_short(left)}" width="{_short(length)}"'
                f' height="{height:.0f}"/>'
            )
        left += length
    return _svg(width, height, title, "".join(shapes), "plot-bar")


def sparkline(values: Sequence[float | None], title: str, *, places: int | None = None) -> Markup:
    """A line without axes, its newest value at the right edge; of `places`, the rest is empty.

    It has gaps where nothing is known.
    """
    width, height = 120.0, 26.0
    most = max((value for value in values if value is not None), default=0.0)
    step = width / (max(places or 0, len(values), 2) - 1)
    begin = width - step * (len(values) - 1)
    lines: list[list[tuple[float, float]]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            lines.append([])
        else:
            lines[-1].append((begin + index * step, _level(value, most, height, 2.0)))
    body = "".join(_line(points, height) for points in lines if len(points) > 1)
    return _svg(width, height, title, body, "plot-spark")


def _line(points: Sequence[tuple[float, float]], height: float) -> str:
    line = "L".join(f"{_short(x)} {_short(y)}" for x, y in points)
    first, last = _short(points[0][0]), _short(points[-1][0])
    area = f"M{first} {height:.0f}L{line}L{last} {height:.0f}Z"
    return f'<path class="area" d="{area}"/><path class="line" d="M{line}"/>'


def _level(value: float, most: float, height: float, margin: float) -> float:
    share = value / most if most > 0 else 0.0
    return height - margin - share * (height - 2 * margin)


def columns(
    series: Sequence[Series], title: str, *, labels: tuple[str, str], unit: str = ""
) -> Markup:
    """Stacked columns; `labels` stand below the two ends, the highest sum above.

    The drawing is stretched to the width of the page, so words are no part of it.
    """
    width, height = 600.0, 100.0
    count = max((len(each.values) for each in series), default=0)
    most = max((sum(each.values[place] for each in series) for place in range(count)), default=0.0)
    step, ground, paths = width / max(count, 1), [0.0] * count, []
    for each in series:
        d = []
        for place, value in enumerate(each.values):
            if value > 0:
                low, ground[place] = ground[place], ground[place] + value
                d.append(_column(place, step, low / most, ground[place] / most, height))
        if d:
            paths.append(f'<path class="{escape(each.css)}" d="{"".join(d)}"/>')
    return Markup(  # noqa: S704 - numbers, our own shapes, and what is escaped here
        f'<figure class="columns"><p class="most">{_most(most, unit)}</p>'
        f'<svg class="plot" viewBox="0 0 600 100" preserveAspectRatio="none" role="img"'
        f' aria-label="{escape(title)}"><title>{escape(title)}</title>{"".join(paths)}</svg>'
        f'<p class="ends"><span>{escape(labels[0])}</span><span>{escape(labels[1])}</span></p>'
        "</figure>"
    )


def _most(most: float, unit: str) -> str:
    if most <= 0:
        return ""
    return escape(f"{number(most)} {unit}".strip())


def _column(place: int, step: float, low: float, high: float, height: float) -> str:
    gap = min(2.0, step * 0.25)
    x, y = place * step + gap / 2, height - high * height
    length, size = step - gap, max((high - low) * height, 0.8)
    return f"M{_short(x)} {_short(y)}h{_short(length)}v{_short(size)}h-{_short(length)}z"
