"""Text of a PDF page that is drawn and not seen: white on white, tiny, or in no ink at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pypdf.generic import ArrayObject, TextStringObject

_SMALLEST_POINTS: Final = 1.0
_WHITE_FROM: Final = 0.95
_INVISIBLE: Final = 3
_SHOWING: Final = frozenset({b"Tj", b"TJ", b"'", b'"'})
_FILLING: Final = frozenset({b"f", b"F", b"f*", b"B", b"B*", b"b", b"b*"})
_PATH_ENDS: Final = _FILLING | {b"n", b"S", b"s"}
_POINTS: Final = {b"m": 1, b"l": 1, b"c": 3, b"v": 2, b"y": 2}
_UNIT: Final = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
_MOST_AREAS: Final = 2_000

Matrix = Sequence[float]
Point = tuple[float, float]


@dataclass(frozen=True)
class _Graphics:
    """What q saves and Q brings back."""

    white: bool = False
    plain_space: bool = True  # numbers mean light; in a separation, 1 means full ink
    mode: int = 0
    size: float = 12.0


@dataclass
class Ink:
    """Watches the operators of one page, and empties those that draw hidden text.

    Give `watch` to `extract_text` as visitor_operand_before.
    """

    resources: Mapping[Any, Any]
    hidden: int = 0
    invisible: int = 0
    """Those of `hidden` that are in render mode 3, as the text layer of a scan is."""
    has_image: bool = False
    graphics: _Graphics = field(default_factory=_Graphics)
    saved: list[_Graphics] = field(default_factory=list)
    path: list[Point] = field(default_factory=list)
    areas: list[tuple[Point, Point, bool]] = field(default_factory=list)

    def watch(self, operator: bytes, operands: list[Any], cm: Matrix, tm: Matrix) -> None:
        """Take one operator with the matrices that hold before it."""
        try:
            self._take(operator, operands, cm, tm)
        except (IndexError, TypeError, ValueError, KeyError, AttributeError):
            return  # operands of a damaged page: nothing can be said about them

    def _take(self, operator: bytes, operands: list[Any], cm: Matrix, tm: Matrix) -> None:
        if operator in _SHOWING:
            self._show(operands, cm, tm)
        elif operator == b"q":
            self.saved.append(self.graphics)
        elif operator == b"Q" and self.saved:
            self.graphics = self.saved.pop()
        elif operator in _POINTS or operator == b"re" or operator in _PATH_ENDS:
            self._draw(operator, operands, cm)
        elif operator in {b"Do", b"INLINE IMAGE", b"sh"}:
            self._image(operator, operands, cm)
        else:
            self._set(operator, operands)

    def _set(self, operator: bytes, operands: list[Any]) -> None:
        now = self.graphics
        if operator == b"Tr":
            self.graphics = replace(now, mode=int(operands[0]))
        elif operator == b"Tf":
            self.graphics = replace(now, size=float(operands[1]))
        elif operator in {b"g", b"rg", b"k"}:
            self.graphics = replace(now, white=_is_white(operands), plain_space=True)
        elif operator == b"cs":
            self.graphics = replace(now, white=False, plain_space=self._is_plain(str(operands[0])))
        elif operator in {b"sc", b"scn"}:
            self.graphics = replace(now, white=now.plain_space and _is_white(operands))

    def _is_plain(self, space: str) -> bool:
        if space in {"/DeviceGray", "/DeviceRGB", "/DeviceCMYK"}:
            return True
        named = self.resources["/ColorSpace"].get_object()[space].get_object()
        return isinstance(named, ArrayObject) and named[0] in {"/ICCBased", "/CalRGB", "/CalGray"}

    def _show(self, operands: list[Any], cm: Matrix, tm: Matrix) -> None:
        at = _at(cm, (float(tm[4]), float(tm[5])))
        is_invisible = self.graphics.mode == _INVISIBLE
        if not (is_invisible or self._is_tiny(cm, tm) or self._is_white_on_white(at)):
            return
        count = _emptied(operands)
        self.hidden += count
        self.invisible += count if is_invisible else 0

    def _is_tiny(self, cm: Matrix, tm: Matrix) -> bool:
        height = _scale(tm) * _scale(cm) * abs(self.graphics.size)
        return 0 < height < _SMALLEST_POINTS

    def _is_white_on_white(self, at: Point) -> bool:
        if not self.graphics.white or self.graphics.mode not in {0, 4}:
            return False
        for low, high, is_white in reversed(self.areas):
            if low[0] <= at[0] <= high[0] and low[1] <= at[1] <= high[1]:
                return is_white
        return True

    def _draw(self, operator: bytes, operands: list[Any], cm: Matrix) -> None:
        if operator in _POINTS:
            pairs = zip(operands[::2], operands[1::2], strict=True)
            self.path += [_at(cm, (float(x), float(y))) for x, y in pairs]
        elif operator == b"re":
            x, y, width, height = (float(number) for number in operands)
            self.path += [_at(cm, (x + width * u, y + height * v)) for u, v in _UNIT]
        else:
            if operator in _FILLING and self.path:
                self._cover(self.path, is_white=self.graphics.white)
            self.path = []

    def _image(self, operator: bytes, operands: list[Any], cm: Matrix) -> None:
        if operator == b"Do":
            drawn = self.resources["/XObject"].get_object()[operands[0]].get_object()
            if drawn["/Subtype"] != "/Image":
                return
        self.has_image = True
        self._cover([_at(cm, corner) for corner in _UNIT], is_white=False)

    def _cover(self, points: Sequence[Point], *, is_white: bool) -> None:
        across, up = [x for x, _ in points], [y for _, y in points]
        if len(self.areas) < _MOST_AREAS:
            self.areas.append(((min(across), min(up)), (max(across), max(up)), is_white))


def _at(matrix: Matrix, point: Point) -> Point:
    a, b, c, d, e, f = (float(number) for number in matrix)
    x, y = point
    return a * x + c * y + e, b * x + d * y + f


def _scale(matrix: Matrix) -> float:
    """How much a height grows."""
    return float((matrix[2] ** 2 + matrix[3] ** 2) ** 0.5)


def _is_white(operands: Sequence[Any]) -> bool:
    numbers = [float(number) for number in operands]
    if len(numbers) == 4:
        return max(numbers) <= 1 - _WHITE_FROM
    return bool(numbers) and min(numbers) >= _WHITE_FROM


def _emptied(operands: list[Any]) -> int:
    """Take the text away; returns how many characters it had."""
    last = operands[-1]
    if isinstance(last, ArrayObject):
        count = sum(len(part) for part in last if isinstance(part, str | bytes))
        operands[-1] = ArrayObject(part for part in last if not isinstance(part, str | bytes))
        return count
    operands[-1] = TextStringObject("")
    return len(last)
