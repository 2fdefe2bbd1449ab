"""What is wrong, in words; nothing means that everything is fine. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from db.overview import LastHour, Open
from master.console.filters import number, seconds
from master.console.lanes import Lane
from master.fleet import Dependency

_MINUTE = 60
_UNPUBLISHED_SECONDS = 5.0
_OLDEST_SECONDS = 120.0
_ERROR_SHARE = 0.05
_FEWEST_ENDED = 5
_LEFT = {
    Dependency.BROKER: "the numbers here are the database's",
    Dependency.DATABASE: "what is here may be old",
}


@dataclass(frozen=True)
class Concern:
    """Something that a person should know."""

    kind: str
    """`bad`: something does not work; `warn`: it may soon."""
    text: str
    path: str | None = None
    """Of the page that says more."""


def concerns(
    lanes: Sequence[Lane],
    still_open: Open,
    hour: LastHour,
    *,
    away: Sequence[Dependency],
    unpublishable_seconds: float,
    quarantined: int,
) -> list[Concern]:
    """The worst first."""
    found = [*_of_dependencies(away, unpublishable_seconds)]
    for lane in lanes:
        found += _of_lane(lane)
    found += _of_requests(still_open, hour)
    if quarantined:
        text = f"{_many(quarantined, 'message')} in quarantine: nobody could read what they say."
        found.append(Concern("warn", f"{text} See millrace dead show --quarantine."))
    return sorted(found, key=lambda concern: concern.kind != "bad")


def _of_dependencies(away: Sequence[Dependency], unpublishable_seconds: float) -> Sequence[Concern]:
    found = [Concern("bad", f"The {name.value} does not answer; {_LEFT[name]}.") for name in away]
    if unpublishable_seconds > _UNPUBLISHED_SECONDS and not away:
        length = _roughly(unpublishable_seconds)
        found.append(Concern("bad", f"The broker has not taken a message for {length}."))
    return found


def _of_lane(lane: Lane) -> Sequence[Concern]:
    path, name = "/console/workers", lane.model
    if not lane.workers and lane.pending:
        waits = _many(lane.pending, "subtask")
        if lane.sleeps:
            return [Concern("warn", f"{waits} waiting for {name}, whose worker is to start.", path)]
        return [Concern("bad", f"{waits} waiting for {name}, and no worker serves it.", path)]
    if not lane.workers and not lane.sleeps:
        return [Concern("warn", f"No worker serves {name}; nothing waits for it.", path)]
    if lane.oldest_seconds is not None and lane.oldest_seconds > _OLDEST_SECONDS:
        length = _roughly(lane.oldest_seconds)
        return [Concern("warn", f"{name} is behind: its oldest subtask waits {length}.", path)]
    return []


def _of_requests(still_open: Open, hour: LastHour) -> Sequence[Concern]:
    found = []
    ended = hour.completed + hour.failed
    if hour.failed and ended >= _FEWEST_ENDED and hour.failed / ended > _ERROR_SHARE:
        share = f"{hour.failed / ended:.0%}"
        text = f"{share} of your requests of the last hour had no answer."
        found.append(Concern("warn", text, "/console/requests?state=unanswered"))
    if still_open.dead:
        text = f"{_many(still_open.dead, 'dead letter')} waiting for a decision."
        found.append(Concern("warn", text, "/console/dead"))
    return found


def _roughly(value: float) -> str:
    """A text that is read aloud whenever it changes must not change every second."""
    step = _MINUTE if value >= _MINUTE else 5
    return seconds(value // step * step)


def _many(count: int, noun: str) -> str:
    return f"{number(count)} {noun}{'s are' if count != 1 else ' is'}"
