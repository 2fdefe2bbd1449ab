"""How a request becomes a plan: the strategies by name, and which one a question gets."""

from collections.abc import Callable, Mapping, Sequence

from master.planning.assign import default_model
from master.planning.compose import messages_for
from master.planning.direct import direct_plan
from master.planning.front_end import background_task, task_plan
from master.planning.model_plan import (
    SillyPlan,
    is_worth_planning,
    planner,
    planning_plan,
    read_proposal,
)
from master.planning.plan import Gate, Plan, Step
from master.planning.question import Fleet, Question
from master.planning.rules import find_structure
from master.planning.split import asked, split_plan, why_whole
from queue_schemas.registry import RESERVED_PREFIX, Registry

__all__ = ["STRATEGIES", "UnknownModel", "expand", "messages_for", "model_names", "plan"]

_LISTED = ("auto", "split")


class UnknownModel(ValueError):
    """The client asked for a model that is neither in the registry nor a strategy."""

    def __init__(self, name: str, available: Sequence[str]) -> None:
        super().__init__(f"there is no model {name!r}; there are: {', '.join(available)}")
        self.name = name
        self.available = tuple(available)


def plan(question: Question, fleet: Fleet) -> Plan:
    """The plan of a request. Raises UnknownModel."""
    strategy = STRATEGIES.get(question.model.removeprefix(RESERVED_PREFIX))
    if not question.model.startswith(RESERVED_PREFIX):
        strategy = _named
    if strategy is None:
        raise UnknownModel(question.model, model_names(fleet.registry))
    chosen = strategy(question, fleet)
    # After the strategy, so that an unknown model is refused for background prompts as well.
    task = background_task(question)
    return chosen if task is None else task_plan(question, task, fleet)


def expand(question: Question, fleet: Fleet, plan: Plan, step: Step, text: str | None) -> Plan:
    """The plan with its answering steps, now that the step that asked a model for them ended.

    `text` is the model's answer, None when there is none. What cannot be used falls back to the
    rules and then to one answer, so this always gives a plan that can be carried out.
    """
    before = (step,)
    problem = "it failed"
    if text is not None:
        try:
            structure = read_proposal(text, asked(question).text)
        except SillyPlan as silly:
            problem = str(silly)
        else:
            if found := split_plan(question, fleet, structure, before):
                return found
            problem = "max_tokens leaves too few tokens for each part"
    structure_by_rules = find_structure(asked(question).text)
    if structure_by_rules and (found := split_plan(question, fleet, structure_by_rules, before)):
        return found
    model = default_model(question, fleet)
    reason = f"The model's plan could not be used ({problem}): answered by {model.name} as a whole."
    return direct_plan(question, model, reason, before=before)


def model_names(registry: Registry) -> list[str]:
    """What a client may ask for: the models that answer chats, and the strategies."""
    models = [model.name for model in registry.chat_models()]
    return [*models, *(f"{RESERVED_PREFIX}{name}" for name in _LISTED)]


def _named(question: Question, fleet: Fleet) -> Plan:
    model = fleet.registry.get(question.model)
    if model is None or not model.chats:
        raise UnknownModel(question.model, model_names(fleet.registry))
    return direct_plan(question, model, f"The client asked for {model.name}.")


def _direct(question: Question, fleet: Fleet) -> Plan:
    return _whole(question, fleet, "the client asked for it")


def _auto(question: Question, fleet: Fleet) -> Plan:
    """Split where the rules find parts and the gate says that it pays.

    No model is asked for a plan here: that would delay every long question's first word.
    """
    found = _by_rules(question, fleet)
    if isinstance(found, str):
        return _whole(question, fleet, found)
    if found.gate is None or found.gate.split:
        return found
    return _whole(question, fleet, "splitting would not pay", found.gate)


def _split(question: Question, fleet: Fleet) -> Plan:
    """Split where parts are found, by the rules or else by a model, whatever the gate says."""
    found = _by_rules(question, fleet)
    if not isinstance(found, str):
        return found
    model = planner(fleet)
    if model is None or why_whole(question):
        return _whole(question, fleet, found)
    text = asked(question).text
    if find_structure(text) or not is_worth_planning(text, model):
        return _whole(question, fleet, found)
    return planning_plan(text, model)


def _by_rules(question: Question, fleet: Fleet) -> Plan | str:
    """The split plan, or why there is none."""
    if reason := why_whole(question):
        return reason
    structure = find_structure(asked(question).text)
    if structure is None:
        return "it is one question"
    found = split_plan(question, fleet, structure)
    return found or "max_tokens leaves too few tokens for each part"


def _whole(question: Question, fleet: Fleet, why: str, gate: Gate | None = None) -> Plan:
    model = default_model(question, fleet)
    reason = f"Answered by {model.name} as a whole: {why}."
    return direct_plan(question, model, reason, gate=gate)


STRATEGIES: Mapping[str, Callable[[Question, Fleet], Plan]] = {
    "auto": _auto,
    "direct": _direct,
    "split": _split,
}
