"""What a worker of `millrace up` is started with."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from millrace import models_file
from millrace.k8s.cluster import Cluster, Engine
from millrace.k8s.placement import Placed
from millrace.k8s.scaled_objects import scaled_object
from millrace.problems import explain
from millrace.scaling.desired import Rule
from millrace.scaling.processes import WorkerProcesses, as_yaml, environment
from millrace.scaling.settings import ScalingSettings
from queue_schemas.registry import Registry
from tests.doubles.subtasks import a_model

REPOSITORY = Path(__file__).parents[3]
ODD = a_model(
    "openai",
    name="Ödd".encode().hex() + ":34b",
    endpoint="http://127.0.0.1:8080/v1",
    options={"top_p": 0.00001, "stop": ["on", "2026-01-01", "1e3", "\n", "ü"], "none": None},
    price={"prompt": 0.000001},
    fallbacks=[{"provider": "ollama", "endpoint": "http://gpu:11434", "engine_model": "x"}],
)


@pytest.mark.parametrize(
    "registry",
    [
        Registry(models=(a_model(),)),
        Registry(models=(ODD, a_model())),
        models_file.load(models_file.ONE_MACHINE),
        models_file.load(REPOSITORY / "models.yaml"),
    ],
    ids=["plain", "odd", "packaged", "checkout"],
)
def test_workers_read_the_registry_that_the_master_serves(
    registry: Registry, tmp_path: Path
) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(as_yaml(registry), "utf-8")
    assert models_file.load(file) == registry


def test_a_file_that_was_tidied_away_is_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "in a folder that is emptied from time to time"
    processes = WorkerProcesses(lambda: Registry(models=(a_model(),)), folder)
    for _ in range(2):
        processes.arguments(a_model(), "mill-1")
        (folder / "models.yaml").unlink()
        folder.rmdir()


def test_a_worker_is_told_model_name_and_file(tmp_path: Path) -> None:
    models = [a_model()]
    processes = WorkerProcesses(lambda: Registry(models=tuple(models)), tmp_path)
    assert processes.arguments(models[0], "mill-1") == [
        "worker",
        "--wait",
        "--model",
        "mill",
        "--name",
        "mill-1",
        "--models",
        str(tmp_path / "models.yaml"),
    ]
    models[0] = a_model(slots=3)
    processes.arguments(models[0], "mill-2")
    assert models_file.load(tmp_path / "models.yaml").models == (a_model(slots=3),)


def test_what_only_one_worker_can_have_is_not_handed_down() -> None:
    own = {
        "MILLRACE_HEALTH_PORT": "8002",
        "MILLRACE_POD_DELETION_COST": "true",
        "MILLRACE_WORKER_NAME": "only",
        "RABBITMQ_URL": "amqp://mq",
    }
    given = environment(own, a_model(timeout_seconds=1800))
    assert given == {"RABBITMQ_URL": "amqp://mq", "MILLRACE_WORKER_DRAIN_SECONDS": "1830"}


def test_a_drain_time_that_was_chosen_stays() -> None:
    own = {"MILLRACE_WORKER_DRAIN_SECONDS": "5"}
    assert environment(own, a_model()) == own


def test_the_rule_is_that_of_the_manifests_by_default() -> None:
    entry = a_model(min_workers=1, max_workers=5)
    spec = scaled_object(Placed(entry, None), Cluster(engine=Engine.OUTSIDE))["spec"]
    behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    rule = ScalingSettings().rule
    assert spec["triggers"][0]["metadata"]["value"] == str(rule.target)
    assert behaviour["scaleUp"]["policies"] == [
        {"type": "Pods", "value": 5, "periodSeconds": 15}  # all at once
    ]
    assert behaviour["scaleDown"]["stabilizationWindowSeconds"] == rule.down_window_seconds
    assert behaviour["scaleDown"]["policies"] == [
        {"type": "Pods", "value": rule.down_workers, "periodSeconds": rule.down_period_seconds}
    ]


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ScalingSettings().rule == Rule()
    monkeypatch.setenv("MILLRACE_SCALE_DOWN_WINDOW_SECONDS", "20")
    assert ScalingSettings().rule == Rule(down_window_seconds=20)


@pytest.mark.parametrize(
    ("name", "value"),
    [("SECONDS", "0"), ("DOWN_WORKERS", "0"), ("DOWN_WINDOW_SECONDS", "-1"), ("SECONDS", "nan")],
)
def test_a_bad_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"MILLRACE_SCALE_{name}", value)
    with pytest.raises(ValidationError) as error:
        ScalingSettings()
    assert explain(error.value).startswith(f"MILLRACE_SCALE_{name}: ")
