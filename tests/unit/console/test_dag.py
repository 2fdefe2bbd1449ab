"""Plans as pictures."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from master.console.dag import Part, draw, shortened


def part(key: str, *after: str, title: str = "", state: str = "queued") -> Part:
    return Part(key, title, "mill", state, after)


@st.composite
def plans(make: st.DrawFn) -> list[Part]:
    """Steps of which each builds on some before it."""
    count = make(st.integers(1, 30))
    return [
        part(
            f"s{place}",
            *(f"s{each}" for each in make(st.sets(st.integers(0, place - 1)))) if place else (),
        )
        for place in range(count)
    ]


@settings(max_examples=30)
@given(plans())
def test_every_step_is_right_of_what_it_builds_on_and_covers_no_other(parts: list[Part]) -> None:
    drawing = draw(parts)
    nodes = {node.part.key: node for node in drawing.nodes}
    assert nodes.keys() == {each.key for each in parts}
    for each in parts:
        for key in each.depends_on:
            assert nodes[key].x + nodes[key].width < nodes[each.key].x
    assert len(drawing.edges) == sum(len(each.depends_on) for each in parts)
    for stage in {node.stage for node in nodes.values()}:
        column = sorted((node for node in nodes.values() if node.stage == stage), key=lambda n: n.y)
        assert all(above.y + above.height < below.y for above, below in pairwise(column))
    assert all(node.y >= 0 and node.y + node.height <= drawing.height for node in nodes.values())
    assert all(node.x + node.width <= drawing.width for node in nodes.values())


def test_stages_are_as_late_as_the_longest_way_to_them() -> None:
    drawing = draw([part("a"), part("b", "a"), part("c", "a", "b"), part("d")])
    assert {node.part.key: node.stage for node in drawing.nodes} == {"a": 0, "b": 1, "c": 2, "d": 0}


def test_steps_stand_beside_what_they_build_on() -> None:
    drawing = draw([part("a"), part("b"), part("after-b", "b"), part("after-a", "a")])
    places = {node.part.key: node.y for node in drawing.nodes}
    assert places["after-a"] < places["after-b"]


def test_a_hundred_parts_are_low_and_their_synthesis_stands_in_the_middle() -> None:
    keys = [f"p{number}" for number in range(120)]
    drawing = draw([*(part(key) for key in keys), part("all", *keys)])
    assert drawing.height < 120 * 40
    merged = drawing.nodes[-1]
    assert abs(merged.middle - drawing.height / 2) < merged.height
    assert (drawing.nodes[0].model, merged.model) == ("", "mill")


def test_it_goes_from_the_question_to_the_first_steps_and_from_what_is_shown_to_the_answer() -> (
    None
):
    drawing = draw([part("a"), part("b"), part("all", "a", "b")], ["all", "to-come"])
    question, answer = drawing.ends
    nodes = {node.part.key: node for node in drawing.nodes}
    assert question.x + question.width < nodes["a"].x
    assert nodes["all"].x + nodes["all"].width < answer.x
    assert answer.x + answer.width <= drawing.width
    start = f"M{question.x + question.width} {question.middle}C"
    assert [path.startswith(start) for path in drawing.flows] == [True, True, False]
    assert drawing.flows[-1].endswith(f" {answer.x} {answer.middle}")


def test_the_picture_is_told_in_words() -> None:
    parts = [
        part("a", state="running"),
        part("b", "a", state="blocked"),
        part("c", state="running"),
    ]
    assert draw(parts).words == "3 steps in 2 stages: 2 running, 1 blocked"
    assert draw([part("a")]).words == "1 step in 1 stage: 1 queued"


def test_what_a_plan_lacks_or_names_in_a_circle_is_drawn_all_the_same() -> None:
    drawing = draw([part("a", "gone"), part("b", "c"), part("c", "b")])
    assert len(drawing.nodes) == 3
    assert draw([]).nodes == []


@given(st.text(), st.integers(1, 40))
def test_a_title_is_cut_to_one_line(text: str, cells: int) -> None:
    line = shortened(text, cells)
    assert len(line) <= cells
    assert len(line.splitlines()) <= 1


def test_wide_letters_take_twice_the_room() -> None:
    assert shortened("水車小屋の話", 6) == "水車…"
    assert shortened("a mill", 6) == "a mill"
    assert shortened("a mill race", 6) == "a mil…"
