"""A question as parts that are answered at the same time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from master.planning.assign import (
    assign,
    default_model,
    output_limit,
    requested_limit,
    role,
)
from master.planning.chat import (
    ChatMessage,
    estimate_chat_tokens,
    estimate_tokens,
    has_images,
    last_user,
    text_of,
    with_text,
)
from master.planning.context import (
    Grounding,
    cut,
    find_context,
    select_passages,
    with_passages,
    without_context,
)
from master.planning.effects import told_tokens
from master.planning.gate import Load, decide
from master.planning.language import phrases_for
from master.planning.plan import AggregatorName, Gate, Plan, Step, StepKind
from master.planning.question import Fleet, Question
from master.planning.quoting import quoted
from master.planning.structure import Merge, Part, Structure
from master.planning.work import part_work
from queue_schemas.messages import Passage
from queue_schemas.registry import Capability, Model, ProviderName

SYNTHESIS_KEY = "synthesis"
_LEAST_OUTPUT_TOKENS = 64
_SPARE_TOKENS = 64
_EXPECTED_OUTPUT = {Capability.CODE: 400, Capability.REASONING: 350, Capability.SUMMARY: 150}
_EXPECTED_ANSWER = 250


@dataclass(frozen=True)
class Asked:
    """The question with its documents set apart."""

    text: str
    history: tuple[ChatMessage, ...]
    last: ChatMessage
    grounding: Grounding | None


def asked(question: Question) -> Asked:
    """Set the documents of a question apart. Its last message must be the user's."""
    grounding = find_context(question.messages)
    *history, last = without_context(question.messages, grounding)
    return Asked(text_of(last), tuple(history), last, grounding)


