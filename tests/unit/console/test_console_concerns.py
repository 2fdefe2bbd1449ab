"""What the overview says is wrong."""

from typing import Any

from db.overview import LastHour, Minute, Open
from master.console.concerns import Concern, concerns
from master.console.lanes import Lane
from master.fleet import Dependency

FINE: dict[str, Any] = {
    "model": "mill",
    "waiting": 0,
    "blocked": 0,
    "queued": 0,
    "running": 0,
    "workers": 1,
    "draining": 0,
    "slots": 4,
    "busy": 0,
    "oldest_seconds": None,
    "tokens_per_second": None,
    "sleeps": False,
}


def worries(
    *lanes: dict[str, Any],
    still_open: Open | None = None,
    hour: LastHour | None = None,
    away: list[Dependency] | None = None,
    unpublishable: float = 0,
    quarantined: int = 0,
) -> list[Concern]:
    return concerns(
        [Lane(**FINE | lane) for lane in lanes or ({},)],
        still_open or Open(),
        hour or LastHour(),
        away=away or [],
        unpublishable_seconds=unpublishable,
        quarantined=quarantined,
    )


def an_hour(completed: int, failed: int) -> LastHour:
    return LastHour((Minute(completed, failed, 0),))


def test_nothing_is_wrong_with_a_quiet_installation() -> None:
    assert worries() == []
    assert worries({"queued": 500, "running": 4, "oldest_seconds": 20.0}) == []


def test_who_is_away_comes_first() -> None:
    found = worries(away=[Dependency.BROKER], still_open=Open(dead=1), unpublishable=90)
    assert [concern.kind for concern in found] == ["bad", "warn"]
    assert found[0].text == "The broker does not answer; the numbers here are the database's."
    (found_too,) = worries(away=[Dependency.DATABASE])
    assert found_too.text == "The database does not answer; what is here may be old."


def test_a_broker_that_takes_nothing_is_named() -> None:
    (found,) = worries(unpublishable=8.2)
    assert found.text == "The broker has not taken a message for 5 s."


def test_work_without_workers_is_bad_and_an_idle_model_without_them_a_warning() -> None:
    (working,) = worries({"workers": 0, "waiting": 2})
    assert (working.kind, working.path) == ("bad", "/console/workers")
    assert working.text == "2 subtasks are waiting for mill, and no worker serves it."
    (idle,) = worries({"workers": 0})
    assert idle.kind == "warn"


def test_what_a_leaving_worker_finishes_does_not_wait() -> None:
    leaving = {"workers": 0, "draining": 1, "running": 2}
    assert worries(leaving | {"sleeps": True}) == []
    (found,) = worries(leaving)
    assert (found.kind, found.text) == ("warn", "No worker serves mill; nothing waits for it.")
    (found,) = worries(leaving | {"queued": 1})
    assert (found.kind, found.text) == (
        "bad",
        "1 subtask is waiting for mill, and no worker serves it.",
    )


def test_a_model_that_sleeps_is_fine_and_one_that_wakes_up_is_said_so() -> None:
    assert worries({"workers": 0, "sleeps": True}) == []
    (waking,) = worries({"workers": 0, "sleeps": True, "waiting": 1})
    assert waking.kind == "warn"
    assert "1 subtask is waiting for mill" in waking.text


def test_a_model_that_is_behind_is_named() -> None:
    for waited in (300.0, 301.5, 359.9):  # it is read aloud, so not anew every second
        (found,) = worries({"queued": 3, "oldest_seconds": waited})
        assert found.text == "mill is behind: its oldest subtask waits 5 min."


def test_errors_count_from_a_share_on_and_not_one_of_two() -> None:
    assert worries(hour=an_hour(1, 1)) == []
    assert worries(hour=an_hour(1000, 10)) == []
    (found,) = worries(hour=an_hour(8, 2))
    assert found.text == "20% of your requests of the last hour had no answer."
    assert found.path == "/console/requests?state=unanswered"


def test_dead_letters_and_quarantine_are_told() -> None:
    dead, quarantined = worries(still_open=Open(dead=2), quarantined=1)
    assert (dead.text, dead.path) == (
        "2 dead letters are waiting for a decision.",
        "/console/dead",
    )
    assert quarantined.text.startswith("1 message is in quarantine")
