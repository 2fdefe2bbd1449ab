"""A worker's pod that is told what deleting it costs, over real TLS."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from millrace.chaos.stack import until
from tests.doubles.kubernetes_api import TOKEN, ApiServer, api_server
from tests.doubles.subtasks import a_model
from worker import pod_cost
from worker.pod_cost import ANNOTATION, Pace, PodCost
from worker.standing import Standing

QUICK = Pace(switch_seconds=0.05, age_seconds=0.05, look_seconds=0.01)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call fails because this machine stands still."""
    monkeypatch.setattr(pod_cost, "_CALL_SECONDS", 60)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiServer]:
    with api_server(tmp_path) as server:
        yield server


@dataclass
class Told:
    """A worker whose pod's cost is told while the block runs."""

    api: ApiServer
    standing: Standing

    async def last_is(self, expected: int | None) -> None:
        async def said() -> bool:
            return bool(self.api.patches) and self.costs()[-1] == expected

        await until(said, 30)

    def costs(self) -> list[int]:
        patches = self.api.patches
        return [int(patch.body["metadata"]["annotations"][ANNOTATION]) for patch in patches]


@contextlib.asynccontextmanager
async def telling(api: ApiServer, account: Path | None = None) -> AsyncIterator[Told]:
    standing = Standing("worker-1", a_model())
    cost = PodCost(api.url, "millrace", "worker-mill-7d9f", account or api.account, QUICK)
    task = asyncio.create_task(cost.run(standing))
    try:
        yield Told(api, standing)
        assert not task.done(), "it never ends by itself"
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_the_pod_is_patched_when_the_worker_gets_busy_and_idle_again(api: ApiServer) -> None:
    async with telling(api) as told:
        await told.last_is(0)  # what a former container left there is taken back
        execution = uuid4()
        told.standing.running[execution] = time.monotonic() - 40

        async def busy() -> bool:
            return told.costs()[-1] >= 50

        await until(busy, 30)
        told.standing.ended(execution)
        await told.last_is(0)
    patch = api.patches[0]
    assert patch.path == "/api/v1/namespaces/millrace/pods/worker-mill-7d9f"
    assert patch.headers["Authorization"] == f"Bearer {TOKEN}"
    assert patch.headers["Content-Type"] == "application/merge-patch+json"
    assert patch.body == {"metadata": {"annotations": {ANNOTATION: "0"}}}


async def test_a_refusal_is_logged_once_and_tried_again_later(api: ApiServer) -> None:
    api.status = 403
    with capture_logs() as logs:
        async with telling(api) as told:

            async def refused_often() -> bool:
                return len(api.patches) >= 3

            await until(refused_often, 30)
            api.status = 200
            asked = len(api.patches)
            told.standing.began(uuid4())

            async def heard() -> bool:
                return len(api.patches) > asked + 1

            await until(heard, 30)
    [line] = [line for line in logs if line["event"] == "worker.pod_cost_untold"]
    assert "patch pods" in line["reason"]
    assert TOKEN not in str(logs)


@pytest.mark.parametrize("missing", ["token", "ca.crt", "everything"])
async def test_outside_of_a_pod_nothing_is_told_and_nothing_breaks(
    api: ApiServer, tmp_path: Path, missing: str
) -> None:
    account = api.account if missing != "everything" else tmp_path / "nowhere"
    if missing != "everything":
        (account / missing).unlink()
    with capture_logs() as logs:
        async with telling(api, account):

            async def complained() -> bool:
                return bool(logs)

            await until(complained, 30)
    assert api.patches == []


async def test_a_server_with_another_ca_gets_no_token(api: ApiServer, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with api_server(other), capture_logs() as logs:
        (other / "token").write_text(TOKEN)
        async with telling(api, other):

            async def complained() -> bool:
                return bool(logs)

            await until(complained, 30)
    assert api.patches == []
    assert "certificate verify failed" in logs[0]["reason"]
