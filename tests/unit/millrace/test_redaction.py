"""Redaction: what the built-in way masks, and hooks that fail."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace import redaction
from millrace.problems import Problem
from millrace.redaction import basic, redacted


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to anna.b+c@mail.example.org, please.", "Write to [email], please."),
        ("IBAN DE89 3704 0044 0532 0130 00.", "IBAN [iban]."),
        ("iban de89 3704 0044 0532 0130 00", "iban [iban]"),
        ("GB29NWBK60161331926819", "[iban]"),
        ("Call +49 (0)30 123-4567 now", "Call [phone] now"),
        ("call 030 1234567 or (555) 123-4567", "call [phone] or [phone]"),
        ("0171/1234567", "[phone]"),
        ("card 4111 1111 1111 1111, id 12345678", "card [number], id [number]"),
    ],
)
def test_what_names_a_person_is_masked(text: str, masked: str) -> None:
    assert basic(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "In 2026, on 2026-11-21 and on 01/02/2026 at 10:15, 3.14159265 and 0.000123456.",
        "Python 3.11 on 10.0.0.1 took 12 ms; f(x) = 2 * x + 100000.",
        "0 1 2 3 4 5 6 7 8 9",
        "1000 2000 3000",
        "@decorator and a@b",
        "",
    ],
)
def test_what_names_nobody_stays(text: str) -> None:
    assert basic(text) == text


@given(st.text(), st.from_regex(r"[a-z0-9.]{1,20}@[a-z]{1,9}\.[a-z]{2,5}", fullmatch=True))
def test_no_address_survives_wherever_it_stands(around: str, address: str) -> None:
    assert address not in basic(f"{around} {address} {around}")


def test_long_texts_take_no_long_time() -> None:
    for piece in ("a", "1 ", "0", "a.b@", "AB12 ", "(0"):
        basic(piece * 20_000)


def test_every_text_of_a_record_is_redacted_and_nothing_else() -> None:
    record = {
        "messages": [
            {"role": "user", "content": "secret"},
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"arguments": "secret"}}]},
        ],
        "judgements": [{"kind": "human", "comment": "secret", "rating": {"tags": ["secret"]}}],
        "score": 0.5,
        "answer": None,
    }
    assert redacted(record, [lambda text: "***"]) == {
        "messages": [
            {"role": "user", "content": "***"},
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"arguments": "***"}}]},
        ],
        "judgements": [{"kind": "human", "comment": "***", "rating": {"tags": ["***"]}}],
        "score": 0.5,
        "answer": None,
    }


@pytest.fixture
def hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "our_hooks.py").write_text(
        "NUMBER = 7\n"
        "def hide(text): return text.replace('x', '-')\n"
        "def fail(text): raise ValueError('no')\n"
        "def forget(text): return None\n"
    )
    (tmp_path / "broken_hooks.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))


@pytest.mark.usefixtures("hooks")
def test_a_function_of_the_folder_can_be_named() -> None:
    assert redaction.load("our_hooks:hide")("axb") == "a-b"
    assert redaction.load("basic") is basic


@pytest.mark.usefixtures("hooks")
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("all", "takes basic or module:function"),
        (":hide", "takes basic or module:function"),
        ("not_there:hide", "cannot be loaded"),
        ("our_hooks:not_there", "cannot be loaded"),
        ("broken_hooks:hide", "cannot be loaded"),
        ("our_hooks:NUMBER", "is not a function"),
    ],
)
def test_a_hook_that_is_none_is_refused(name: str, why: str) -> None:
    with pytest.raises(Problem, match=why):
        redaction.load(name)


@pytest.mark.usefixtures("hooks")
@pytest.mark.parametrize(
    ("name", "why"), [("fail", "ValueError: no"), ("forget", "did not return a text")]
)
def test_a_hook_that_fails_stops_the_export(name: str, why: str) -> None:
    with pytest.raises(Problem, match=rf"{why}.*Nothing was written"):
        redaction.load(f"our_hooks:{name}")("text")