def why_whole(question: Question) -> str | None:
    """Why a question must not be taken apart, whatever it says; None if it may."""
    given = question.parameters
    reasons = {
        "it offers tools": given.get("tools") or given.get("functions"),
        "it asks for a response format": _response_type(given) not in {None, "text"},
        "it asks for several answers": given.get("n") not in {None, 1},
        "it asks for log probabilities": given.get("logprobs"),
        "the last message is not the user's": (
            last_user(question.messages) != len(question.messages) - 1
        ),
        "it has images": has_images(question.messages),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def split_plan(
    question: Question, fleet: Fleet, structure: Structure, before: tuple[Step, ...] = ()
) -> Plan | None:
    """The plan for a structure, with the gate's judgement. `before`: steps that ran first.

    None when the client's limit leaves too few tokens for each part.
    """
    limit = requested_limit(question.parameters)
    share = limit // len(structure.parts) if limit else None
    if share is not None and share < _LEAST_OUTPUT_TOKENS:
        return None
    parted = asked(question)
    synthesis = _synthesis(question, parted, structure, fleet)
    steps, loads = _parts(question, parted, structure, fleet)
    spare = _SPARE_TOKENS + told_tokens(question.rules)
    if synthesis is not None:
        step, load = synthesis
        steps, loads = [*_leaving_room(steps, step, fleet, spare), step], [*loads, load]
    elif share is not None:
        steps = [_limited(step, share) for step in steps]
    steps = _leaving_room_for_dependents(steps, fleet, spare)
    merged = synthesis is not None
    return Plan(
        strategy="split",
        aggregator=AggregatorName.SYNTHESIS if merged else AggregatorName.SECTIONS,
        steps=(*before, *steps),
        gate=_gate(question, fleet, loads, merged),
        reason=f"The question has {structure.reason}.",
    )


def _parts(
    question: Question, parted: Asked, structure: Structure, fleet: Fleet
) -> tuple[list[Step], list[Load]]:
    steps: list[Step] = []
    loads: list[Load] = []
    assigned: Counter[str] = Counter()
    history = estimate_chat_tokens(parted.history) + told_tokens(question.rules)
    for place, part in enumerate(structure.parts):
        expected = _expected_output(part, question)
        own = history + estimate_tokens(part.prompt) + estimate_tokens(part.document)
        work = part_work(part.kind)
        model = assign(part.kind, own + expected, fleet, assigned, question.rules, work)
        assigned[model.name] += 1
        room = model.context_length - output_limit(question.parameters, model) - own
        prompt, passages = _prompt(part, place, parted.grounding, model, room - _SPARE_TOKENS)
        step = Step(
            key=part_key(place),
            title=part.title,
            model=model.name,
            messages=(*parted.history, with_text(parted.last, prompt)),
            parameters=dict(question.parameters),
            passages=passages,
            lookup=part.ask if question.retrieval else "",
            depends_on=tuple(part_key(need) for need in part.depends_on),
            work=work,
        )
        steps.append(step)
        loads.append(Load(model, _prompt_tokens(step), expected, part.depends_on))
    return steps, loads


def part_key(place: int) -> str:
    """The key of the part at this place, counted from 0."""
    return f"part-{place + 1}"


def _prompt(
    part: Part, place: int, grounding: Grounding | None, model: Model, room: int
) -> tuple[str, tuple[Passage, ...]]:
    """What is asked, with the documents in the prompt or beside it, as the engine reads them."""
    quotes = model.provider is ProviderName.EXTRACTIVE
    prompt = part.ask if quotes else part.prompt
    if part.document:
        if quotes:
            texts = cut(part.document)
            return prompt, tuple(
                Passage(number=place + 1, source=part.title, text=t) for t in texts
            )
        prompt = f"{prompt}\n\n{quoted('document', [('', part.document)])}"
    if grounding is None:
        return prompt, ()
    return with_passages(prompt, select_passages(part.ask, grounding.passages, room), model)


def _synthesis(
    question: Question, parted: Asked, structure: Structure, fleet: Fleet
) -> tuple[Step, Load] | None:
    """The step that merges; None when the parts stand alone, or no model can write."""
    if structure.merge is Merge.NONE:
        return None
    phrases = phrases_for(parted.text)
    sections = structure.merge is Merge.SECTIONS
    text = structure.parts[0].ask if sections else parted.text
    wish = f"{text}\n\n{phrases.merge_sections if sections else phrases.merge}"
    outputs = [_expected_output(part, question) for part in structure.parts]
    tokens = estimate_chat_tokens(parted.history) + estimate_tokens(wish) + sum(outputs)
    tokens += told_tokens(question.rules)
    expected = _within(100 + sum(outputs) // 2, question)
    model = role(fleet.registry.roles.synthesis, fleet)
    model = model or assign(Capability.CHAT, tokens + expected, fleet, {}, question.rules)
    if model.provider is ProviderName.EXTRACTIVE:
        return None
    step = Step(
        key=SYNTHESIS_KEY,
        kind=StepKind.SYNTHESIS,
        model=model.name,
        messages=(*parted.history, with_text(parted.last, wish)),
        parameters=dict(question.parameters),
        depends_on=tuple(part_key(place) for place in range(len(outputs))),
    )
    return step, Load(model, tokens, expected, tuple(range(len(outputs))))


def _gate(question: Question, fleet: Fleet, loads: Sequence[Load], merged: bool) -> Gate:
    """Compare with the one answer, which says as much as the parts, or as their synthesis."""
    told = [loads[-1]] if merged else loads
    model = default_model(question, fleet)
    outputs = sum(load.output_tokens for load in told)
    whole = Load(model, estimate_chat_tokens(question.messages), outputs)
    return decide(whole, loads, fleet)


def _leaving_room_for_dependents(steps: Sequence[Step], fleet: Fleet, spare: int) -> list[Step]:
    shaped = list(steps)
    for step in steps:
        if step.depends_on and step.kind is StepKind.ANSWER:
            shaped = _leaving_room(shaped, step, fleet, spare)
    return shaped


def _leaving_room(steps: Sequence[Step], reader: Step, fleet: Fleet, spare: int) -> list[Step]:
    """Limit the answers that a step is given, so that all of them fit its model together."""
    model = fleet.registry.get(reader.model)
    if model is None:
        return list(steps)
    room = model.context_length - output_limit(reader.parameters, model) - _prompt_tokens(reader)
    share = max(_LEAST_OUTPUT_TOKENS, (room - spare) // len(reader.depends_on))
    return [_limited(step, share) if step.key in reader.depends_on else step for step in steps]


def _limited(step: Step, tokens: int) -> Step:
    limit = requested_limit(step.parameters)
    if limit is not None and limit <= tokens:
        return step
    newer = "max_completion_tokens" in step.parameters
    name = "max_completion_tokens" if newer else "max_tokens"
    return step.model_copy(update={"parameters": {**step.parameters, name: tokens}})


def _prompt_tokens(step: Step) -> int:
    passages = sum(estimate_tokens(passage.text) for passage in step.passages)
    return estimate_chat_tokens(step.messages) + passages


def _expected_output(part: Part, question: Question) -> int:
    return _within(_EXPECTED_OUTPUT.get(part.kind, _EXPECTED_ANSWER), question)


def _within(tokens: int, question: Question) -> int:
    return min(tokens, requested_limit(question.parameters) or tokens)


def _response_type(parameters: Mapping[str, JsonValue]) -> JsonValue:
    wanted = parameters.get("response_format")
    return wanted.get("type") if isinstance(wanted, dict) else wanted
