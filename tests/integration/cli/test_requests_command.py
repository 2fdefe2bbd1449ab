"""`millrace requests`: the list, one request, and ids that are cut short."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.cli.command_line import millrace
from tests.integration.cli.fake_master import ANSWER, REQUEST_ID, FakeMaster, serving


def entry(id_: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "state": "completed",
        "model": "millrace/split",
        "strategy": "split",
        "question": "Compare HNSW and IVFFlat",
        "created_at": "2026-01-01T00:00:00+00:00",
        "seconds": 4.4,
        "subtasks": 2,
        "ended": 2,
        "tokens": 3110,
    } | changes


OTHER = "0199ffff-0000-7000-8000-000000000002"


@pytest.fixture
def master() -> Iterator[FakeMaster]:
    listed = [entry(REQUEST_ID), entry(OTHER, state="failed", question=None)]
    with serving(FakeMaster(listed=listed, done=True)) as running:
        yield running


def test_requests_are_listed_in_80_columns(master: FakeMaster) -> None:
    done = millrace("requests", MILLRACE_URL=master.url)
    assert (done.returncode, done.stderr) == (0, "")
    words = " ".join(done.stdout.split())
    assert "0199c0de completed split 2/2 3,110 4.4 s Compare HNSW" in words
    assert max(map(len, done.stdout.splitlines())) <= 80
    failed = millrace("requests", "--state", "failed", "--json", MILLRACE_URL=master.url)
    assert [each["id"] for each in json.loads(failed.stdout)] == [OTHER]
    none = millrace("requests", "list", "--open", MILLRACE_URL=master.url)
    assert none.stdout == "There is no such request.\n"


def test_the_beginning_of_an_id_shows_one_request(master: FakeMaster) -> None:
    done = millrace("requests", "show", "0199c0de", "--answer", MILLRACE_URL=master.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "millrace/split · completed" in done.stdout
    assert ANSWER.strip() in done.stdout
    record = millrace("requests", "show", REQUEST_ID, "--json", MILLRACE_URL=master.url)
    assert json.loads(record.stdout)["id"] == REQUEST_ID


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        ("0199", f"'0199' may be several requests: {REQUEST_ID}, {OTHER}."),
        ("dead", "there is no request 'dead'; `millrace requests` lists them."),
        ("no-id", "'no-id' is no id: hexadecimal digits, the first 4 at least."),
    ],
)
def test_an_id_that_means_no_one_request_is_refused(
    master: FakeMaster, identity: str, said: str
) -> None:
    done = millrace("requests", "show", identity, MILLRACE_URL=master.url)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"millrace: {said}\n")
