"""What Open WebUI gives is parsed into what can be stored, however odd it is."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.asked import Message
from master.learning.ratings import judged, own
from master.openwebui import OpenWebui, OpenWebuiError, Rating, rating_of

ITEM: dict[str, Any] = {
    "id": "f1",
    "user_id": "u1",
    "version": 0,
    "type": "rating",
    "data": {
        "rating": -1,
        "model_id": "millrace/auto",
        "sibling_model_ids": None,
        "reason": "not_factual",
        "comment": "The sea is not blue.",
        "details": {"rating": 2},
        "tags": ["Oceans"],
    },
    "meta": {
        "model_id": "millrace/auto",
        "message_id": "m1",
        "message_index": 2,
        "chat_id": "c1",
        "base_models": {"millrace/auto": None},
    },
    "created_at": 1795220030,
    "updated_at": 1795220032,
    "user": {"id": "u1", "name": "Ann", "email": "ann@example.org"},
}


def item(**changes: Any) -> dict[str, Any]:
    """A rating with other fields in its `data`."""
    return {**ITEM, "data": {**ITEM["data"], **changes}}


def parsed(found: object) -> Rating:
    rating = rating_of(found)
    assert rating is not None
    return rating


def test_a_rating_of_the_page_is_read_whole() -> None:
    rating = parsed(ITEM)
    assert (rating.id, rating.user, rating.message, rating.chat) == ("f1", "u1", "m1", "c1")
    assert (rating.thumb, rating.stars, rating.changed) == (-1, 2, 1795220032)
    said = judged(rating)
    assert said is not None
    assert (said.rater, said.source, said.score) == ("user:u1", "openwebui", pytest.approx(1 / 9))
    assert said.rating == {"thumb": -1, "stars": 2, "tags": ["Oceans"]}
    assert (said.reason, said.comment) == ("not_factual", "The sea is not blue.")


def test_a_bare_thumb_has_a_score_and_nothing_else() -> None:
    said = judged(parsed(item(rating=1, reason="", comment="", details={"rating": None}, tags=[])))
    assert said is not None
    assert (said.score, said.rating, said.reason, said.comment) == (1.0, {"thumb": 1}, None, None)


def test_a_thumb_may_be_a_text() -> None:
    assert [parsed(item(rating=thumb)).thumb for thumb in ("1", "-1", 1, -1)] == [1, -1, 1, -1]


@pytest.mark.parametrize(
    "odd",
    [
        item(rating="+1", details=None, comment=None),
        item(rating=True, details={"rating": True}, comment=["x"]),
        item(rating=2, details={"rating": 11}, comment=" \n"),
        item(rating=0, details={"rating": 0}, comment="\0"),
        item(rating=1.5, details=[], comment=None),
        item(rating=10**400, details="", comment=None),
        {**ITEM, "data": None},
        {**ITEM, "data": "rating"},
    ],
    ids=lambda odd: json.dumps(odd["data"])[:20],
)
def test_a_rating_that_says_nothing_is_no_judgement(odd: dict[str, Any]) -> None:
    assert judged(parsed(odd)) is None


@pytest.mark.parametrize(
    "odd",
    [None, [], "f1", {}, {**ITEM, "id": 7}, {**ITEM, "id": ""}, {**ITEM, "id": "a\0b"}]
    + [{**ITEM, "updated_at": when} for when in (None, "now", -1, True, 1.5, 10**30)],
    ids=lambda odd: str(odd)[:12],
)
def test_what_has_no_id_or_no_time_is_no_rating(odd: object) -> None:
    assert rating_of(odd) is None


def test_texts_are_cut_and_cleaned_and_ids_are_not() -> None:
    rating = parsed(
        item(comment="a\0b\ud800" + "x" * 5000, reason="y" * 500, tags=["z" * 500, 7, "", "t"] * 30)
    )
    assert rating.comment is not None
    assert (rating.comment[:3], len(rating.comment)) == ("ab?", 4000)
    assert rating.reason == "y" * 200
    assert len(rating.tags) <= 20
    assert rating.tags[:2] == ("z" * 100, "t")
    longer = {**ITEM["meta"], "message_id": "m" * 300, "chat_id": " c1"}
    rating = parsed({**ITEM, "meta": longer})
    assert (rating.message, rating.chat) == (None, None)


def test_the_digest_follows_what_was_said_and_not_when() -> None:
    digest = parsed(ITEM).digest
    assert parsed({**ITEM, "updated_at": 1795229999, "version": 4, "user": None}).digest == digest
    changes: list[dict[str, Any]] = [
        item(rating=1),
        item(comment=None),
        item(tags=[]),
        {**ITEM, "user_id": "u2"},
        {**ITEM, "meta": {**ITEM["meta"], "message_id": "m2"}},
    ]
    digests = {parsed(change).digest for change in changes}
    assert len(digests) == len(changes)
    assert digest not in digests


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda deeper: (
        st.lists(deeper, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "data", "meta", "rating", "details", "comment", "tags", "user_id"]
            )
            | st.text(max_size=4),
            deeper,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=40)
@given(data=_JSON, meta=_JSON, kind=_JSON, user=_JSON)
def test_no_json_breaks_the_parser(data: Any, meta: Any, kind: Any, user: Any) -> None:
    rating = parsed({**ITEM, "data": data, "meta": meta, "type": kind, "user_id": user})
    for text in (rating.user, rating.message, rating.reason, rating.comment, *rating.tags):
        assert text is None or ("\0" not in text and text.encode())
    assert len(rating.digest) == 32
    judged(rating)


REQUEST, LATER = UUID(int=1), UUID(int=2)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], []),
        ([(REQUEST, Message("m1", "u1", "c1"))], [REQUEST]),
        ([(REQUEST, Message("m1", "u1"))], [REQUEST]),
        ([(REQUEST, Message("m1", "u2", "c1"))], []),
        ([(REQUEST, Message("m1", "u1", "c2"))], []),
        ([(LATER, Message("m1", "u1", "c1")), (REQUEST, Message("m1", "u1", "c1"))],
         [LATER, REQUEST]),
        ([(uuid4(), Message("m1", "u2", "c1")), (REQUEST, Message("m1", "u1", "c1"))], [REQUEST]),
    ],
    ids=["unknown", "own", "no chat", "other user", "other chat", "rounds of tools", "given again"],
)  # fmt: skip
def test_only_an_answer_to_the_same_user_in_the_same_chat_is_judged(
    answers: list[tuple[UUID, Message]], expected: list[UUID]
) -> None:
    assert own(parsed(ITEM), answers) == expected


@pytest.mark.parametrize("url", ["", "ftp://host", "http://", "127.0.0.1:8080", "http://[::1"])
async def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(OpenWebuiError, match=r"no http|no address"):
        OpenWebui(url, "key")
