"""What is shown of the question of a dead letter."""

from master.console.dead import prompt_of

SAID = {"messages": [{"role": "user", "content": [{"type": "text", "text": "a mill"}]}]}


def test_a_prompt_is_shown_as_plain_text() -> None:
    assert prompt_of(SAID) == [("user", "a mill")]


def test_what_is_no_text_has_a_note_in_its_place() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    said = {"messages": [{"role": "user", "content": [image]}, {"role": "assistant"}]}
    assert prompt_of(said) == [("user", "[image]"), ("assistant", "")]


def test_what_its_owner_deleted_is_not_shown() -> None:
    assert prompt_of(SAID | {"hidden": True}) == []
    assert prompt_of({"erased": True}) == []
