"""Whether `auto` takes a strategy that costs several model calls before the first word."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from master.planning import crew, ensemble
from master.planning.assign import default_model, free_slots, judge_model
from master.planning.plan import Gate
from master.planning.question import Fleet, Question
from master.planning.question_kind import QuestionKind, kind_by_words
from master.planning.split import asked, why_whole
from queue_schemas.registry import AutoStrategy, Model

_FOR_KIND: Final[Mapping[QuestionKind, AutoStrategy]] = {
    QuestionKind.FACTUAL: AutoStrategy.ROUTER,
    QuestionKind.ANALYTICAL: AutoStrategy.CREW,
    QuestionKind.CREATIVE: AutoStrategy.ENSEMBLE,
}


@dataclass(frozen=True)
class Costly:
    """A strategy that is apt for a question."""

    strategy: AutoStrategy
    taken: bool
    why: str
    """Why it is taken or not, in words that begin a sentence or follow a semicolon."""


def costly(question: Question, fleet: Fleet) -> Costly | None:
    """The costly strategy for this kind of question; None where the registry lists none for it.

    It is taken only if every model that it begins with, and the one that judges, has idle slots.
    """
    if why_whole(question) is not None:
        return None
    kind = kind_by_words(asked(question).text)
    strategy = _FOR_KIND.get(kind) if kind else None
    if kind is None or strategy is None or strategy not in fleet.registry.auto:
        return None
    wanted, idle = _slots(strategy, question, fleet)
    taken = idle == wanted
    verb = "is taken" if taken else "would be apt but is not taken"
    why = f"{strategy} {verb}, because the question is {kind} and {idle} of {wanted} slots are idle"
    return Costly(strategy, taken, why)


def explained(gate: Gate | None, why: str) -> Gate:
    """The gate's judgement with why there is no split but something else."""
    if gate is None:
        return Gate(split=False, reason=sentence(why))
    return gate.model_copy(update={"reason": f"{gate.reason} {sentence(why)}"})


def _slots(strategy: AutoStrategy, question: Question, fleet: Fleet) -> tuple[int, int]:
    """How many slots a strategy would like to have, and how many of those are idle."""
    models = [*_first_models(strategy, question, fleet), judge_model(fleet)]
    by_name = {model.name: model for model in models}
    wanted = Counter(model.name for model in models[:-1]) | Counter([models[-1].name])
    idle = sum(min(count, free_slots(by_name[name], fleet)) for name, count in wanted.items())
    return wanted.total(), idle


def _first_models(strategy: AutoStrategy, question: Question, fleet: Fleet) -> tuple[Model, ...]:
    """One for each generation that goes on at the same time."""
    if strategy is AutoStrategy.ENSEMBLE:
        return tuple(ensemble.candidate_models(fleet))
    if strategy is AutoStrategy.CREW:
        return (crew.writing_model(question, fleet),)
    return (default_model(question, fleet),)


def sentence(words: str) -> str:
    """Words as a sentence."""
    return f"{words[:1].upper()}{words[1:]}."
