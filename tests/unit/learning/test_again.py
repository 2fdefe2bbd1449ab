"""The same question is known again, and a question that nobody can ask again is not."""

from typing import Any

from db.asked import Asked, Message
from master.learning.again import asked

WHY: tuple[dict[str, Any], ...] = ({"role": "user", "content": "Why?"},)
HOW: tuple[dict[str, Any], ...] = ({"role": "user", "content": "How?"},)


def digest(found: Asked | None) -> bytes:
    assert found is not None
    assert found.digest is not None
    return found.digest


def test_an_answer_that_is_generated_again_has_another_message_of_the_same_question() -> None:
    first = digest(asked(WHY, "ann", Message("m1", "ann", "c1", "q1")))
    assert digest(asked(HOW, "ann", Message("m2", "ann", "c1", "q1"))) == first
    assert digest(asked(WHY, "ann", Message("m1", "ann", "c1", "q2"))) != first
    assert digest(asked(WHY, "ann", Message("m1", "ann", "c2", "q1"))) != first


def test_of_a_named_user_the_messages_tell() -> None:
    first = digest(asked(WHY, "ann", None))
    assert digest(asked(WHY, "ann", None)) == first
    assert digest(asked(WHY, "ann", Message("m1", "ann"))) == first
    assert digest(asked(HOW, "ann", None)) != first


def test_nobody_asks_again_who_is_not_known() -> None:
    assert asked(WHY, None, None) is None
    assert asked(WHY, "", None) is None
    found = asked(WHY, None, Message("m1", "ann"))
    assert found is not None
    assert found.digest is None


def test_an_answer_can_be_generated_again_for_longer() -> None:
    page = asked(WHY, "ann", Message("m1", "ann", "c1", "q1"))
    api = asked(WHY, "ann", None)
    assert page is not None
    assert api is not None
    assert page.within_seconds > api.within_seconds > 0
