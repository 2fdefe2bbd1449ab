"""Log lines of all processes: read from whatever they were kept in, and found by an id."""

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

from millrace.past_requests import hexadecimal
from millrace.problems import Problem

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z?")
_NAMES = ("request", "subtask", "execution")
_HTTP = "request_id"


@dataclass(frozen=True)
class LogLine:
    """One event that some process logged."""

    fields: Mapping[str, Any]
    source: str = ""
    """Where it was, in the words of what prefixed it: a pod, a container."""

    @property
    def at(self) -> str:
        """When, as it was written; such texts have the order of the times."""
        return str(self.fields.get("timestamp", ""))

    @property
    def level(self) -> int:
        """How important it is, as the standard library has it; what is unknown is an error."""
        name = str(self.fields.get("level", "")).upper()
        return logging.getLevelNamesMapping().get(name, logging.ERROR)


def parse(text: str) -> LogLine | None:
    """The event of a line, whatever a collector of logs put before it; None if it has none."""
    text = _COLOURS.sub("", text)
    begin = text.find("{")
    if begin < 0:
        return None
    try:
        fields = json.loads(text[begin:])
    except ValueError:
        return None
    if not isinstance(fields, dict) or "event" not in fields:
        return None
    return LogLine(fields, _source(text[:begin]))


def _source(prefix: str) -> str:
    """`[pod/millrace-master-5d8/master]` and `master-1  | ` are a pod's and a container's name."""
    words = _STAMP.sub(" ", prefix).strip(" |[]\t").removeprefix("pod/").split("/")
    return words[0].strip(" |[]") if words else ""


@dataclass
class Search:
    """Finds the lines of one request or subtask, which it may learn to know by other names."""

    wanted: str
    """Hexadecimal, without hyphens, or its beginning."""
    named: set[str] = field(default_factory=set)
    """The whole ids that begin so."""
    http: set[str] = field(default_factory=set)
    """The ids of the HTTP requests that it came by."""

    @classmethod
    def of(cls, identity: str) -> Self:
        """Raises `Problem` for what is no id."""
        return cls(hexadecimal(identity))

    def may_fit(self, text: str) -> bool:
        """Whether a line is worth being read: most are others'."""
        return self.written in text.lower() or any(each in text for each in self.http)

    @property
    def written(self) -> str:
        """It with hyphens."""
        places, plain = (8, 12, 16, 20), self.wanted
        cuts = [0, *(place for place in places if place < len(plain)), len(plain)]
        return "-".join(plain[a:b] for a, b in pairwise(cuts))

    def fits(self, line: LogLine) -> bool:
        """Whether a line is one of those; what it tells of other names is kept."""
        ids = [str(line.fields[name]) for name in _NAMES if name in line.fields]
        named = {each for each in ids if each.replace("-", "").lower().startswith(self.wanted)}
        self.named |= named
        http = line.fields.get(_HTTP)
        if http is not None and str(line.fields.get("request")) in named:
            self.http.add(str(http))
        return bool(named) or http in self.http

    def check(self) -> None:
        """Raises `Problem` where several ids begin so."""
        if len(self.named) > 1:
            ids = ", ".join(sorted(self.named)[:5])
            raise Problem(f"{self.written!r} may be several: {ids}.")


def found(texts: Callable[[], Iterable[str]], search: Search) -> list[LogLine]:
    """All its lines in the order of time. `texts` may be gone through twice.

    Lines of its HTTP request come before the one that says which that was.
    """
    lines = list(matching(texts(), search))
    if search.http:
        lines = list(matching(texts(), search))
    return sorted(lines, key=lambda line: line.at)


def matching(lines: Iterable[str], search: Search) -> Iterator[LogLine]:
    """The lines of what is searched for, in the order in which they come."""
    for text in lines:
        if search.may_fit(text):
            line = parse(text)
            if line is not None and search.fits(line):
                yield line
