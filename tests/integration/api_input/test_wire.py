"""Rows 1-6, 20-22 and 30, with bytes on a socket: lies about length, slowness, encodings."""

import json
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from tests.integration.api_input.conftest import Wire, read_all, read_answer

GOOD = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'


def post(body: bytes = GOOD, *headers: str, length: int | None = None) -> bytes:
    """A POST that asks the server to close; `length` is what it claims of its body."""
    claimed = len(body) if length is None else length
    lines = ["POST /chat HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {claimed}"]
    lines += headers or ["Content-Type: application/json"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def hurried(body: bytes, length: int) -> bytes:
    """A POST to where bodies have half a second to come."""
    return post(body, length=length).replace(b"/chat", b"/hurried")


def parsed(raw: bytes) -> tuple[int, dict[str, str], Any]:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), headers, json.loads(body)


def refused(raw: bytes, status: int, code: str) -> dict[str, Any]:
    got, headers, body = parsed(raw)
    assert (got, body["error"]["code"]) == (status, code)
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"]
    error: dict[str, Any] = body["error"]
    return error


def send_for(connection: socket.socket, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        connection.sendall(b"x" * 100_000)


@pytest.fixture
def client(wire: Wire) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=wire.url, timeout=60, trust_env=False) as client:
        yield client


def test_a_good_body_is_read(wire: Wire) -> None:
    status, headers, body = parsed(wire.send(post()))
    assert (status, body["model"]) == (200, "m")
    assert "x-millrace-warning" not in headers


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", 'APPLICATION/JSON;charset="UTF-8"'],
)
def test_json_by_any_spelling_is_json(wire: Wire, content_type: str) -> None:
    assert parsed(wire.send(post(GOOD, f"Content-Type: {content_type}")))[0] == 200


@pytest.mark.parametrize(
    "header",
    [
        "X-Nothing: here",
        "Content-Type: text/plain",
        "Content-Type: application/x-www-form-urlencoded",
        "Content-Type: application/jsonp",
        "Content-Type: application/json; charset=utf-16",
        "Content-Type: ",
    ],
)
def test_another_or_no_content_type_is_415(wire: Wire, header: str) -> None:
    refused(wire.send(post(GOOD, header)), 415, "unsupported_media_type")


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, identity"])
def test_a_compressed_body_is_415(wire: Wire, encoding: str) -> None:
    raw = post(b"\x1f\x8b", "Content-Type: application/json", f"Content-Encoding: {encoding}")
    refused(wire.send(raw), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        (b"", "invalid_json"),
        (b"null", "invalid_json"),
        (b"\xff\xfe{", "invalid_encoding"),
        (GOOD.decode().encode("utf-16"), "invalid_encoding"),
        (b"\xef\xbb\xbf" + GOOD, "invalid_encoding"),
        (b'{"temperature":NaN}', "number_not_finite"),
        (b'{"model":"\\ud800"}', "invalid_unicode"),
        (b'{"a":' * 100_000, "too_deep"),
        (b'{"model":"m","model":"n"}', "duplicate_key"),
        (b"{}", "missing_required_parameter"),
    ],
)
def test_a_bad_body_is_400(wire: Wire, body: bytes, code: str) -> None:
    refused(wire.send(post(body)), 400, code)


def test_a_declared_giant_is_refused_before_it_is_sent(wire: Wire) -> None:
    raw = wire.send(post(b"{", length=9_000_000_000))
    error = refused(raw, 413, "request_too_large")
    assert "1000000 bytes" in error["message"]
    assert parsed(raw)[1]["connection"] == "close"


def test_a_client_that_waits_for_leave_to_send_a_giant_never_gets_it(wire: Wire) -> None:
    json_type = "Content-Type: application/json"
    raw = wire.send(post(b"", json_type, "Expect: 100-continue", length=2_000_000))
    assert b"100 Continue" not in raw
    refused(raw, 413, "request_too_large")


def test_an_undeclared_giant_is_refused_while_it_is_read(wire: Wire) -> None:
    head = post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with wire.connect() as connection:
        connection.sendall(head)
        for _ in range(16):  # 1 048 576 bytes, and no end
            connection.sendall(piece)
        refused(read_all(connection), 413, "request_too_large")


def test_a_whole_upload_that_is_too_large_still_gets_its_answer(
    client: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is read to its end, however long we stand still meanwhile.
    monkeypatch.setattr("master.api.unread_bodies._LINGER_SECONDS", 60)
    body = b'{"a":"' + b"x" * 20_000_000 + b'"}'
    answer = client.post("/chat", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"
    assert client.post("/chat", json=json.loads(GOOD)).status_code == 200


def test_a_stranger_cannot_go_on_sending_after_a_refusal(wire: Wire) -> None:
    head = post(b"", length=9_000_000_000_000).replace(b"/chat", b"/locked")
    with wire.connect() as connection:
        connection.sendall(head.replace(b"Connection: close\r\n", b""))
        refused(read_answer(connection), 401, "invalid_api_key")
        with pytest.raises(ConnectionError):  # about a second later
            send_for(connection, seconds=60)


def test_a_connection_is_kept_after_a_refusal_whose_body_was_read(client: httpx2.Client) -> None:
    answers = [
        client.post("/chat", json={}),
        client.get("/nowhere"),
        client.post("/nowhere"),
        client.post("/chat", json=json.loads(GOOD)),
    ]
    assert [answer.status_code for answer in answers] == [400, 404, 404, 200]
    assert all("connection" not in answer.headers for answer in answers)


def test_a_body_at_the_limit_is_read(client: httpx2.Client) -> None:
    body = GOOD + b" " * (1_000_000 - len(GOOD))
    answer = client.post("/chat", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200


def test_a_body_that_comes_too_slowly_is_408(wire: Wire) -> None:
    raw = wire.send(hurried(GOOD[:10], len(GOOD)))  # and nothing more, with the line open
    refused(raw, 408, "request_timeout")
    assert parsed(raw)[1]["connection"] == "close"


def test_a_body_that_drips_is_408_all_the_same(wire: Wire) -> None:
    with wire.connect() as connection:
        connection.sendall(hurried(b"", 1000))
        for _ in range(200):
            connection.sendall(b" ")
            if select.select([connection], [], [], 0.05)[0]:
                break
        refused(read_answer(connection), 408, "request_timeout")


def test_a_client_that_leaves_within_its_body_is_no_crash(wire: Wire) -> None:
    with capture_logs() as logs:
        with wire.connect() as connection:
            connection.sendall(post(GOOD[:10], length=len(GOOD)))
        wire.send(post(GOOD[:10], length=len(GOOD)), half_close=True)
        assert parsed(wire.send(post()))[0] == 200  # served after the two above were noticed
    assert logs == []


def test_a_body_longer_than_declared_is_read_as_declared(wire: Wire) -> None:
    raw = wire.send(post(GOOD, length=len(GOOD) - 5))
    assert raw.startswith(b"HTTP/1.1 400 ")
    assert b"invalid_json" in raw


def test_an_unknown_parameter_is_a_warning_or_with_strictness_an_error(
    client: httpx2.Client,
) -> None:
    body = {**json.loads(GOOD), "temprature": 1}
    answer = client.post("/chat", json=body)
    assert answer.headers["x-millrace-warning"] == "ignored unknown parameters: temprature"
    assert "temprature" not in answer.json()
    strict = client.post("/chat", json=body, headers={"x-millrace-strict": "1"})
    assert (strict.status_code, strict.json()["error"]["param"]) == (400, "temprature")
