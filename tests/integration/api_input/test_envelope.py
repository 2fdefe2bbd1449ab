"""Everything that is not a success comes in one envelope, with a request id; bugs say nothing."""

import re
from collections.abc import Iterator

import httpx2
import pytest
from structlog.testing import capture_logs

from tests.integration.api_input.conftest import Wire

SECRET = "secret of the house"


@pytest.fixture
def client(wire: Wire) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=wire.url, timeout=60, trust_env=False) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "param"),
    [
        ("GET", "/nowhere", 404, "not_found", None),
        ("GET", "/chat", 405, "method_not_allowed", None),
        ("GET", "/typed", 400, "invalid_value", "limit"),
        ("GET", "/typed?limit=x", 400, "invalid_value", "limit"),
        ("GET", "/bug", 500, "internal_error", None),
        ("GET", "/refused", 503, "service_unavailable", None),
        ("GET", "/teapot", 418, "i_m_a_teapot", None),
    ],
)
def test_every_failure_has_the_envelope(
    client: httpx2.Client, method: str, path: str, status: int, code: str, param: str | None
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    assert error["message"]
    assert answer.headers["x-request-id"]


def test_405_says_what_is_allowed(client: httpx2.Client) -> None:
    assert client.get("/chat").headers["allow"] == "POST"


def test_headers_of_an_error_arrive(client: httpx2.Client) -> None:
    assert client.get("/teapot").headers["x-pot"] == "1"
    answer = client.get("/refused")
    assert 5 <= int(answer.headers["retry-after"]) <= 8
    assert answer.headers["x-should-retry"] == "true"


def test_a_bug_is_logged_with_its_request_id_and_not_told(client: httpx2.Client) -> None:
    with capture_logs() as logs:
        answer = client.get("/bug", headers={"x-request-id": "req-17"})
    assert SECRET not in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-request-id"] == "req-17"
    (line,) = logs
    assert (line["event"], line["request_id"]) == ("request.crashed", "req-17")
    assert SECRET in str(line["exc_info"])


def test_a_bug_in_a_stream_is_logged_once_and_cuts_the_stream(client: httpx2.Client) -> None:
    with capture_logs() as logs, pytest.raises(httpx2.RemoteProtocolError):
        client.get("/stream?fail=1", headers={"x-request-id": "req-18"})
    assert [line["request_id"] for line in logs] == ["req-18"]


@pytest.mark.parametrize("given", ["a", "A-b_9", "x" * 64])
def test_a_plain_request_id_is_kept(client: httpx2.Client, given: str) -> None:
    answer = client.get("/stream", headers={"x-request-id": given})
    assert answer.headers.get_list("x-request-id") == [given]
    assert answer.text == 'data: {"n":1}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize(
    "given", [b"", b"x" * 65, b"x" * 10_000, b"a b", b"a;b", b"\xf0\x9f\x98\x80", b"a\tb", b"a/b"]
)
def test_any_other_request_id_is_replaced(client: httpx2.Client, given: bytes) -> None:
    answer = client.get("/refused", headers=[(b"x-request-id", given)])
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_two_request_ids_are_none(client: httpx2.Client) -> None:
    answer = client.get("/refused", headers=[("x-request-id", "a"), ("x-request-id", "b")])
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_each_request_without_an_id_gets_its_own(client: httpx2.Client) -> None:
    seen = {client.get("/refused").headers["x-request-id"] for _ in range(5)}
    assert len(seen) == 5
