"""What was to be done lately, as a line of numbers."""

from master.trails import TRAIL, Trails


def test_a_trail_has_a_number_every_two_seconds() -> None:
    trails = Trails()
    for second in range(6):
        trails.note({"mill": second}, 100.0 + second)
    assert trails.of("mill") == (0, 2, 4)


def test_what_nobody_could_look_at_is_not_made_up() -> None:
    trails = Trails()
    trails.note({"mill": 0}, 0.0)
    trails.note({"mill": 40}, 10.0)
    assert trails.of("mill") == (0, None, None, None, None, 40)
    trails.note({"mill": 7}, 100_000.0)
    assert trails.of("mill") == (*[None] * (TRAIL - 1), 7)


def test_a_model_that_came_later_has_no_past() -> None:
    trails = Trails()
    trails.note({"mill": 1}, 0.0)
    trails.note({"mill": 1, "new": 2}, 2.0)
    assert (trails.of("mill"), trails.of("new"), trails.of("old")) == ((1, 1), (2,), ())
