"""What rated requests teach: corrections first, then what people liked."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from db.training import RatedRequest
from master.learning.examples import LEAST_SCORE, Format, examples, why_not

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


def human(score: float | None = None, **more: Any) -> dict[str, Any]:
    blank = {"rating": {}, "reason": None, "comment": None, "correction": None}
    return {"kind": "human", "rater": "user:alice", "subject": "", "score": score} | blank | more


RETRY = human() | {"kind": "retry"}


def step(key: str, kind: str = "answer", **more: Any) -> dict[str, Any]:
    return {"key": key, "kind": kind, "model": "mill", "messages": ASKED, "work": "answer"} | more


def rated(
    *judgements: Mapping[str, Any],
    answer: str = "Because.",
    steps: Sequence[Mapping[str, Any]] = (step("answer"),),
    texts: Mapping[str, str] | None = None,
    question: Mapping[str, Any] | None = None,
    **plan: Any,
) -> RatedRequest:
    kinds = {each["key"]: each["kind"] for each in steps}
    said = texts or {"answer": answer}
    return RatedRequest(
        id=UUID(int=7),
        tenant="acme",
        created_at=datetime(2026, 11, 1, tzinfo=UTC),
        question={"model": "millrace/auto", "messages": ASKED, "remembered": None}
        | dict(question or {}),
        plan={"strategy": "direct", "aggregator": "single", "steps": list(steps)} | plan,
        answer=answer,
        judgements=judgements,
        steps=[
            {"step": key, "kind": kinds[key], "model": "mill", "text": text}
            for key, text in said.items()
        ],
        same=b"same",
    )


def made(*requests: RatedRequest, as_: Format = Format.SFT, least: float = LEAST_SCORE) -> Any:
    return list(examples(requests, as_, least))


def pairs(*requests: RatedRequest) -> list[tuple[str, str]]:
    found = made(*requests, as_=Format.DPO)
    assert all(pair["prompt"] == ASKED for pair in found)
    return [(pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in found]


def ensemble(*judgements: Mapping[str, Any]) -> RatedRequest:
    steps = [step(f"candidate-{n}", "candidate") for n in (1, 2)]
    texts = {"candidate-1": "One.", "candidate-2": "Two."}
    return rated(
        *judgements,
        answer="Two.",
        steps=steps,
        texts=texts,
        chosen="candidate-2",
        aggregator="chosen",
        strategy="ensemble",
    )


# --- chats that end in a good answer -------------------------------------------------------------


def test_a_liked_answer_is_an_example() -> None:
    assert made(rated(human(1.0))) == [
        {"messages": [*ASKED, {"role": "assistant", "content": "Because."}]}
    ]


@pytest.mark.parametrize("judged", [human(0.0), human(0.5), human(None, comment="hm"), RETRY])
def test_what_nobody_liked_is_none(judged: Mapping[str, Any]) -> None:
    assert made(rated(judged)) == []


def test_a_correction_takes_the_place_of_the_answer() -> None:
    said = [human(0.0, correction="Old."), human(1.0, rater="user:bob", correction=" New. ")]
    [example] = made(rated(*said))
    assert example["messages"][-1]["content"] == "New."


def test_everybody_has_one_vote() -> None:
    voices = [human(1.0, rater=f"user:{n}") for n in range(2)]
    assert len(made(rated(*voices, human(0.0, rater="user:x")))) == 1
    assert made(rated(*voices, *[human(0.0, rater=f"user:x{n}") for n in range(2)])) == []


def test_judges_decide_nothing() -> None:
    assert made(rated(human(1.0) | {"kind": "check", "rater": "step:check"})) == []


def test_a_part_that_was_rated_by_itself_is_an_example() -> None:
    own = [{"role": "user", "content": "Part one?"}]
    parts = [step("part-1", messages=own), step("part-2")]
    texts = {"part-1": "One.", "part-2": "Two."}
    whole = rated(human(1.0, subject="part-1"), answer="One. Two.", steps=parts, texts=texts)
    assert [each["messages"] for each in made(whole)] == [
        [*own, {"role": "assistant", "content": "One."}]
    ]


def test_a_step_that_was_given_what_others_said_cannot_be_learned_from() -> None:
    steps = [step("a"), step("b", depends_on=["a"])]
    request = rated(human(1.0, subject="b"), steps=steps, texts={"a": "A.", "b": "B."})
    assert made(request) == []


def test_an_answer_from_documents_is_learned_with_the_documents() -> None:
    given = [{"role": "user", "content": "Why?\n\n[1] Because."}]
    source = {"number": 1}
    direct = rated(human(1.0), steps=[step("answer", messages=given)], sources=[source])
    assert why_not(direct) is not None, "a plan that cannot be read says nothing"
    real = source | {"chunk": 1, "document": str(UUID(int=1)), "name": "n", "position": 0}
    real |= {"text": "Because.", "score": 1.0, "rerank_score": 1.0, "steps": ["answer"]}
    direct = rated(human(1.0), steps=[step("answer", messages=given)], sources=[real])
    assert made(direct)[0]["messages"][0] == given[0]
    several = rated(
        human(1.0),
        steps=[step("part-1"), step("part-2")],
        texts={"part-1": "One.", "part-2": "Two."},
        sources=[real],
    )
    assert made(several) == []
    assert "documents" in (why_not(several) or "")


def test_what_came_before_in_a_conversation_is_part_of_the_chat() -> None:
    before = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    remembered = {"conversation": str(UUID(int=3)), "messages": before, "turns": 1}
    [example] = made(rated(human(1.0), question={"remembered": remembered}))
    assert [message["content"] for message in example["messages"]] == [
        "Be brief.",
        "Hi",
        "Hello",
        "Why?",
        "Because.",
    ]


def test_images_and_empty_answers_are_left_out_with_the_reason() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    pictured = rated(human(1.0), question={"messages": [{"role": "user", "content": [image]}]})
    assert (made(pictured), why_not(pictured)) == ([], "with images")
    assert (made(rated(human(1.0), answer=" ")), why_not(rated(human(1.0), answer=" "))) == (
        [],
        "without a text",
    )


# --- pairs ---------------------------------------------------------------------------------------


def test_a_correction_is_better_than_what_it_corrects() -> None:
    assert pairs(rated(human(None, correction="Thus."))) == [("Thus.", "Because.")]
    assert pairs(rated(human(None, correction="Because."))) == []


def test_the_candidate_that_people_liked_is_better_than_those_not_shown() -> None:
    assert pairs(ensemble(human(1.0))) == [("Two.", "One.")]
    assert pairs(ensemble(human(0.0))) == []


def test_where_people_rated_both_candidates_that_decides() -> None:
    first = human(1.0, subject="candidate-1")
    assert pairs(ensemble(human(0.0), first)) == [("One.", "Two.")]
    assert pairs(ensemble(human(1.0), first)) == []


def test_answers_to_the_same_question_that_were_rated_apart_are_a_pair() -> None:
    good, bad = rated(human(1.0), answer="Good."), rated(human(0.0), answer="Bad.")
    assert pairs(bad, good) == pairs(good, bad) == [("Good.", "Bad.")]
    assert pairs(good, good) == []
    assert pairs(good, rated(human(0.7), answer="Fair.")) == []
    assert pairs(rated(human(0.5), answer="Fair."), bad) == []


def test_an_answer_that_was_made_again_is_worse_than_the_one_that_was_liked_then() -> None:
    again = rated(RETRY, answer="First.")
    assert pairs(again, rated(human(1.0), answer="Second.")) == [("Second.", "First.")]
    assert pairs(again, rated(RETRY, answer="Third.")) == []


def test_the_same_pair_is_there_once() -> None:
    good = [rated(human(1.0), answer="Good.") for _ in range(3)]
    assert pairs(*good, rated(human(0.0), answer="Bad.")) == [("Good.", "Bad.")]


# --- everything ----------------------------------------------------------------------------------


def test_everything_is_there_and_nobody_is_named() -> None:
    step_said = human(0.9) | {"kind": "choice", "rater": "step:judge-1", "subject": "candidate-1"}
    said = [human(1.0, comment="fine"), human(0.0, rater="user:bob"), step_said]
    [line] = made(ensemble(*said), as_=Format.JSONL, least=0.0)
    assert [judged["rater"] for judged in line["judgements"]] == [
        "person-1",
        "person-2",
        "step:judge-1",
    ]
    assert (line["score"], line["answer"], line["chosen"]) == (0.5, "Two.", "candidate-2")
    assert [each["text"] for each in line["steps"]] == ["One.", "Two."]
    assert line["messages"] == line["prompt"] == ASKED
    assert "alice" not in str(line)


def test_a_least_score_holds_for_everything_as_well() -> None:
    assert made(rated(human(0.5)), as_=Format.JSONL, least=0.6) == []
    assert len(made(rated(RETRY), as_=Format.JSONL, least=0.0)) == 1
