"""Every strategy on the same question, engine and slots: what it takes more than `direct`."""

import json
import statistics
import time
from dataclasses import dataclass
from typing import Any

from bench.effort import Effort
from bench.engine import WORD
from bench.samples import Findings, Row, ratios
from bench.site import Millrace
from bench.talk import Silence, Talk

_WORDS = 40
"""Of every answer; one second."""
_SLOTS = 8
QUESTION = "1. Why does the wheel turn?\n2. What does the stone do?\n3. Where does the water go?"
STRATEGIES = ("direct", "auto", "split", "router", "crew", "ensemble")


def _says(contains: str, **said: Any) -> dict[str, str]:
    return {"contains": contains, "text": json.dumps(said)}


MODEL = {
    "provider": "scripted",
    "slots": _SLOTS,
    "options": {
        "text": " ".join([WORD] * _WORDS),
        "tokens_per_second": _WORDS,
        # Judges are short and content: what is measured is the way of a good answer.
        "rules": [
            _says("You compare answers", reason="it says more", scores=[80, 60, 60]),
            _says("You review the draft", verdict="accept", score=80, comments=""),
            _says("You check an answer", reason="right", score=80),
            _says("Say what the last message", kind="analytical"),
        ],
    },
}


@dataclass(frozen=True)
class _Answered:
    first_seconds: float
    whole_seconds: float
    record: dict[str, Any]


def strategies(mill: Millrace, effort: Effort) -> Findings:
    """Seconds to the first word and to the end, and what was used, of each strategy."""
    _ask(mill, "direct")
    rounds = [{name: _ask(mill, name) for name in STRATEGIES} for _ in range(effort.rounds)]
    direct = tuple(each["direct"].whole_seconds for each in rounds)
    rows = [
        Row(
            *("S", f"{name}: whole answer", "s"),
            ours=(ours := tuple(each[name].whole_seconds for each in rounds)),
            peer="direct",
            theirs=direct,
            judged=ratios(ours, direct),
        )
        for name in STRATEGIES
        if name != "direct"
    ]
    table = [
        "| model | subtasks | tokens in | tokens out | first word, s | whole, s |",
        "|---|---|---|---|---|---|",
        *(_line(name, [each[name] for each in rounds]) for name in STRATEGIES),
    ]
    return Findings(tuple(rows), notes=tuple(table))


def _ask(mill: Millrace, strategy: str) -> _Answered:
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": f"millrace/{strategy}", "messages": messages}
    began = time.monotonic()
    with Talk(mill.target(_WORDS, body)) as talk:
        first = talk.read_until(1)
        while not talk.is_whole:
            talk.read()
        whole = time.monotonic()
        return _Answered(first - began, whole - began, _record(mill, talk.request))


def _record(mill: Millrace, request: str) -> dict[str, Any]:
    record: dict[str, Any] = mill.get(f"/v1/requests/{request}")
    if record["state"] != "completed":
        raise Silence(f"{request} is {record['state']}: {record['error']}")
    return record


def _line(name: str, answers: list[_Answered]) -> str:
    record = answers[-1].record
    usage = record["usage"]
    cells = (
        f"`millrace/{name}`",
        len(record["subtasks"]),
        usage["prompt_tokens"],
        usage["completion_tokens"],
        f"{statistics.median(each.first_seconds for each in answers):.2f}",
        f"{statistics.median(each.whole_seconds for each in answers):.2f}",
    )
    return "| " + " | ".join(map(str, cells)) + " |"
