"""Sessions and form tokens: genuine ones pass, everything else does not."""

from dataclasses import replace

import pytest

from master.api.keys import digest_of, new_key
from master.console import signing

DIGEST = digest_of("mr-a key")
NOW = 1_000_000.0


def session() -> signing.Session:
    return signing.begin("mr-abcdefgh", DIGEST, NOW)


def test_a_session_survives_the_way_through_a_cookie() -> None:
    begun = session()
    read = signing.read(begun.cookie)
    assert read == begun
    assert signing.is_genuine(begun, DIGEST, NOW)


def test_a_real_key_has_a_prefix_that_a_cookie_can_carry() -> None:
    made = new_key()
    assert signing.read(signing.begin(made.prefix, made.digest, NOW).cookie) is not None


def test_a_session_ends() -> None:
    begun = session()
    assert signing.is_genuine(begun, DIGEST, NOW + signing.SESSION_SECONDS - 1)
    assert not signing.is_genuine(begun, DIGEST, NOW + signing.SESSION_SECONDS)


def test_another_key_has_not_signed_it() -> None:
    assert not signing.is_genuine(session(), digest_of("mr-another key"), NOW)


@pytest.mark.parametrize("field", ["prefix", "expires", "nonce", "signature"])
def test_what_was_changed_is_not_genuine(field: str) -> None:
    begun = session()
    other = {
        "prefix": "mr-ABCDEFGH",
        "expires": begun.expires + 1,
        "nonce": "A" * 22,
        "signature": "A" * 43,
    }[field]
    assert not signing.is_genuine(replace(begun, **{field: other}), DIGEST, NOW)


@pytest.mark.parametrize(
    "cookie",
    [
        "",
        "....",
        "mr-abcdefgh",
        "mr-abcdefgh.1.short.short",
        "mr-abcdefgh.-1." + "A" * 22 + "." + "A" * 43,
        "mr-abcdefgh.٣." + "A" * 22 + "." + "A" * 43,
        "mr-ä." + "1." + "A" * 22 + "." + "A" * 43,
        "x" * 10_000,
        "mr-abcdefgh.1." + "A" * 22 + "." + "A" * 43 + "\n",
    ],
)
def test_what_is_no_cookie_of_ours_is_none(cookie: str) -> None:
    assert signing.read(cookie) is None


def test_the_token_of_a_form_is_of_one_session_and_one_key() -> None:
    one, two = session(), session()
    assert signing.csrf(one, DIGEST) == signing.csrf(one, DIGEST)
    assert signing.csrf(one, DIGEST) != signing.csrf(two, DIGEST)
    assert signing.csrf(one, DIGEST) != signing.csrf(one, digest_of("another"))
    assert signing.csrf(one, DIGEST) != one.signature
