"""The plan of a request as a picture: from the question through stages of steps to the answer.

Pure: places and sizes in pixels, which a template draws as SVG.
"""

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from unicodedata import east_asian_width

_WIDTH = 208
_HEIGHT = 46
_LOW_HEIGHT = 26
"""Where a stage has many steps, each has one line."""
_MANY = 12
_GAP_X = 52
_GAP_Y = 14
_LOW_GAP_Y = 6
_MARGIN = 4
_END_WIDTH = 76
_END_HEIGHT = 30
_END_GAP = 36
_TITLE_CELLS = 24
_MODEL_CELLS = 28


@dataclass(frozen=True)
class Part:
    """A step, as far as the picture shows it."""

    key: str
    title: str
    model: str
    state: str
    depends_on: Sequence[str] = ()


@dataclass(frozen=True)
class Node:
    """A step with its place; `title` and `model` are cut to fit."""

    part: Part
    stage: int
    x: int
    y: int
    width: int
    height: int
    title: str
    model: str
    """Empty where there is no room for it."""

    @property
    def middle(self) -> int:
        """Where edges begin and end."""
        return self.y + self.height // 2


@dataclass(frozen=True)
class Edge:
    """What a step is given, as an SVG path."""

    source: str
    target: str
    path: str


@dataclass(frozen=True)
class End:
    """Where the picture begins or ends: the question, the answer."""

    name: str
    x: int
    y: int
    width: int = _END_WIDTH
    height: int = _END_HEIGHT

    @property
    def middle(self) -> int:
        """Where paths begin and end."""
        return self.y + self.height // 2


@dataclass(frozen=True)
class Drawing:
    """The whole picture."""

    width: int
    height: int
    nodes: Sequence[Node]
    edges: Sequence[Edge]
    ends: Sequence[End]
    flows: Sequence[str]
    """SVG paths from the question to the first steps, and from what is shown to the answer."""
    words: str
    """The same for who cannot see it, in one sentence."""
    stages: int


def draw(parts: Sequence[Part], shown: Collection[str] = ()) -> Drawing:
    """Lay a plan out; `shown` are the keys of the steps whose texts are the answer.

    Keys are unique and there is no circle, as `Plan` guarantees.
    """
    stages = _in_order(_stages(parts))
    tall = max((_room(len(stage)) for stage in stages), default=_END_HEIGHT)
    nodes = {
        node.part.key: node
        for number, stage in enumerate(stages)
        for node in _column(number, stage, tall)
    }
    edges = [
        Edge(key, part.key, _curve(nodes[key], nodes[part.key]))
        for part in parts
        for key in part.depends_on
        if key in nodes
    ]
    question, answer = _ends(len(stages), tall)
    flows = [
        *(_curve(question, node) for node in nodes.values() if not node.stage),
        *(_curve(nodes[key], answer) for key in shown if key in nodes),
    ]
    width, height = answer.x + answer.width + _MARGIN, tall + 2 * _MARGIN
    placed = [nodes[part.key] for stage in stages for part in stage]
    words = _in_words(parts, stages)
    ends = question, answer
    return Drawing(width, height, placed, edges, ends, flows, words, len(stages))


def _ends(stages: int, tall: int) -> tuple[End, End]:
    top = _MARGIN + (tall - _END_HEIGHT) // 2
    after = _left(stages) - _GAP_X + _END_GAP
    return End("Question", _MARGIN, top), End("Answer", after, top)


def _left(stage: int) -> int:
    """Where a stage begins."""
    return _MARGIN + _END_WIDTH + _END_GAP + stage * (_WIDTH + _GAP_X)


def _stages(parts: Sequence[Part]) -> list[list[Part]]:
    """Each step one stage after the last of those that it builds on."""
    known = {part.key for part in parts}
    stage_of: dict[str, int] = {}
    waiting = list(parts)
    while waiting:
        free = [p for p in waiting if all(k in stage_of or k not in known for k in p.depends_on)]
        for part in free or waiting:
            stage_of[part.key] = 1 + max((stage_of.get(k, -1) for k in part.depends_on), default=-1)
        waiting = [part for part in waiting if part.key not in stage_of]
    stages: list[list[Part]] = [[] for _ in range(1 + max(stage_of.values(), default=-1))]
    for part in parts:
        stages[stage_of[part.key]].append(part)
    return stages


def _in_order(stages: Sequence[Sequence[Part]]) -> list[list[Part]]:
    """Steps beside what they build on, so that fewer edges cross; otherwise as in the plan."""
    height: dict[str, float] = {}
    ordered = []
    for stage in stages:
        wished = {
            part.key: _mean([height[k] for k in part.depends_on if k in height], 0.5)
            for part in stage
        }
        line = sorted(stage, key=lambda part: wished[part.key])
        height |= {part.key: (place + 0.5) / len(line) for place, part in enumerate(line)}
        ordered.append(line)
    return ordered


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _sizes(count: int) -> tuple[int, int]:
    """Height of a step and the gap below it, in a stage of so many."""
    return (_LOW_HEIGHT, _LOW_GAP_Y) if count > _MANY else (_HEIGHT, _GAP_Y)


def _room(count: int) -> int:
    height, gap = _sizes(count)
    return count * (height + gap) - gap


def _column(number: int, stage: Sequence[Part], tall: int) -> list[Node]:
    height, gap = _sizes(len(stage))
    x = _left(number)
    top = _MARGIN + (tall - _room(len(stage))) // 2
    return [
        _node(part, number, x, top + place * (height + gap), height)
        for place, part in enumerate(stage)
    ]


def _node(part: Part, stage: int, x: int, y: int, height: int) -> Node:
    model = shortened(part.model, _MODEL_CELLS) if height == _HEIGHT else ""
    title = shortened(part.title or part.key, _TITLE_CELLS)
    return Node(part, stage, x, y, _WIDTH, height, title, model)


def _curve(source: Node | End, target: Node | End) -> str:
    x1, y1, x2, y2 = source.x + source.width, source.middle, target.x, target.middle
    bend = (x2 - x1) // 2
    return f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"


def _in_words(parts: Sequence[Part], stages: Sequence[Sequence[Part]]) -> str:
    states: dict[str, int] = {}
    for part in parts:
        states[part.state] = states.get(part.state, 0) + 1
    said = ", ".join(f"{number} {state}" for state, number in states.items())
    return f"{_counted(len(parts), 'step')} in {_counted(len(stages), 'stage')}: {said}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def shortened(text: str, cells: int) -> str:
    """A line that is no wider than so many letters; East Asian ones are as wide as two."""
    line = " ".join(text.split())
    ends = list(accumulate(2 if east_asian_width(letter) in "WF" else 1 for letter in line))
    if not ends or ends[-1] <= cells:
        return line
    return line[: bisect_right(ends, cells - 1)].rstrip() + "…"
