"""Bars of an evaluation as an SVG, which needs no plotting library."""

from collections.abc import Iterator
from html import escape

from master.retrieval.evaluation.outcome import Evaluation, Leg

_COLOURS = {
    Leg.DENSE: "#4c78a8",
    Leg.SPARSE: "#f58518",
    Leg.HYBRID: "#54a24b",
    Leg.RERANKED: "#b279a2",
}
_BAR, _GAP, _GROUP_GAP, _HEIGHT, _LEFT, _TOP = 34, 6, 40, 220, 48, 56


def svg(found: Evaluation) -> str:
    """Groups of bars, one for each measure; a bar for each leg, from 0 to 1."""
    group = len(found.legs) * (_BAR + _GAP)
    measures = list(found.legs[0].means)
    width = max(_LEFT + len(measures) * (group + _GROUP_GAP), 420)
    height = _TOP + _HEIGHT + 64
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(_LEFT, 24, f"{found.name}, {found.questions} questions", "start", "bold"),
        *_scale(width),
    ]
    for number, measure in enumerate(measures):
        x = _LEFT + number * (group + _GROUP_GAP) + _GROUP_GAP // 2
        lines += _bars(found, measure, x)
        lines.append(_text(x + group // 2, _TOP + _HEIGHT + 18, measure))
    return "\n".join([*lines, *_legend(found, height), "</svg>", ""])


def _scale(width: int) -> Iterator[str]:
    for tenth in range(0, 11, 2):
        y = _TOP + _HEIGHT - _HEIGHT * tenth // 10
        yield f'<line x1="{_LEFT}" y1="{y}" x2="{width}" y2="{y}" stroke="#dddddd"/>'
        yield _text(_LEFT - 6, y + 4, f"{tenth / 10:.1f}", "end")


def _bars(found: Evaluation, measure: str, x: int) -> Iterator[str]:
    for place, leg in enumerate(found.legs):
        left, mean = x + place * (_BAR + _GAP), leg.means[measure]
        high = mean * _HEIGHT
        top = _TOP + _HEIGHT - high
        yield (
            f'<rect x="{left}" y="{top:.1f}" width="{_BAR}" height="{high:.1f}" '
            f'fill="{_COLOURS[leg.leg]}"/>'
        )
        yield _text(left + _BAR // 2, top - 4, f"{mean:.3f}")


def _legend(found: Evaluation, height: int) -> Iterator[str]:
    for place, leg in enumerate(found.legs):
        x, y = _LEFT + place * 92, height - 18
        yield f'<rect x="{x}" y="{y - 10}" width="10" height="10" fill="{_COLOURS[leg.leg]}"/>'
        yield _text(x + 14, y, leg.leg, "start")


def _text(x: float, y: float, text: str, anchor: str = "middle", weight: str = "normal") -> str:
    plain = escape("".join(c if c.isprintable() else " " for c in text))
    return f'<text x="{x}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{plain}</text>'
