"""A busy pod goes last: the worker writes into its own pod what deleting it would cost.

When a Deployment shrinks, Kubernetes lets the pods with the lowest cost go first. Without it the
youngest goes, busy or not. That is safe (a busy worker drains), but leaves an idle one behind.
"""

import asyncio
import math
import ssl
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx2
import structlog

from worker.standing import Standing

log = structlog.get_logger(__name__)

ANNOTATION: Final = "controller.kubernetes.io/pod-deletion-cost"
ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
BUSY: Final = 10
_CALL_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Pace:
    """How often it is told, in seconds: every write wakes all who watch pods."""

    switch_seconds: float = 10.0
    """Between two calls at least."""
    age_seconds: float = 60.0
    """Between two calls that only say how old the work is, and after one that failed."""
    look_seconds: float = 1.0
    """Between two looks at the worker."""


def cost(running: Collection[float], now: float) -> int:
    """0 when idle; else 10 and the seconds since the oldest of these began."""
    return BUSY + int(max(0.0, now - min(running))) if running else 0


def is_due(told: int | None, wanted: int, silent_seconds: float, pace: Pace) -> bool:
    """Whether to tell; `told` is what was said last, None nothing or nothing that was heard."""
    turned = told is not None and (told == 0) != (wanted == 0)
    least = pace.switch_seconds if turned else pace.age_seconds
    return wanted != told and silent_seconds >= least


def api_server(environment: Mapping[str, str]) -> str:
    """Where Kubernetes tells its pods to find it."""
    host = environment.get("KUBERNETES_SERVICE_HOST") or "kubernetes.default.svc"
    port = environment.get("KUBERNETES_SERVICE_PORT") or "443"
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


@dataclass
class PodCost:
    """Tells the cost of one pod, as well as it can be told."""

    api: str
    namespace: str
    pod: str
    account: Path = ACCOUNT
    pace: Pace = Pace()
    _told: int | None = field(default=None, init=False)
    _called_at: float = field(default=-math.inf, init=False)
    _complained: bool = field(default=False, init=False)

    async def run(self, standing: Standing) -> None:
        """Follow the worker until cancelled. Never raises."""
        while True:
            now = time.monotonic()
            wanted = cost(standing.running.values(), now)
            if is_due(self._told, wanted, now - self._called_at, self.pace):
                self._called_at = now
                self._told = wanted if await self._tell(wanted) else None
            await asyncio.sleep(self.pace.look_seconds)

    async def _tell(self, wanted: int) -> bool:
        try:
            await self._patch(wanted)
        except Exception as error:  # whatever it is, it must not disturb the work
            # Once: who set the cluster up wrongly needs no line a minute.
            if not self._complained:
                log.warning("worker.pod_cost_untold", pod=self.pod, reason=_reason(error))
            self._complained = True
            return False
        self._complained = False
        return True

    async def _patch(self, wanted: int) -> None:
        token = (self.account / "token").read_text("ascii").strip()  # it is renewed every hour
        path = f"/api/v1/namespaces/{self.namespace}/pods/{self.pod}"
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/merge-patch+json",
        }
        body = {"metadata": {"annotations": {ANNOTATION: str(wanted)}}}
        async with httpx2.AsyncClient(
            base_url=self.api, verify=self._trust(), timeout=_CALL_SECONDS, trust_env=False
        ) as client:
            answer = await client.patch(path, json=body, headers=headers)
            answer.raise_for_status()

    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.account / "ca.crt"))


def _reason(error: Exception) -> str:
    if isinstance(error, httpx2.HTTPStatusError):
        status = error.response.status_code
        hint = "; may its service account patch pods?" if status in {401, 403} else ""
        return f"Kubernetes answered {status}{hint}"
    return f"{type(error).__name__}: {error}"
