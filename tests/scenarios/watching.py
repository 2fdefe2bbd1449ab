"""A real Prometheus that watches a stack, with our own rules, faster than in production."""

import copy
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import yaml

from millrace.chaos.machine import NO_TLS, dismiss, free_port, guard
from millrace.chaos.stack import until
from tests.prometheus import program

REPOSITORY = Path(__file__).parents[2]
MONITORING = REPOSITORY / "k8s" / "components" / "monitoring"
START_SECONDS = 60


@dataclass(frozen=True)
class Prometheus:
    """Asks a Prometheus of our own."""

    url: str

    async def ready(self) -> None:
        """Wait until it answers queries."""

        async def answers() -> bool:
            try:
                async with httpx2.AsyncClient(trust_env=False, verify=NO_TLS) as http:
                    return (await http.get(f"{self.url}/-/ready")).status_code == 200
            except httpx2.TransportError:
                return False

        await until(answers, START_SECONDS)

    async def query(self, expr: str) -> list[dict[str, Any]]:
        """The series of an expression now."""
        found: list[dict[str, Any]] = (await self._get("query", query=expr))["result"]
        return found

    async def names(self) -> set[str]:
        """Every metric that it has ever seen."""
        return set(await self._get("label/__name__/values"))

    async def traces(self, metric: str) -> set[str]:
        """The ids of traces that a metric has named within the last hour."""
        now = time.time()
        told = {"query": metric, "start": str(now - 3600), "end": str(now)}
        found = await self._get("query_exemplars", **told)
        return {each["labels"]["trace_id"] for series in found for each in series["exemplars"]}

    async def firing(self) -> dict[str, dict[str, Any]]:
        """Alerts that fire, by name; of several the last."""
        alerts = (await self._get("alerts"))["alerts"]
        return {a["labels"]["alertname"]: a for a in alerts if a["state"] == "firing"}

    async def until_fires(self, name: str, seconds: float = 60) -> dict[str, Any]:
        """Wait until an alert fires; gives it."""

        async def fires() -> dict[str, Any] | None:
            return (await self.firing()).get(name)

        return await until(fires, seconds)

    async def until_quiet(self, *names: str, seconds: float = 60) -> None:
        """Wait until none of these alerts fires."""

        async def quiet() -> bool:
            return (await self.firing()).keys().isdisjoint(names)

        await until(quiet, seconds)

    async def until_no_other_fires(self, *names: str, seconds: float = 60) -> None:
        """Wait until at most these alerts fire."""

        async def calm() -> bool:
            return (await self.firing()).keys() <= set(names)

        await until(calm, seconds)

    async def _get(self, path: str, **parameters: str) -> Any:
        async with httpx2.AsyncClient(trust_env=False, verify=NO_TLS, timeout=30) as http:
            answer = await http.get(f"{self.url}/api/v1/{path}", params=parameters)
            assert answer.status_code == 200, answer.text
            return answer.json()["data"]


@contextmanager
def watched(folder: Path, targets: Mapping[str, list[str]]) -> Iterator[Prometheus]:
    """A Prometheus that scrapes these addresses, by job, every second."""
    config = _configured(folder, targets)
    port = free_port()
    command = [program("prometheus"), f"--config.file={config}"]
    command += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    command.append("--enable-feature=exemplar-storage")
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    watch = guard(str(process.pid), "KILL")
    try:
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        dismiss(watch)
        print((folder / "prometheus.log").read_text(errors="replace")[-4000:])


def _configured(folder: Path, targets: Mapping[str, list[str]]) -> Path:
    """The configuration of the cluster, with addresses of ours, and without its patience."""
    folder.mkdir(exist_ok=True)
    told = yaml.safe_load((MONITORING / "prometheus.yml").read_text("utf-8"))
    told["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    told["rule_files"] = [str(folder / "*.rules.yml")]
    told["scrape_configs"] = [
        {"job_name": job["job_name"], "static_configs": [{"targets": targets[job["job_name"]]}]}
        for job in told["scrape_configs"]
        if job["job_name"] in targets
    ]
    for file in (MONITORING / "rules").glob("*.yml"):
        rules = _impatient(yaml.safe_load(file.read_text("utf-8")))
        (folder / f"{file.stem}.rules.yml").write_text(yaml.safe_dump(rules), "utf-8")
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(told), "utf-8")
    return config


def _impatient(rules: dict[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(rules)
    for group in found["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = "1s"
    return found


def expressions(dashboard: str) -> Iterator[tuple[str, str]]:
    """Title and expression of every query of a dashboard, with all its variables filled in."""
    made = json.loads((MONITORING / "dashboards" / f"{dashboard}.json").read_text("utf-8"))
    for panel in made["panels"]:
        for target in panel.get("targets", ()):
            expr = target["expr"].replace("$__rate_interval", "30s")
            yield panel["title"], expr.replace("$model", ".*").replace("$strategy", ".*")
