"""Which model does what: capability first, then the shortest wait, then the price.

Of models that are able, one that people judged better goes before what the file prefers.

Engines that only quote (`extractive`) are chosen where nothing else answers chats.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pydantic import JsonValue

from master.planning.chat import estimate_chat_tokens, has_images
from master.planning.effects import routed, told_tokens
from master.planning.question import Fleet, Question
from master.planning.work import work_of
from master.rules.bandit import WORDS, Work
from master.rules.rule import UsedRule
from queue_schemas.registry import Capability, Model, ProviderName, cheapest

DEFAULT_TOKENS_PER_SECOND = 20.0
"""Assumed rate of one slot until one was measured: a mid-size model on a consumer GPU."""
TYPICAL_OUTPUT_TOKENS = 300
COLD_START_SECONDS = 30.0
"""Assumed time until a model that has no live worker can begin."""


def rate(model: Model, fleet: Fleet) -> float:
    """Tokens per second of one slot, measured or assumed."""
    measured = fleet.tokens_per_second.get(model.name, 0.0)
    return measured if measured > 0 else DEFAULT_TOKENS_PER_SECOND


def free_slots(model: Model, fleet: Fleet) -> int:
    """Slots that are idle now; those of the smallest fleet while no worker was heard of."""
    if model.name in fleet.free_slots:
        return max(0, fleet.free_slots[model.name])
    if fleet.free_slots:
        return 0
    return max(0, model.slots * max(1, model.min_workers) - fleet.backlog.get(model.name, 0))


def expected_wait(model: Model, fleet: Fleet, assigned: int = 0) -> float:
    """Seconds until a slot is free, when so many parts of this plan were assigned before."""
    missing = assigned + 1 - free_slots(model, fleet)
    if missing <= 0:
        return 0.0
    ahead = missing + (fleet.backlog.get(model.name, 0) if missing > assigned else 0)
    cold = bool(fleet.free_slots) and model.name not in fleet.free_slots
    turns = ahead / (model.slots * model.max_workers)
    return turns * TYPICAL_OUTPUT_TOKENS / rate(model, fleet) + COLD_START_SECONDS * cold


def assign(
    kind: Capability,
    tokens: int,
    fleet: Fleet,
    assigned: Mapping[str, int],
    rules: Sequence[UsedRule] = (),
    work: Work | None = None,
) -> Model:
    """The model for a part of this kind that takes so many tokens, prompt and answer.

    Of those that can begin equally soon, one that was judged better at this work goes first.
    """
    able = _able(generative(fleet.registry.chat_models()), (kind,), (Capability.CHAT,))
    fitting = [model for model in able if tokens <= model.context_length] or _widest(able)
    soonest = min(
        fitting,
        key=lambda model: (
            round(expected_wait(model, fleet, assigned.get(model.name, 0)), 3),
            work is None or model.name != fleet.learned.get(work),
            model.price.prompt + model.price.completion,
            model.gpu_memory_gib,
        ),
    )
    return routed(rules, fitting, soonest)


def default_model(question: Question, fleet: Fleet) -> Model:
    """The model for a whole question that names none: what a rule says, or the file's first.

    It sees images and calls tools if the question has them, answers chats, and has room for the
    prompt and an answer; the first wish to be given up is the last one here.
    """
    chat = Capability.CHAT
    wanted = {chat}
    if has_images(question.messages):
        wanted.add(Capability.VISION)
    if question.parameters.get("tools") or question.parameters.get("functions"):
        wanted.add(Capability.TOOLS)
    able = _able(generative(fleet.registry.chat_models()), tuple(wanted), (chat,))
    tokens = estimate_chat_tokens(question.messages) + told_tokens(question.rules)
    fitting = [model for model in able if tokens + _output(question, model) <= model.context_length]
    fitting = fitting or _widest(able)
    model = routed(question.rules, fitting, fitting[0])
    if model is not fitting[0] or not fleet.learned:
        return model
    return routed(question.rules, fitting, _learned(question, fitting, fleet))


def learned_words(question: Question, fleet: Fleet) -> str:
    """Why the default model is not the one that the registry prefers; empty where it is."""
    alone = replace(fleet, learned={})
    if not fleet.learned or default_model(question, fleet) == default_model(question, alone):
        return ""
    work = work_of(question)
    return f"tried for {WORDS[work]}" if work in fleet.tried else f"judged better for {WORDS[work]}"


def _learned(question: Question, fitting: Sequence[Model], fleet: Fleet) -> Model:
    """The model that was judged better than the first of these, or that one.

    They were compared in the place of the registry's first; where that one cannot answer, or the
    other one is not there, nothing is known.
    """
    first = fitting[0]
    if first != generative(fleet.registry.chat_models())[0]:
        return first
    name = fleet.learned.get(work_of(question))
    away = bool(fleet.free_slots) and name not in fleet.free_slots
    return next((model for model in fitting if model.name == name and not away), first)


def cheapest_model(tokens: int, fleet: Fleet) -> Model:
    """The cheapest model with room for so many tokens, for work that nobody reads closely."""
    models = generative(fleet.registry.chat_models())
    return cheapest([model for model in models if tokens <= model.context_length] or models)


def largest_model(fleet: Fleet) -> Model:
    """The model to ask where it matters: by price, then memory, then room, then file order."""
    models = generative(fleet.registry.chat_models())
    return max(
        models,
        key=lambda m: (m.price.prompt + m.price.completion, m.gpu_memory_gib, m.context_length),
    )


def judge_model(fleet: Fleet) -> Model:
    """The model that judges answers: the registry's choice, else the largest."""
    return role(fleet.registry.roles.judge, fleet) or largest_model(fleet)


def role(name: str | None, fleet: Fleet) -> Model | None:
    """The model of a role in the registry, if it is set and answers chats."""
    model = fleet.registry.get(name) if name else None
    return model if model is not None and model.chats else None


def generative(models: Sequence[Model]) -> Sequence[Model]:
    """The models that write; all of them where none does."""
    return [model for model in models if model.provider is not ProviderName.EXTRACTIVE] or models


def output_limit(parameters: Mapping[str, JsonValue], model: Model) -> int:
    """How many tokens an answer may have at most."""
    asked = requested_limit(parameters)
    return min(asked, model.max_output_tokens) if asked else model.max_output_tokens


def requested_limit(parameters: Mapping[str, JsonValue]) -> int | None:
    """The limit that the client set, if it set one."""
    for name in ("max_completion_tokens", "max_tokens"):
        value = parameters.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _output(question: Question, model: Model) -> int:
    return output_limit(question.parameters, model)


def _able(models: Sequence[Model], *wishes: Iterable[Capability]) -> Sequence[Model]:
    for wish in wishes:
        if found := [model for model in models if model.capabilities >= frozenset(wish)]:
            return found
    return models


def _widest(models: Sequence[Model]) -> list[Model]:
    most = max(model.context_length for model in models)
    return [model for model in models if model.context_length == most]
