"""Models and questions that make a console look lived in; the copies of `console_filling` too."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import httpx2

REQUEST_HEADER: Final = "x-millrace-request-id"
_BROKEN: Final = "the drawing that is attached"
_BUSY: Final = "At once"
_TEXT: Final = (
    "Water is led from the race onto the wheel and turns it by its weight. A gear of wood brings "
    "the motion to the upright shaft, **five to eight** times as fast, and with it the runner "
    "stone turns over the bedstone. The grain falls from the hopper into its eye, is cut between "
    "the furrows and leaves as meal at the rim.\n\n- The sluice sets how much water comes.\n"
    "- The tentering screw sets how fine the meal is.\n\nWhat is not needed goes past the wheel "
    "through the spillway, back into the river."
)


def _says(contains: str, **said: Any) -> dict[str, str]:
    return {"contains": contains, "text": json.dumps(said)}


_RULES: Final = [
    _says("You compare answers", reason="It says why, not only that.", scores=[86, 64, 71]),
    _says(
        "You review the draft",
        verdict="accept",
        score=84,
        comments="Clear; it might name the spillway earlier.",
    ),
    _says("You check an answer", reason="It answers all that was asked.", score=88),
    _says("Say what the last message", kind="analytical"),
]
_FAULTS: Final = [
    {
        "kind": "fail",
        "contains": _BROKEN,
        "error_kind": "permanent",
        "code": "unsupported_by_model",
        "message": "the model reads no images",
    },
    {"kind": "fail", "contains": _BUSY, "attempts": [1], "message": "all slots are taken"},
]


def script(**more: Any) -> dict[str, Any]:
    """Fields of a registry entry whose model talks of mills; `more` goes into its script."""
    return {
        "provider": "scripted",
        "price": {"prompt": 0.2, "completion": 0.6},
        "options": {"text": _TEXT, "rules": _RULES, "faults": _FAULTS} | more,
    }


@dataclass(frozen=True)
class Example:
    """A question to a strategy or a model."""

    model: str
    content: str
    weight: int = 1
    """How many copies it gets for one of another."""


_THREE: Final = (
    "1. Why does the wheel of a mill turn?\n"
    "2. What does the runner stone do?\n"
    "3. Where does the water go afterwards?"
)
EXAMPLES: Final = (
    Example("", "How much water does an overshot wheel of four metres need?", 6),
    Example("millrace/auto", "Explain the difference between a race and a leat.", 4),
    Example("millrace/split", _THREE, 3),
    Example("millrace/split", "\n".join(f"{n}. Describe part {n} of a mill." for n in range(1, 9))),
    Example("millrace/router", "Which stone is better for rye?"),
    Example("millrace/crew", "Why did millers dress their stones every few weeks?"),
    Example("millrace/ensemble", "Write a slogan for a mill that is open on Sundays."),
    Example("", f"{_BUSY}: how fast does a post mill turn into the wind?"),
    Example("", f"What is wrong in {_BROKEN}?"),
)


async def ask(http: httpx2.AsyncClient, model: str) -> Mapping[UUID, int]:
    """Ask every example, `model` where it names none; the requests and their weights.

    They have ended, well or not.
    """

    async def one(example: Example) -> UUID:
        messages = [{"role": "user", "content": example.content}]
        body = {"model": example.model or model, "messages": messages}
        answer = await http.post("/v1/chat/completions", json=body)
        return UUID(answer.headers[REQUEST_HEADER])

    asked = await asyncio.gather(*map(one, EXAMPLES))
    return {id_: example.weight for id_, example in zip(asked, EXAMPLES, strict=True)}
