"""How a request becomes a plan: the strategies by name, and which one a question gets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pydantic import JsonValue, ValidationError

from master.planning import crew, ensemble, router
from master.planning.assign import default_model, learned_words, requested_limit
from master.planning.auto import costly, explained, sentence
from master.planning.compose import messages_for
from master.planning.direct import direct_plan
from master.planning.effects import most_parts, named_rule, routed_strategy, splitting
from master.planning.front_end import background_task, task_plan
from master.planning.growth import Grow, Outcome, Outcomes
from master.planning.model_plan import (
    SillyPlan,
    is_worth_planning,
    planner,
    planning_plan,
    read_proposal,
)
from master.planning.plan import Gate, Plan, Step, StepKind
from master.planning.question import Fleet, Question, Retrieval
from master.planning.rules import find_structure
from master.planning.split import asked, split_plan, why_whole
from master.planning.work import labelled
from master.rules.matching import AUTO
from queue_schemas.registry import RESERVED_PREFIX, AutoStrategy, Registry

__all__ = [
    "STRATEGIES",
    "Outcome",
    "UnknownModel",
    "asked_as",
    "grow",
    "messages_for",
    "model_names",
    "named",
    "plan",
]

RAG = "rag"
FROM_DOCUMENTS = (RAG, router.NAME)
"""Strategies that look something up, also where the client says nothing of it."""
_LISTED = (AUTO, "split", RAG, ensemble.NAME, crew.NAME, router.NAME)
_TEMPERATURE = 0.2
"""Of answers from documents, unless the client says otherwise: quoting needs no fancy."""
_MOST_TOKENS = 1024


class UnknownModel(ValueError):
    """The client asked for a model that is neither in the registry nor a strategy."""

    def __init__(self, name: str, available: Sequence[str]) -> None:
        super().__init__(f"there is no model {name!r}; there are: {', '.join(available)}")
        self.name = name
        self.available = tuple(available)


def named(question: Question) -> Question:
    """The question with what its model's name says of it: `millrace/rag:handbook`.

    A background prompt of a front end looks nothing up.
    """
    if background_task(question) is not None:
        return replace(question, retrieval=None)
    name, _, collection = question.model.removeprefix(RESERVED_PREFIX).partition(":")
    if not question.model.startswith(RESERVED_PREFIX) or name not in FROM_DOCUMENTS:
        return question
    given = question.retrieval or Retrieval(optional=name != RAG and not collection)
    wanted = given.model_dump(exclude_unset=True) | ({"only": True} if name == RAG else {})
    if collection:
        wanted["collection"] = collection
    try:
        return replace(question, retrieval=Retrieval.model_validate(wanted))
    except ValidationError:
        return question  # no such name can exist: planning refuses it


def plan(question: Question, fleet: Fleet) -> Plan:
    """The plan of a request, without what it looks up. Raises UnknownModel."""
    strategy = _strategy(question)
    if strategy is None:
        raise UnknownModel(question.model, model_names(fleet.registry))
    chosen = strategy(question, fleet)
    # After the strategy, so that an unknown model is refused for background prompts as well.
    task = background_task(question)
    if task is not None:
        return task_plan(question, task, fleet)
    return _with_rules(question, labelled(question, chosen))


def grow(question: Question, fleet: Fleet, plan: Plan, outcomes: Outcomes) -> Plan:
    """The plan with what follows, now that these steps have ended; the same if nothing does."""
    strategy = GROWING.get(plan.strategy)
    if strategy is None:
        return plan
    question = replace(question, rules=plan.rules)
    return _with_rules(question, labelled(question, strategy(question, fleet, plan, outcomes)))


def _with_rules(question: Question, plan: Plan) -> Plan:
    """The plan with the rules of its question, which its steps are told when they are sent."""
    if plan.rules == question.rules:
        return plan
    return plan.model_copy(update={"rules": question.rules})


def _split_by_model(question: Question, fleet: Fleet, plan: Plan, outcomes: Outcomes) -> Plan:
    """The plan with its answering steps, now that the step that asked a model for them ended.

    What cannot be used falls back to the rules and then to one answer, so this always gives a plan
    that can be carried out.
    """
    step = plan.steps[0]
    if len(plan.steps) > 1 or step.kind is not StepKind.PLAN or step.key not in outcomes:
        return plan
    text = None if outcomes[step.key].failed else outcomes[step.key].text
    before = (step,)
    problem = "it failed"
    if text is not None:
        try:
            structure = read_proposal(text, asked(question).text, most_parts(question.rules))
        except SillyPlan as silly:
            problem = str(silly)
        else:
            if found := split_plan(question, fleet, structure, before):
                return found
            problem = "max_tokens leaves too few tokens for each part"
    structure_by_rules = find_structure(asked(question).text, most_parts(question.rules))
    if structure_by_rules and (found := split_plan(question, fleet, structure_by_rules, before)):
        return found
    model = default_model(question, fleet)
    reason = f"The model's plan could not be used ({problem}): answered by {model.name} as a whole."
    return direct_plan(question, model, reason, before=before)


def model_names(registry: Registry) -> list[str]:
    """What a client may ask for: the models that answer chats, and the strategies."""
    models = [model.name for model in registry.chat_models()]
    return [*models, *(f"{RESERVED_PREFIX}{name}" for name in _LISTED)]


def asked_as(collection: str) -> str:
    """The model that answers from a collection."""
    return f"{RESERVED_PREFIX}{RAG}:{collection}"


def _strategy(question: Question) -> Callable[[Question, Fleet], Plan] | None:
    if not question.model.startswith(RESERVED_PREFIX):
        return _named
    name, _, collection = question.model.removeprefix(RESERVED_PREFIX).partition(":")
    if collection and (
        name not in FROM_DOCUMENTS or (question.retrieval or Retrieval()).collection != collection
    ):
        return None
    return STRATEGIES.get(name)


def _named(question: Question, fleet: Fleet) -> Plan:
    model = fleet.registry.get(question.model)
    if model is None or not model.chats:
        raise UnknownModel(question.model, model_names(fleet.registry))
    return direct_plan(question, model, f"The client asked for {model.name}.")


def _direct(question: Question, fleet: Fleet) -> Plan:
    return _whole(question, fleet, "the client asked for it")


def _auto(question: Question, fleet: Fleet) -> Plan:
    """What a rule says; else from documents, if some are named; else split, if that pays.

    Else a costly strategy, if the registry lets it and slots are idle. No model is asked for a
    plan here: that would delay every long question's first word.
    """
    name, rule = routed_strategy(question.rules) or (None, None)
    if name is not None and rule is not None and name in STRATEGIES.keys() - {AUTO}:
        why = f"{name} is taken, because {named_rule(rule)} says so"
        return _chosen(question, fleet, name, why)
    if question.retrieval is not None and AutoStrategy.RAG in fleet.registry.auto:
        why = "rag is taken, because there is something to look up"
        return _chosen(question, fleet, RAG, why)
    found, why, gate = _parts_that_pay(question, fleet)
    if found is not None:
        return found
    apt = costly(question, fleet)
    if apt is None:
        return _whole(question, fleet, why, gate)
    gate = explained(gate, apt.why)
    if not apt.taken:
        return _whole(question, fleet, f"{why}; {apt.why}", gate)
    return _chosen(question, fleet, apt.strategy, apt.why, gate)


def _chosen(
    question: Question, fleet: Fleet, name: str, why: str, gate: Gate | None = None
) -> Plan:
    """The plan of the strategy that auto has chosen. What grows gives other reasons later."""
    made = STRATEGIES[name](question, fleet)
    said = gate or made.gate or explained(None, why)
    return made.model_copy(update={"gate": said, "reason": f"{sentence(why)} {made.reason}"})


def _parts_that_pay(question: Question, fleet: Fleet) -> tuple[Plan | None, str, Gate | None]:
    """The split plan, or why there is none and what the gate said."""
    said = splitting(question.rules)
    if said is None and AutoStrategy.SPLIT not in fleet.registry.auto:
        return None, "auto does not split here", None
    found = _by_rules(question, fleet)
    if isinstance(found, str):
        return None, found, None
    if said is not None:
        reason = f"{found.reason} Split, because {named_rule(said[1])} says so."
        return found.model_copy(update={"reason": reason}), "", None
    if found.gate is None or found.gate.split:
        return found, "", None
    return None, "splitting would not pay", found.gate


def _split(question: Question, fleet: Fleet) -> Plan:
    """Split where parts are found, by the rules or else by a model, whatever the gate says."""
    found = _by_rules(question, fleet)
    if not isinstance(found, str):
        return found
    model = planner(fleet)
    # What a model finds as parts is known too late to look anything up for them.
    if model is None or why_whole(question) or question.retrieval:
        return _whole(question, fleet, found)
    text, most = asked(question).text, most_parts(question.rules)
    if find_structure(text, most) or not is_worth_planning(text, model):
        return _whole(question, fleet, found)
    return planning_plan(text, model, most)


def _rag(question: Question, fleet: Fleet) -> Plan:
    """From documents only. Parts that the rules find look up each for itself, which finds more."""
    found = _by_rules(question, fleet)
    if isinstance(found, str):
        found = _whole(question, fleet, f"from documents; {found}")
    steps = [_from_sources(step) if step.kind is StepKind.ANSWER else step for step in found.steps]
    return found.model_copy(update={"strategy": RAG, "steps": tuple(steps)})


def _from_sources(step: Step) -> Step:
    defaults: dict[str, JsonValue] = {"temperature": _TEMPERATURE}
    if requested_limit(step.parameters) is None:
        defaults["max_tokens"] = _MOST_TOKENS
    return step.model_copy(update={"parameters": defaults | step.parameters})


def _by_rules(question: Question, fleet: Fleet) -> Plan | str:
    """The split plan, or why there is none."""
    if reason := why_whole(question):
        return reason
    said = splitting(question.rules)
    if said is not None and not said[0]:
        return f"{named_rule(said[1])} says not to split"
    structure = find_structure(asked(question).text, most_parts(question.rules))
    if structure is None:
        return "it is one question"
    found = split_plan(question, fleet, structure)
    return found or "max_tokens leaves too few tokens for each part"


def _whole(question: Question, fleet: Fleet, why: str, gate: Gate | None = None) -> Plan:
    model = default_model(question, fleet)
    why = "; ".join(filter(None, (why, learned_words(question, fleet))))
    reason = f"Answered by {model.name} as a whole: {why}."
    return direct_plan(question, model, reason, gate=gate)


STRATEGIES: Mapping[str, Callable[[Question, Fleet], Plan]] = {
    AUTO: _auto,
    "direct": _direct,
    "split": _split,
    RAG: _rag,
    ensemble.NAME: ensemble.ensemble_plan,
    crew.NAME: crew.crew_plan,
    router.NAME: router.router_plan,
}
GROWING: Mapping[str, Grow] = {
    "split": _split_by_model,
    ensemble.NAME: ensemble.grow,
    crew.NAME: crew.grow,
    router.NAME: router.grow,
}
