"""The trace of a split request as a picture: docs/images/trace.svg.

`--record FILE` asks a real master on a real RabbitMQ, with two worker processes behind it, and
keeps what all three wrote; without it, an earlier file is drawn. Any file of `file:PATH` will do:
the longest of its requests is drawn, or what `--trace` names.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from db import migrate
from db.engine import create_engine
from millrace.chaos.local_postgres import LocalPostgres
from millrace.chaos.local_rabbitmq import LocalRabbit
from millrace.chaos.stack import Stack

MODEL = {
    "name": "mill",
    "provider": "scripted",
    "slots": 1,
    "max_workers": 2,
    "options": {"tokens": 24, "tokens_per_second": 24, "first_token_seconds": 0.3},
}
QUESTION = "\n".join(
    f"{number}. What is {thing}, in all detail?"
    for number, thing in enumerate(("a mill", "a weir", "a race", "a sluice"), 1)
)

_LEFT, _WIDTH, _RIGHT = 250, 640, 30
_TOP, _ROW, _BAR, _BOTTOM = 66, 19, 11, 66
_TICKS = 6
_SUBMIT = "submit"
"""Every request that asks models for something has this span, whatever its route."""
_STYLE = """
  text { font: 12px sans-serif; fill: #24292f }
  .title { font-weight: bold; font-size: 14px } .quiet { fill: #57606a }
  .paper { fill: #ffffff } .grid { stroke: #d8dee4 }
  .gap { stroke: #8c959f; stroke-dasharray: 2 3 }
  .event { stroke: #24292f; stroke-width: 1.5 } .error { stroke: #cf222e; stroke-width: 2 }
  .who-0 { fill: #4c78c8 } .who-1 { fill: #2f9e69 }
  .who-2 { fill: #d98324 } .who-3 { fill: #9a5fc0 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .quiet { fill: #9198a1 }
    .paper { fill: #0d1117 } .grid { stroke: #30363d }
    .gap { stroke: #6e7681 } .event { stroke: #ffffff }
    .who-0 { fill: #5b8def } .who-1 { fill: #3fb97f }
    .who-2 { fill: #e39a45 } .who-3 { fill: #b583dc }
  }
"""
_CAPTION = "Dotted: it waits in its queue. A line across a bar: the first token, or the first text."


@dataclass(frozen=True)
class Bar:
    """A span: nanoseconds, and who did it."""

    trace: str
    id: str
    parent: str
    name: str
    who: str
    begin: int
    end: int
    step: str
    is_error: bool
    events: tuple[tuple[str, int], ...]
    strategy: str = ""


# --- the run ------------------------------------------------------------------------------------


async def record(file: Path) -> None:
    """Ask one question that is split, and keep what every process wrote of it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalRabbit() as rabbit,
        contextlib.closing(LocalPostgres()) as postgres,
    ):
        url = postgres.start().url()
        engine = create_engine(url, pool_size=1)
        await migrate.upgrade(engine)
        await engine.dispose()
        written = Path(folder) / "spans.jsonl"
        settings = {"MILLRACE_TRACING": f"file:{written}"}
        stack = Stack(Path(folder), url, rabbit.url(), {"models": [MODEL]}, settings)
        try:
            await stack.start(mill=2)
            await _ask(stack)  # what is met for the first time would be the longest trace
            written.write_text("")
            await _ask(stack)
        finally:
            stack.close()  # each of them writes what it still has
        keep(written, file)


async def _ask(stack: Stack) -> None:
    body = {
        "model": "millrace/split",
        "stream": True,
        "messages": [{"role": "user", "content": QUESTION}],
    }
    async with (
        stack.http() as http,
        http.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        request = answer.headers["x-millrace-request-id"]
        async for _ in answer.aiter_lines():
            pass
    await stack.ended(request)
    await asyncio.sleep(2)  # spans leave a process once a second


def keep(written: Path, file: Path) -> None:
    """One line for each process, with the spans of the longest trace only."""
    wanted = longest(read(written))[0].trace
    lines: dict[str, dict[str, Any]] = {}
    for line in written.read_text("utf-8").splitlines():
        for resource in json.loads(line)["resourceSpans"]:
            (scope,) = resource["scopeSpans"]
            spans = [span for span in scope["spans"] if span["traceId"] == wanted]
            key = _plain(resource["resource"])["service.instance.id"]
            kept = lines.setdefault(key, {**resource, "scopeSpans": [{**scope, "spans": []}]})
            kept["scopeSpans"][0]["spans"] += spans
    with file.open("w", encoding="utf-8") as out:
        for resource in lines.values():
            out.write(json.dumps({"resourceSpans": [resource]}, separators=(",", ":")) + "\n")


# --- the picture --------------------------------------------------------------------------------


def read(file: Path) -> list[Bar]:
    """All spans of a file. Raises ValueError or KeyError for one that tracing did not write."""
    return [
        _bar(span, _plain(resource["resource"]))
        for line in file.read_text("utf-8").splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def _bar(span: Mapping[str, Any], resource: Mapping[str, str]) -> Bar:
    service = resource["service.name"].removeprefix("millrace-")
    instance = resource["service.instance.id"] if service == "worker" else ""
    return Bar(
        trace=span["traceId"],
        id=span["spanId"],
        parent=span.get("parentSpanId", ""),
        name=span["name"],
        who=f"{service} {instance}".strip(),
        begin=int(span["startTimeUnixNano"]),
        end=int(span["endTimeUnixNano"]),
        step=_plain(span).get("millrace.step", ""),
        is_error=span["status"]["code"] == 2,
        events=tuple((each["name"], int(each["timeUnixNano"])) for each in span["events"]),
        strategy=_plain(span).get("millrace.strategy", ""),
    )


def _plain(of: Mapping[str, Any]) -> dict[str, str]:
    return {
        each["key"]: str(value) for each in of["attributes"] for value in each["value"].values()
    }


def longest(bars: Sequence[Bar], beginning: str = "") -> list[Bar]:
    """The request that took longest, else the longest trace, of those whose id begins so.

    Raises ValueError if there is none.
    """
    traces: dict[str, list[Bar]] = {}
    for bar in bars:
        if bar.trace.startswith(beginning.lower()):
            traces.setdefault(bar.trace, []).append(bar)
    if not traces:
        raise ValueError(f"no trace begins with {beginning!r}" if beginning else "it is empty")
    return max(traces.values(), key=lambda trace: (_is_request(trace), _nanoseconds(trace)))


def _is_request(trace: Sequence[Bar]) -> bool:
    """Not the ingestion of a document, nor a sweep."""
    return any(bar.name == _SUBMIT for bar in trace)


def _nanoseconds(trace: Sequence[Bar]) -> int:
    return max(bar.end for bar in trace) - min(bar.begin for bar in trace)


def titled(trace: Sequence[Bar]) -> str:
    """What it is, how many spans, how long."""
    first = min(trace, key=lambda bar: bar.begin).name
    what = "One request" if _is_request(trace) else f"One trace of {first}"
    strategy = next((bar.strategy for bar in trace if bar.strategy), "")
    what += f" ({strategy})" if strategy else ""
    spans = "1 span" if len(trace) == 1 else f"{len(trace)} spans"
    return f"{what}: {spans} in {_nanoseconds(trace) / 1e9:.2f} s"


def in_order(
    trace: Sequence[Bar], parent: str | None = None, depth: int = 0
) -> list[tuple[int, Bar]]:
    """Every span with its depth, each above those that it called."""
    known = {bar.id for bar in trace}
    below = [bar for bar in trace if (bar.parent if bar.parent in known else None) == parent]
    rows: list[tuple[int, Bar]] = []
    for bar in sorted(below, key=lambda bar: bar.begin):
        rows += [(depth, bar), *in_order(trace, bar.id, depth + 1)]
    return rows


def svg(trace: Sequence[Bar]) -> str:
    """The trace as a waterfall."""
    rows = in_order(trace)
    people = list(dict.fromkeys(bar.who for bar in sorted(trace, key=lambda bar: bar.begin)))
    scale = Scale(min(bar.begin for bar in trace), max(bar.end for bar in trace))
    wide, high = _LEFT + _WIDTH + _RIGHT, _TOP + _ROW * len(rows) + _BOTTOM
    title = titled(trace)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" '
        f'width="{wide}" height="{high}" role="img" aria-labelledby="title">',
        f'<title id="title">{escape(title)}</title>',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{wide}" height="{high}" rx="6"/>',
        _text(14, 24, title, "title"),
        *_legend(people),
        *_grid(scale, len(rows)),
    ]
    places = {bar.id: (place, bar) for place, (_, bar) in enumerate(rows)}
    for place, (depth, bar) in enumerate(rows):
        lines += _row(place, depth, bar, scale, people.index(bar.who) % 4)
        if bar.name == "execute" and bar.parent in places:
            lines.append(_waiting(place, bar, places[bar.parent][1], scale))
    lines.append(_text(14, high - 14, _CAPTION, "quiet"))
    return "\n".join([*lines, "</svg>", ""])


@dataclass(frozen=True)
class Scale:
    """Nanoseconds to places."""

    begin: int
    end: int

    def x(self, at: int) -> float:
        """Where a moment is."""
        return _LEFT + _WIDTH * (at - self.begin) / max(1, self.end - self.begin)


def _row(place: int, depth: int, bar: Bar, scale: Scale, who: int) -> Iterator[str]:
    y = _TOP + _ROW * place
    step = f" {bar.step}" if bar.step and bar.name != "engine call" else ""
    yield _text(14 + 12 * depth, y + 10, bar.name + step)
    begin, wide = scale.x(bar.begin), max(1.5, scale.x(bar.end) - scale.x(bar.begin))
    error = " error" if bar.is_error else ""
    milliseconds = (bar.end - bar.begin) / 1e6
    yield (
        f'<rect class="who-{who}{error}" x="{begin:.1f}" y="{y}" width="{wide:.1f}" '
        f'height="{_BAR}" rx="2"><title>{escape(bar.name)}: {milliseconds:.1f} ms, '
        f"{escape(bar.who)}</title></rect>"
    )
    for name, at in bar.events:
        yield (
            f'<path class="event" d="M{scale.x(at):.1f} {y - 2}v{_BAR + 4}">'
            f"<title>{escape(name)}</title></path>"
        )


def _waiting(place: int, bar: Bar, sent: Bar, scale: Scale) -> str:
    y = _TOP + _ROW * place + _BAR / 2
    begin, end = scale.x(sent.end), scale.x(bar.begin)
    return f'<path class="gap" d="M{begin:.1f} {y}H{max(begin, end):.1f}"/>'


def _grid(scale: Scale, rows: int) -> Iterator[str]:
    seconds = (scale.end - scale.begin) / 1e9
    bottom = _TOP + _ROW * rows
    for tick in range(_TICKS + 1):
        x = _LEFT + _WIDTH * tick / _TICKS
        yield f'<path class="grid" d="M{x:.1f} {_TOP - 6}V{bottom}"/>'
        yield _text(x, bottom + 18, f"{seconds * tick / _TICKS:.2f} s", "quiet", "middle")


def _legend(people: Sequence[str]) -> Iterator[str]:
    for place, who in enumerate(people):
        x = 14 + 150 * place
        yield f'<rect class="who-{place % 4}" x="{x}" y="36" width="11" height="11" rx="2"/>'
        yield _text(x + 17, 46, who)


def _text(x: float, y: float, said: str, style: str = "", anchor: str = "start") -> str:
    style = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(said)}</text>'


def main() -> None:
    """Record if asked to, then draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="spans, a line of OTLP/JSON for each batch")
    parser.add_argument("svg", type=Path, help="the picture")
    parser.add_argument("--record", action="store_true", help="make the file first")
    parser.add_argument("--trace", metavar="ID", default="", help="its beginning is enough")
    given = parser.parse_args()
    if given.record:
        asyncio.run(record(given.file))
    try:
        given.svg.write_text(svg(longest(read(given.file), given.trace)), "utf-8")
    except (OSError, ValueError, KeyError) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else error
        sys.exit(f"{given.file} cannot be drawn: {said}")


if __name__ == "__main__":
    main()
