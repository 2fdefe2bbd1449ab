import pytest

from master.api import errors
from master.api.errors import ApiError


@pytest.mark.parametrize(
    ("error", "status", "code", "kind"),
    [
        (errors.invalid_json("x"), 400, "invalid_json", "invalid_request_error"),
        (errors.invalid_encoding(), 400, "invalid_encoding", "invalid_request_error"),
        (errors.invalid_value("x", "n"), 400, "invalid_value", "invalid_request_error"),
        (errors.context_length_exceeded(8, 9), 400, "context_length_exceeded",
         "invalid_request_error"),
        (errors.invalid_api_key(), 401, "invalid_api_key", "authentication_error"),
        (errors.permission_denied("admin"), 403, "permission_denied", "permission_error"),
        (errors.not_found("it"), 404, "not_found", "invalid_request_error"),
        (errors.model_not_found("x", []), 404, "model_not_found", "invalid_request_error"),
        (errors.request_timeout(30), 408, "request_timeout", "invalid_request_error"),
        (errors.request_in_progress(), 409, "request_in_progress", "invalid_request_error"),
        (errors.stream_expired(), 410, "stream_expired", "invalid_request_error"),
        (errors.request_too_large(8), 413, "request_too_large", "invalid_request_error"),
        (errors.unsupported_media_type("x"), 415, "unsupported_media_type",
         "invalid_request_error"),
        (errors.idempotency_key_reused(), 422, "idempotency_key_reused", "invalid_request_error"),
        (errors.queue_full("m"), 429, "queue_full", "rate_limit_error"),
        (errors.rate_limited("x", 1), 429, "rate_limit_exceeded", "rate_limit_error"),
        (errors.server_error(), 500, "internal_error", "server_error"),
        (errors.service_unavailable("x"), 503, "service_unavailable", "server_error"),
    ],
)  # fmt: skip
def test_every_error_is_an_envelope_of_four_fields(
    error: ApiError, status: int, code: str, kind: str
) -> None:
    assert error.status == status
    assert error.envelope() == {
        "error": {"message": error.message, "type": kind, "param": error.param, "code": code}
    }
    assert str(error) == error.message


def test_an_unknown_model_is_answered_with_those_there_are() -> None:
    error = errors.model_not_found("gpt-9", ["llama3.2", "millrace/auto"])
    assert error.message == "the model 'gpt-9' does not exist; available: llama3.2, millrace/auto"
    assert error.param == "model"


def test_a_hostile_model_name_is_not_echoed_as_it_is() -> None:
    error = errors.model_not_found("\x1b[2J\r\n😀" * 1000, [f"m{i}" for i in range(80)])
    assert error.message.isascii() is False or error.message.isprintable()
    assert "\r" not in error.message
    assert "\x1b" not in error.message
    assert len(error.message) < 4000
    assert error.message.endswith("m49 and 30 more")


def test_the_counts_of_a_too_long_prompt_are_told() -> None:
    message = errors.context_length_exceeded(4096, 5000, 512).message
    assert "4096" in message
    assert "5512" in message
    assert "5000 in the messages" in message


@pytest.mark.parametrize(
    ("error", "at_least"),
    [
        (errors.service_unavailable("x", 3), 3),
        (errors.queue_full("m", 7), 7),
        (errors.rate_limited("x", 0), 0),
        (errors.service_unavailable("x", 9999), 119),
        (errors.request_in_progress(2), 2),
    ],
)
def test_what_may_be_retried_says_when_within_what_the_sdk_obeys(
    error: ApiError, at_least: float
) -> None:
    assert error.headers["x-should-retry"] == "true"
    assert at_least <= int(error.headers["Retry-After"]) <= 120
    assert at_least * 1000 <= int(error.headers["retry-after-ms"]) <= 120_000


def test_not_everybody_is_told_to_come_back_at_once() -> None:
    waits = {errors.retry_headers(10)["retry-after-ms"] for _ in range(50)}
    assert len(waits) > 25
    assert all(10_000 <= int(wait) <= 15_000 for wait in waits)


def test_a_bug_is_not_to_be_retried() -> None:
    assert errors.server_error().headers == {"x-should-retry": "false"}
