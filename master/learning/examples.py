"""From rated requests to examples that a model can be trained with. Pure.

What a person wrote as the right answer comes before what any model wrote. Judges and checks decide
nothing here: a model would be trained to please another one.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean
from typing import Any, Final

from pydantic import ValidationError

from db.training import RatedRequest
from master.planning.chat import ChatMessage, has_images, text_of
from master.planning.memory import woven
from master.planning.plan import Plan, Step, StepKind
from master.planning.question import Question
from master.planning.remembered import Remembered

LEAST_SCORE: Final = 0.6
"""Of an answer to learn from: a thumb that is up, or seven of ten stars."""
APART: Final = 0.5
"""By so much must one of two answers have been liked better."""
_RETRIED: Final = 0.25
"""What an answer counts that was made again and not rated."""

Example = dict[str, Any]


class Format(StrEnum):
    """What a line is."""

    SFT = "sft"
    """A chat that ends in a good answer."""
    DPO = "dpo"
    """A chat, a better answer and a worse one."""
    JSONL = "jsonl"
    """A request with everything that was said of it."""


@dataclass(frozen=True)
class Answered:
    """A text that answers a prompt, and what people think of it."""

    prompt: tuple[ChatMessage, ...]
    text: str
    score: float | None
    correction: str | None
    """What it should have been."""


def examples(
    requests: Sequence[RatedRequest], format_: Format, least_score: float
) -> Iterator[Example]:
    """What requests with the same question teach."""
    if format_ is Format.JSONL:
        yield from (everything(r) for r in requests if (score_of(r, "") or 0.0) >= least_score)
        return
    usable = [request for request in requests if why_not(request) is None]
    if format_ is Format.SFT:
        yield from itertools.chain.from_iterable(_chats(r, least_score) for r in usable)
    else:
        yield from _distinct(_pairs(usable, least_score))


def why_not(request: RatedRequest) -> str | None:
    """Why a request teaches nothing to who only reads text; None: it may."""
    if prompt_of(request) is None:
        return "of which each part had documents of its own"
    if has_images(request.question["messages"]):
        return "with images"
    return None if request.answer.strip() else "without a text"


def everything(request: RatedRequest) -> Example:
    """A request with its steps and all that was said of it; people are numbered, not named."""
    people: dict[str, str] = {}
    judgements = [
        {**judged, "rater": _unnamed(str(judged["rater"]), people)} for judged in request.judgements
    ]
    return {
        "request": str(request.id),
        "tenant": request.tenant,
        "asked_at": request.created_at.isoformat(),
        "model": request.question["model"],
        "strategy": request.plan.get("strategy"),
        "messages": list(_plain(request.question["messages"])),
        "prompt": _listed(prompt_of(request)),
        "answer": request.answer,
        "score": score_of(request, ""),
        "correction": _correction(request, ""),
        "judgements": judgements,
        "steps": [dict(step) for step in request.steps],
        "chosen": request.plan.get("chosen") or None,
    }


def score_of(request: RatedRequest, subject: str) -> float | None:
    """The mean of what people gave an answer; each has one vote."""
    scores = [j["score"] for j in _human(request, subject) if j["score"] is not None]
    if not scores and subject == "" and _was_retried(request):
        return _RETRIED
    return fmean(scores) if scores else None


def prompt_of(request: RatedRequest) -> tuple[ChatMessage, ...] | None:
    """The chat as the model was given it; None where several were given something else each."""
    stored = request.question.get("remembered")
    remembered = Remembered.model_validate(stored) if stored else None
    messages = tuple(request.question["messages"])
    question = woven(Question("", messages, remembered=remembered))
    if not request.plan.get("sources"):
        return _plain(question.messages)
    step = _only_step(request)
    return _plain(step.messages) if step is not None and not step.depends_on else None


def _chats(request: RatedRequest, least_score: float) -> Iterator[Example]:
    for answered in _answers(request):
        liked = answered.score is not None and answered.score >= least_score
        text = answered.correction or (answered.text if liked else None)
        if text:
            yield {"messages": [*answered.prompt, _said(text)]}


def _pairs(requests: Sequence[RatedRequest], least_score: float) -> Iterator[Example]:
    """Corrections against what they correct; then answers to the same question that differ."""
    for request in requests:
        for answered in _answers(request):
            if answered.correction:
                yield _pair(answered.prompt, answered.correction, answered.text)
        yield from _candidate_pairs(request, least_score)
    whole = [answer for request in requests for answer in _whole(request)]
    for one, other in itertools.combinations(whole, 2):
        better, worse = sorted((one, other), key=lambda a: a.score or 0.0, reverse=True)
        if _is_apart(better.score, worse.score, least_score):
            yield _pair(better.prompt, better.text, worse.text)


def _candidate_pairs(request: RatedRequest, least_score: float) -> Iterator[Example]:
    """Of several answers, the one that was shown and liked against those that were not shown.

    Where people rated both, that decides.
    """
    [whole] = _whole(request)
    texts = {s["step"]: s["text"] for s in request.steps if s["kind"] == StepKind.CANDIDATE}
    chosen = request.plan.get("chosen") or ""
    if chosen not in texts:
        return
    for step, text in texts.items():
        rated = score_of(request, step)
        worse = 0.0 if rated is None else rated
        if step != chosen and _is_apart(whole.score, worse, least_score):
            yield _pair(whole.prompt, whole.text, text)
        elif step != chosen and _is_apart(rated, whole.score, least_score):
            yield _pair(whole.prompt, text, whole.text)


def _answers(request: RatedRequest) -> Iterator[Answered]:
    """The whole answer, and those of its steps that somebody rated by themselves."""
    yield from _whole(request)
    subjects = {judged["subject"] for judged in request.judgements if judged["kind"] == "human"}
    plan = _plan(request)
    for step in plan.steps if plan else ():
        text = next((s["text"] for s in request.steps if s["step"] == step.key), None)
        if step.key in subjects and step.work is not None and not step.depends_on and text:
            score, correction = score_of(request, step.key), _correction(request, step.key)
            yield Answered(_plain(step.messages), text, score, correction)


def _whole(request: RatedRequest) -> list[Answered]:
    prompt = prompt_of(request) or ()
    score, correction = score_of(request, ""), _correction(request, "")
    return [Answered(prompt, request.answer, score, correction)]


def _is_apart(better: float | None, worse: float | None, least_score: float) -> bool:
    if better is None or worse is None or better < least_score:
        return False
    return better - worse >= APART


def _pair(prompt: Sequence[ChatMessage], chosen: str, rejected: str) -> Example:
    return {
        "prompt": list(prompt),
        "chosen": [_said(chosen)],
        "rejected": [_said(rejected)],
    }


def _distinct(pairs: Iterable[Example]) -> Iterator[Example]:
    """Each pair once, and none whose answers are the same."""
    seen: set[tuple[str, str]] = set()
    for pair in pairs:
        texts = (pair["chosen"][0]["content"].strip(), pair["rejected"][0]["content"].strip())
        if all(texts) and texts[0] != texts[1] and texts not in seen:
            seen.add(texts)
            yield pair


def _human(request: RatedRequest, subject: str) -> list[Mapping[str, Any]]:
    return [j for j in request.judgements if j["kind"] == "human" and j["subject"] == subject]


def _was_retried(request: RatedRequest) -> bool:
    return any(judged["kind"] == "retry" for judged in request.judgements)


def _correction(request: RatedRequest, subject: str) -> str | None:
    """The latest one."""
    said = [(judged["correction"] or "").strip() for judged in _human(request, subject)]
    return next((text for text in reversed(said) if text), None)


def _unnamed(rater: str, people: dict[str, str]) -> str:
    if not rater.startswith("user:"):
        return rater
    return people.setdefault(rater, f"person-{len(people) + 1}")


def _only_step(request: RatedRequest) -> Step | None:
    plan = _plan(request)
    answering = [step for step in plan.steps if step.work is not None] if plan else []
    return answering[0] if len(answering) == 1 else None


def _plan(request: RatedRequest) -> Plan | None:
    try:
        return Plan.model_validate(request.plan)
    except ValidationError:
        return None


def _plain(messages: Sequence[Mapping[str, Any]]) -> tuple[ChatMessage, ...]:
    """Messages with what trainers know of them, and their text only."""
    return tuple(
        {"role": message["role"], "content": text_of(message)}
        | {name: message[name] for name in ("tool_calls", "tool_call_id") if message.get(name)}
        for message in messages
    )


def _listed(prompt: Sequence[ChatMessage] | None) -> list[ChatMessage] | None:
    return None if prompt is None else list(prompt)


def _said(text: str) -> ChatMessage:
    return {"role": "assistant", "content": text}
