"""What the rules that apply to a question say of models, prompts and parts.

Of two that say different things of the same, the first one counts; see `master.rules.matching`.
"""

from collections.abc import Iterator, Sequence

from master.planning.chat import estimate_tokens
from master.planning.structure import MOST_PARTS
from master.rules.rule import PromptChange, RouteChange, SplitChange, UsedRule
from queue_schemas.registry import Model


def told(rules: Sequence[UsedRule], model: str) -> str:
    """What a model that answers is told besides the question; empty: nothing."""
    texts = [change.text for rule, change in _prompts(rules) if rule.model in {None, model}]
    return "\n\n".join(dict.fromkeys(texts))


def told_tokens(rules: Sequence[UsedRule]) -> int:
    """The most tokens that any model is told."""
    return sum(estimate_tokens(change.text) for _, change in _prompts(rules))


def routed(rules: Sequence[UsedRule], able: Sequence[Model], model: Model) -> Model:
    """The model that answers in the place of this one, which itself does where none is to.

    A rule for just this model counts before one for all. What is not able is not asked.
    """
    by_name = {each.name: each for each in able}
    wishes = {
        rule.model: by_name[rule.change.model]
        for rule in reversed(rules)
        if rule.applies and isinstance(rule.change, RouteChange) and rule.change.model in by_name
    }
    taken = {model.name}
    following = wishes.get(model.name) or wishes.get(None)
    while following is not None and following.name not in taken:
        taken.add(following.name)
        model, following = following, wishes.get(following.name)
    return model


def routed_strategy(rules: Sequence[UsedRule]) -> tuple[str, UsedRule] | None:
    """The strategy that a rule names, and the rule; None: none does."""
    for rule in rules:
        if rule.applies and isinstance(rule.change, RouteChange) and rule.change.strategy:
            return rule.change.strategy, rule
    return None


def splitting(rules: Sequence[UsedRule]) -> tuple[bool, UsedRule] | None:
    """Whether to split, and the rule that says so; None: none does."""
    said = ((rule, change.split) for rule, change in _splits(rules))
    return next(((split, rule) for rule, split in said if split is not None), None)


def most_parts(rules: Sequence[UsedRule]) -> int:
    """How many parts a question may be split into."""
    return next((c.max_parts for _, c in _splits(rules) if c.max_parts), MOST_PARTS)


def named_rule(rule: UsedRule) -> str:
    """A rule, for a person."""
    return f"the rule {rule.name} (version {rule.version})"


def _prompts(rules: Sequence[UsedRule]) -> Iterator[tuple[UsedRule, PromptChange]]:
    for rule in rules:
        if rule.applies and isinstance(rule.change, PromptChange):
            yield rule, rule.change


def _splits(rules: Sequence[UsedRule]) -> Iterator[tuple[UsedRule, SplitChange]]:
    for rule in rules:
        if rule.applies and isinstance(rule.change, SplitChange):
            yield rule, rule.change
