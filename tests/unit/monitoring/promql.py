"""What a PromQL expression names: metrics, and the labels that it filters and groups by. Pure.

No parser: whether the expression is one is for promtool to say. This takes apart what we write.
"""

import re
from dataclasses import dataclass

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(rf"({_NAME})\s*\{{([^}}]*)\}}")
_MATCHER = re.compile(rf'({_NAME})\s*(=~|!~|!=|=)\s*"([^"]*)"')
_WORD = re.compile(rf"(?<![\w:.$])({_NAME})\b(?!\s*\()")
_KEYWORDS = {"and", "or", "unless", "bool", "offset"}


@dataclass(frozen=True)
class Matcher:
    """One condition of a selector."""

    metric: str
    label: str
    value: str

    @property
    def values(self) -> set[str]:
        """What it asks for by name; nothing where it is a pattern or a variable."""
        found = set(self.value.split("|"))
        return found if all(re.fullmatch(r"[a-z_]+", each) for each in found) else set()


@dataclass(frozen=True)
class Named:
    """All that an expression names."""

    metrics: frozenset[str]
    matchers: tuple[Matcher, ...]
    grouped_by: frozenset[str]


def named(expr: str) -> Named:
    """Take an expression apart."""
    text = re.sub(r"\[[^\]]*\]", "", expr)
    grouped = {
        label.strip() for each in _GROUPING.findall(text) for label in each.split(",") if label
    }
    text = _GROUPING.sub("", text)
    matchers = tuple(
        Matcher(metric, label, value)
        for metric, inside in _SELECTOR.findall(text)
        for label, _, value in _MATCHER.findall(inside)
    )
    text = re.sub(r'"[^"]*"', "", _SELECTOR.sub(r"\1", text))
    metrics = frozenset(_WORD.findall(text)) - _KEYWORDS
    return Named(metrics, matchers, frozenset(grouped))
