"""What is wrong with a rule: by itself, or beside those that hold already. Pure.

Two rules conflict if the same question can fit both and they say different things about the same.
Topics that share no word keep rules apart. A rule that names more in its scope is an exception from
one that names less, and comes before it. Versions of one name replace each other.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from master.rules.rule import (
    Change,
    PromptChange,
    RetrievalChange,
    RouteChange,
    Scope,
    SplitChange,
)

AUTO = "auto"
"""The strategy that leaves the choice of another one to Millrace."""

_SETTINGS: Mapping[type, Mapping[str, str]] = {
    RouteChange: {"model": "which model answers", "strategy": "which strategy answers"},
    SplitChange: {"split": "whether it is split", "max_parts": "how many parts there may be"},
    RetrievalChange: {"top": "how many sources there are", "candidates": "how many are looked at"},
}


@dataclass(frozen=True)
class Version:
    """A version of a rule, as far as it can be in another's way."""

    name: str
    version: int
    scope: Scope
    change: Change


@dataclass(frozen=True)
class Conflict:
    """A version that holds already, and why the other cannot hold beside it."""

    name: str
    version: int
    why: str


@dataclass(frozen=True)
class Fault:
    """What makes a rule useless whatever else holds; `path` is the field's."""

    path: str
    why: str


def fault(
    scope: Scope, change: Change, strategies: Collection[str], models: Collection[str]
) -> Fault | None:
    """The first thing that can never work: a name that nobody has, or a route to itself."""
    if scope.strategy is not None and scope.strategy not in strategies:
        return _unknown("scope.strategy", strategies)
    if scope.model is not None and scope.model not in models:
        return _unknown("scope.model", models)
    if not isinstance(change, RouteChange):
        return None
    if change.model is not None:
        return _fault_of_model(scope, change.model, models)
    return _fault_of_strategy(scope, change.strategy, set(strategies) - {AUTO})


def _fault_of_model(scope: Scope, model: str, models: Collection[str]) -> Fault | None:
    if model not in models:
        return _unknown("change.model", models)
    if model == scope.model:
        return Fault("change.model", "must be another model than that of the scope")
    return None


def _fault_of_strategy(
    scope: Scope, strategy: str | None, strategies: Collection[str]
) -> Fault | None:
    if strategy not in strategies:
        return _unknown("change.strategy", strategies)
    if scope.strategy not in {None, AUTO}:
        return Fault("scope.strategy", f"must be {AUTO}, or nothing: only there one is chosen")
    return None


def _unknown(path: str, known: Collection[str]) -> Fault:
    return Fault(path, f"must be one of {', '.join(sorted(known)) or 'none: there is none'}")


def conflicts(candidate: Version, others: Iterable[Version]) -> tuple[Conflict, ...]:
    """What holds already and cannot hold together with the candidate, in the order given."""
    beside = [each for each in others if each.name != candidate.name]
    found = [
        Conflict(each.name, each.version, why)
        for each in beside
        if (why := _difference(candidate, each)) is not None
    ]
    around = circle(candidate, beside)
    if len(around) > 1:
        models = " -> ".join([each.scope.model or "" for each in around] + [_goal(candidate)])
        first = around[1]
        found.append(Conflict(first.name, first.version, f"models go in a circle: {models}"))
    return tuple(found)


def _difference(one: Version, other: Version) -> str | None:
    """What two rules that meet say differently."""
    if type(one.change) is not type(other.change) or not meet(one.scope, other.scope):
        return None
    if isinstance(one.change, PromptChange):
        return "it says the same already" if one.change == other.change else None
    if is_exception(one.scope, other.scope) or is_exception(other.scope, one.scope):
        return None
    for field, words in _SETTINGS[type(one.change)].items():
        mine, theirs = getattr(one.change, field), getattr(other.change, field)
        if mine is not None and theirs is not None and mine != theirs:
            return f"it says otherwise {words}: {_plain(theirs)}, not {_plain(mine)}"
    return None


def _plain(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def meet(one: Scope, other: Scope) -> bool:
    """Whether the same question can fit both scopes, answered by the same model."""
    same_model = one.model is None or other.model is None or one.model == other.model
    return same_model and _asked_alike(one, other)


def _asked_alike(one: Scope, other: Scope) -> bool:
    same_strategy = one.strategy is None or other.strategy is None or one.strategy == other.strategy
    mine, theirs = _words(one), _words(other)
    return same_strategy and (not mine or not theirs or bool(mine & theirs))


def _words(scope: Scope) -> frozenset[str]:
    return frozenset(word.casefold() for word in scope.topic)


def _named_count(scope: Scope) -> int:
    return sum(map(bool, (scope.strategy, scope.model, scope.topic)))


def is_exception(narrow: Scope, wide: Scope) -> bool:
    """Whether the first names all that the second does, and more."""
    same = all(
        named is None or named == own
        for own, named in ((narrow.strategy, wide.strategy), (narrow.model, wide.model))
    )
    within = not wide.topic or (bool(narrow.topic) and _words(narrow) <= _words(wide))
    return same and within and _named_count(narrow) > _named_count(wide)


def circle(candidate: Version, others: Iterable[Version]) -> tuple[Version, ...]:
    """The routes from model to model that lead back to the candidate's own, itself first."""
    if not _leads_on(candidate):
        return ()
    beside = [
        each for each in others if _leads_on(each) and _asked_alike(each.scope, candidate.scope)
    ]
    before: dict[str, Version] = {}
    """The route by which a model was reached first."""
    reached = list(_reached([candidate], before))
    while reached:
        model = reached.pop(0)
        reached += _reached([each for each in beside if each.scope.model == model], before)
    return tuple(_way(candidate, before)) if _goal(candidate) in before else ()


def _leads_on(version: Version) -> bool:
    return isinstance(version.change, RouteChange) and None not in {
        version.scope.model,
        version.change.model,
    }


def _goal(version: Version) -> str:
    return version.scope.model or ""


def _target(version: Version) -> str:
    return (version.change.model if isinstance(version.change, RouteChange) else None) or ""


def _reached(routes: Iterable[Version], before: dict[str, Version]) -> Iterator[str]:
    for route in routes:
        if _target(route) not in before:
            before[_target(route)] = route
            yield _target(route)


def _way(candidate: Version, before: Mapping[str, Version]) -> list[Version]:
    way = [before[_goal(candidate)]]
    while way[0] != candidate:
        way.insert(0, before[_goal(way[0])])
    return way
