import pytest
from pydantic import JsonValue
from starlette.datastructures import Headers

from master.api.errors import ApiError
from master.api.idempotency import body_digest, idempotency_key


def headers(*values: str) -> Headers:
    return Headers(raw=[(b"idempotency-key", value.encode("utf-8")) for value in values])


def test_without_a_key_there_is_none() -> None:
    assert idempotency_key(headers(), {}) is None


@pytest.mark.parametrize("key", ["a", "6f1c-77", "x" * 255, "order:17/b"])
def test_a_key_is_taken_from_the_header_or_the_metadata(key: str) -> None:
    assert idempotency_key(headers(key), {}) == key
    assert idempotency_key(headers(), {"request_id": key}) == key
    assert idempotency_key(headers(key), {"request_id": "other"}) == key


@pytest.mark.parametrize("key", ["", "x" * 256, "x" * 10_000, "a b", "a\r\nb: c", "😀", "é", "a\0"])
def test_an_unusable_key_is_400(key: str) -> None:
    for given, metadata, where in (
        (headers(key), {}, "Idempotency-Key"),
        (headers(), {"request_id": key}, "metadata.request_id"),
    ):
        with pytest.raises(ApiError) as caught:
            idempotency_key(given, metadata)
        assert (caught.value.status, caught.value.param) == (400, where)
        assert len(caught.value.message) < 200


def test_two_keys_are_400() -> None:
    with pytest.raises(ApiError):
        idempotency_key(headers("a", "b"), {})


def test_bodies_that_mean_the_same_have_one_digest() -> None:
    assert body_digest({"a": 1, "b": {"c": [1, 2], "d": None}}) == body_digest(
        {"b": {"d": None, "c": [1, 2]}, "a": 1}
    )


def test_other_bodies_have_other_digests() -> None:
    bodies: list[dict[str, JsonValue]] = [
        {"a": 1},
        {"a": "1"},
        {"a": True},
        {"a": [1]},
        {"a": 1, "b": None},
        {"b": 1},
        {},
    ]
    assert len({body_digest(body) for body in bodies}) == len(bodies)
