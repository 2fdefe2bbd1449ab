"""Giving the steps of a plan what was found for them in documents.

Every step looks up for itself. The numbers are given for the whole request, so the same piece has
the same number wherever it is cited, and what one part cites stays right beside what another does.
"""

from collections.abc import Mapping, Sequence

from master.planning.assign import output_limit
from master.planning.chat import estimate_chat_tokens, last_user, text_of, with_text
from master.planning.context import find_context, select_passages, with_passages
from master.planning.effects import told_tokens
from master.planning.language import phrases_for
from master.planning.plan import Plan, Retrieved, Source, Step
from master.planning.question import Fleet, Question
from master.planning.quoting import unmarked
from queue_schemas.messages import Passage

LATER = ""
"""In the place of a step's key: what is kept for steps that are to come."""
_SPARE_TOKENS = 64
_FEW_WORDS = 8
"""A question that short is about what was said before."""


def looked_up(question: Question) -> str:
    """What a whole question looks up: its last words, with those before where they are few."""
    grounding = find_context(question.messages)
    asked = [text_of(m) for m in question.messages if m.get("role") == "user"]
    if grounding is not None:
        asked[-1] = grounding.question
    *before, last = asked or [""]
    if before and len(last.split()) < _FEW_WORDS:
        return f"{before[-1]}\n{last}".strip()
    return last.strip()


def ground(
    plan: Plan,
    found: Mapping[str, Sequence[Source]],
    question: Question,
    fleet: Fleet,
    retrieved: Retrieved | None = None,
) -> Plan:
    """The plan with sources in its steps' prompts. `found` is by step; numbers in it are ignored.

    What does not fit a step's model beside its prompt is left out, the least relevant first.
    """
    retrieval = question.retrieval
    if retrieval is None or not found:
        return plan
    numbered = _Numbers(_highest_given(plan, question))
    steps: list[Step] = []
    for source in found.get(LATER, ()):
        numbered.keep(source)
    for step in plan.steps:
        if step.key not in found:
            steps.append(step)
            continue
        fitting = _fitting(step, found[step.key], question, fleet)
        passages = [numbered.passage(source, step.key) for source in fitting]
        steps.append(_given(step, passages, fleet, only=retrieval.only))
    sources = {"sources": numbered.sources(), "retrieved": retrieved}
    return plan.model_copy(update={"steps": tuple(steps), **sources})


def ground_later(plan: Plan, step: Step, question: Question, fleet: Fleet) -> tuple[Plan, Step]:
    """A step that was added to the plan, with the sources that were kept for such steps."""
    fitting = {source.number for source in _fitting(step, plan.sources, question, fleet)}
    sources = tuple(
        source.model_copy(update={"steps": (*source.steps, step.key)})
        if source.number in fitting
        else source
        for source in plan.sources
    )
    passages = [_passage(source) for source in sources if source.number in fitting]
    only = question.retrieval is not None and question.retrieval.only
    return plan.model_copy(update={"sources": sources}), _given(step, passages, fleet, only=only)


def _passage(source: Source) -> Passage:
    return Passage(number=source.number, source=unmarked(source.label), text=unmarked(source.text))


class _Numbers:
    """Which number each piece has, counted on from those that came with the question."""

    def __init__(self, highest: int) -> None:
        self._highest = highest
        self._sources: dict[int, Source] = {}

    def passage(self, source: Source, step: str) -> Passage:
        return _passage(self.keep(source, step))

    def keep(self, source: Source, *steps: str) -> Source:
        known = self._sources.get(source.chunk)
        number = known.number if known else self._highest + len(self._sources) + 1
        given = (*(known.steps if known else ()), *steps)
        kept = (known or source).model_copy(update={"number": number, "steps": given})
        self._sources[source.chunk] = kept
        return kept

    def sources(self) -> tuple[Source, ...]:
        return tuple(self._sources.values())


def _highest_given(plan: Plan, question: Question) -> int:
    grounding = find_context(question.messages)
    numbers = [passage.number for passage in grounding.passages] if grounding else []
    numbers += [passage.number for step in plan.steps for passage in step.passages]
    return max(numbers, default=0)


def _fitting(step: Step, found: Sequence[Source], question: Question, fleet: Fleet) -> list[Source]:
    model = fleet.registry.get(step.model)
    if model is None:
        return list(found)
    room = model.context_length - output_limit(step.parameters, model) - _SPARE_TOKENS
    room -= estimate_chat_tokens(step.messages) + told_tokens(question.rules)
    pieces = [Passage(number=1, source=source.label, text=source.text) for source in found]
    # By object: two pieces may have the same text.
    chosen = {id(piece) for piece in select_passages(step.lookup, pieces, room)}
    return [source for source, piece in zip(found, pieces, strict=True) if id(piece) in chosen]


def _given(step: Step, passages: Sequence[Passage], fleet: Fleet, *, only: bool) -> Step:
    model = fleet.registry.get(step.model)
    place = last_user(step.messages)
    if model is None or place is None:
        return step
    asked = text_of(step.messages[place])
    phrases = phrases_for(asked)
    if passages:
        says = phrases.only_sources if only else phrases.sources
        prompt, beside = with_passages(asked, passages, model, says)
    else:
        prompt, beside = (f"{phrases.no_sources}\n\n{asked}" if only else asked), ()
    messages = list(step.messages)
    messages[place] = with_text(step.messages[place], prompt)
    return step.model_copy(
        update={"messages": tuple(messages), "passages": (*step.passages, *beside)}
    )
