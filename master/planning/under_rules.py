"""From the rules in force to those that hold for a question, before it is planned.

What could not act is left out, whatever its arm is, so that what is compared can be compared.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import replace
from uuid import UUID

from master.planning.assign import (
    TYPICAL_OUTPUT_TOKENS,
    default_model,
    generative,
    requested_limit,
)
from master.planning.chat import estimate_chat_tokens, estimate_tokens
from master.planning.context import find_context
from master.planning.effects import routed_strategy
from master.planning.front_end import background_task
from master.planning.growth import asked_text
from master.planning.memory import woven
from master.planning.question import Fleet, Question, Retrieval
from master.planning.strategies import FROM_DOCUMENTS, RAG, STRATEGIES
from master.rules.matching import AUTO, DIRECT, Asked, RuleInForce, choose, fits
from master.rules.rule import PromptChange, RetrievalChange, RouteChange, UsedRule
from queue_schemas.registry import RESERVED_PREFIX, Model
from queue_schemas.states import RuleState


def asked_of(question: Question) -> Asked | None:
    """A question as rules see it; None for a background prompt, which none is for."""
    if background_task(question) is not None:
        return None
    grounding = find_context(question.messages)
    text = grounding.question if grounding else asked_text(question)
    if not question.model.startswith(RESERVED_PREFIX):
        return Asked(DIRECT, question.model, text)
    strategy, _, _ = question.model.removeprefix(RESERVED_PREFIX).partition(":")
    return Asked(strategy, text=text)


def under_rules(
    question: Question, rules: Sequence[RuleInForce], request: UUID, fleet: Fleet
) -> Question:
    """The question with the rules that hold for it, and with what it now looks up.

    One that asks for a model that is not there is left to planning, which refuses it.
    """
    asked = asked_of(question) if rules else None
    if asked is None:
        return question
    models = frozenset(model.name for model in fleet.registry.chat_models())
    used = tuple(rule for rule in choose(rules, asked, request) if _is_served(rule, models))
    seen = woven(question)
    whole = _whole_model(replace(seen, rules=used), fleet) if used else None
    if whole is None:
        return question
    used = tuple(rule for rule in used if _is_for(rule, whole))
    retrieval = _retrieval(question, used)
    if retrieval is None:
        used = tuple(rule for rule in used if not isinstance(rule.change, RetrievalChange))
    used = tuple(_with_room(used, _room(seen, whole, fleet)))
    return replace(question, rules=tuple(rule.kept for rule in used), retrieval=retrieval)


def most_told(question: Question, rules: Iterable[RuleInForce]) -> int:
    """The most tokens that rules in force could add to what a model is told of a question."""
    asked = asked_of(question)
    if asked is None:
        return 0
    fitting = [r for r in rules if r.state is not RuleState.SHADOW and fits(r, asked)]
    changes = [rule.change for rule in fitting]
    return sum(estimate_tokens(c.text) for c in changes if isinstance(c, PromptChange))


def _is_served(rule: UsedRule, models: Set[str]) -> bool:
    """Whether the models and the strategy that a rule names are still there."""
    if rule.model is not None and rule.model not in models:
        return False
    match rule.change:
        case RouteChange(model=str(model)):
            return model in models
        case RouteChange(strategy=str(strategy)):
            return strategy in STRATEGIES and strategy != AUTO
        case _:
            return True


def _whole_model(question: Question, fleet: Fleet) -> Model | None:
    """The model that would answer the question as a whole."""
    if question.model.startswith(RESERVED_PREFIX):
        return default_model(question, fleet)
    return fleet.registry.get(question.model)


def _is_for(rule: UsedRule, whole: Model) -> bool:
    """What is no matter of single steps is decided by the model of the whole question."""
    by_step = isinstance(rule.change, PromptChange) or (
        isinstance(rule.change, RouteChange) and rule.change.model is not None
    )
    return by_step or rule.model in {None, whole.name}


def _retrieval(question: Question, rules: Sequence[UsedRule]) -> Retrieval | None:
    """What the question looks up: what its client did not say may be said by rules."""
    wanted = question.retrieval
    strategy, _ = routed_strategy(rules) or (None, None)
    if strategy in FROM_DOCUMENTS:
        wanted = wanted or Retrieval(optional=True)
    if wanted is None:
        return None
    said: dict[str, object] = {"only": True} if strategy == RAG else {}
    for rule in reversed(rules):
        if rule.applies and isinstance(rule.change, RetrievalChange):
            said |= rule.change.model_dump(include={"top", "candidates"}, exclude_none=True)
    changes = {name: value for name, value in said.items() if name not in wanted.model_fields_set}
    return wanted.model_copy(update=changes) if changes else wanted


def _room(question: Question, whole: Model, fleet: Fleet) -> int:
    """Tokens that the model with the most room could be told besides the question."""
    widest = whole.context_length
    if question.model.startswith(RESERVED_PREFIX):
        models = generative(fleet.registry.chat_models())
        widest = max(model.context_length for model in models)
    answer = requested_limit(question.parameters) or TYPICAL_OUTPUT_TOKENS
    return widest - estimate_chat_tokens(question.messages) - answer


def _with_room(rules: Sequence[UsedRule], room: int) -> Iterator[UsedRule]:
    """The rules without words that would push the question itself out of the context."""
    for rule in rules:
        tokens = estimate_tokens(rule.change.text) if isinstance(rule.change, PromptChange) else 0
        if tokens <= max(0, room):
            room -= tokens * rule.applies
            yield rule
