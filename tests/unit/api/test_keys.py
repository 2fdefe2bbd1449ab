import pytest

from master.api import keys
from master.api.errors import ApiError


def test_a_new_key_matches_its_own_digest_and_no_other() -> None:
    one, other = keys.new_key(), keys.new_key()
    assert keys.matches(one.plain, one.digest)
    assert not keys.matches(one.plain, other.digest)
    assert not keys.matches(one.plain + "x", one.digest)
    assert not keys.matches(one.plain[:-1], one.digest)


def test_a_key_says_whose_it_is_and_hides_the_rest() -> None:
    key = keys.new_key()
    assert key.plain.startswith("mr-")
    assert key.plain.startswith(key.prefix)
    assert keys.prefix_of(key.plain) == key.prefix
    assert len(key.plain) - len(key.prefix) >= 22  # 128 bits of 62 letters
    assert key.plain[3:].isalnum()
    assert key.plain.encode() not in key.digest


def test_keys_do_not_repeat() -> None:
    made = [keys.new_key() for _ in range(2000)]
    assert len({key.plain for key in made}) == len({key.prefix for key in made}) == 2000


def test_an_unknown_prefix_is_compared_too_and_never_matches() -> None:
    assert keys.matches("mr-whatever", None) is False


@pytest.mark.parametrize(
    "header",
    ["Bearer mr-abc", "bearer mr-abc", "BEARER  mr-abc "],
)
def test_the_key_is_taken_out_of_the_header(header: str) -> None:
    assert keys.bearer(header) == "mr-abc"


def test_a_key_of_another_form_is_looked_up_like_any_other() -> None:
    plain = keys.bearer("Bearer sk-1234")
    assert not keys.matches(plain, None)
    assert keys.prefix_of(plain) == "sk-1234"


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic dTpw", "mr-abc", "Bearer " + "x" * 10_000,
     "Bearer mr-\x00", "Bearer mr-ü", "Bearer mr-a\r\nx: y"],
)  # fmt: skip
def test_no_key_at_all_gets_the_same_401_as_a_wrong_one(header: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        keys.bearer(header)
    error = caught.value
    assert (error.status, error.code, error.param) == (401, "invalid_api_key", None)
    assert error.headers == {"WWW-Authenticate": "Bearer"}
    assert header is None or len(header) < 9 or header not in error.message
