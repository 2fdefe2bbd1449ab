import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from millrace.k8s import cluster
from millrace.k8s.cluster import Cluster
from millrace.k8s.labels import Manifest, to_yaml
from millrace.k8s.placement import LLAMA_SERVER_URL, Placed
from millrace.k8s.pools import claim, pull_job
from millrace.k8s.scaled_objects import scaled_object, trigger_authentication
from millrace.k8s.workers import deployment
from queue_schemas import topology
from queue_schemas.registry import Fallback, Model, ProviderName

GPU = cluster.parse(
    """\
engine: ollama
runtime_class: nvidia
tolerations: [{key: nvidia.com/gpu, operator: Exists}]
storage: {class: local-path, gib: 50}
scale_down_seconds: 120
pools: [{name: gpu, node_selector: {disk: fast}, gpus: 1, memory_gib: 24}]
""",
    "c",
)
CPU = cluster.parse(
    "{engine: ollama, runtime_class: nvidia, pools: [{name: cpu, memory_gib: 8}]}", "c"
)
LLAMA = cluster.parse("{engine: llama-server, pools: [{name: cpu, memory_gib: 8}]}", "c")
OUTSIDE = cluster.parse("engine: outside", "c")


def model(**differs: Any) -> Model:
    return Model.model_validate(
        {
            "name": "llama3.2:3b",
            "provider": "ollama",
            "max_workers": 3,
            "slots": 4,
            "gpu_memory_gib": 6.5,
            "timeout_seconds": 900.5,
            "first_token_seconds": 180,
            "context_length": 16384,
            **differs,
        }
    )


def made(of: Cluster, **differs: Any) -> Manifest:
    return deployment(Placed(model(**differs), of.pools[0] if of.pools else None), of)


def pod(of: Cluster, **differs: Any) -> Manifest:
    found: Manifest = made(of, **differs)["spec"]["template"]["spec"]
    return found


def variables(container: Manifest) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}


def test_nobody_but_the_autoscaler_says_how_many_workers_there_are() -> None:
    spec = made(GPU)["spec"]
    assert "replicas" not in spec
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_a_worker_may_finish_its_longest_subtask() -> None:
    found = pod(GPU)
    drain = int(variables(found["containers"][0])["MILLRACE_WORKER_DRAIN_SECONDS"])
    assert 901 < drain < found["terminationGracePeriodSeconds"] == 961


def test_the_engine_is_a_sidecar_that_outlives_the_worker() -> None:
    [engine] = pod(GPU)["initContainers"]
    assert (engine["name"], engine["restartPolicy"]) == ("engine", "Always")
    assert (
        variables(engine).items()
        >= {
            "OLLAMA_CONTEXT_LENGTH": "16384",
            "OLLAMA_NUM_PARALLEL": "4",
            "OLLAMA_KEEP_ALIVE": "30m",
            "OLLAMA_NOPRUNE": "1",
            "OLLAMA_MODELS": "/models",
            "OLLAMA_HOST": "127.0.0.1:11434",
        }.items()
    )
    [models] = [m for m in engine["volumeMounts"] if m["name"] == "models"]
    assert models["readOnly"] is True
    assert variables(pod(GPU)["containers"][0])["OLLAMA_HOST"] == "http://127.0.0.1:11434"


def test_a_gpu_pool_asks_for_one_gpu_and_its_runtime() -> None:
    found = pod(GPU)
    [engine] = found["initContainers"]
    assert engine["resources"]["limits"] == {"nvidia.com/gpu": 1}
    assert "NVIDIA_VISIBLE_DEVICES" not in variables(engine)
    assert found["runtimeClassName"] == "nvidia"
    assert found["nodeSelector"] == {"disk": "fast"}
    assert found["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert {"name": "shm", "mountPath": "/dev/shm"} in engine["volumeMounts"]


def test_a_cpu_pool_sees_no_gpu_and_holds_its_memory() -> None:
    found = pod(CPU)
    [engine] = found["initContainers"]
    assert variables(engine)["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert engine["resources"]["limits"] == {"memory": "6656Mi"}
    assert "runtimeClassName" not in found


def test_with_an_engine_outside_there_is_a_worker_and_nothing_else() -> None:
    found = pod(OUTSIDE)
    assert "initContainers" not in found
    assert [volume["name"] for volume in found["volumes"]] == ["registry", "tmp"]
    assert "OLLAMA_HOST" not in variables(found["containers"][0])


def test_no_engine_keeps_earlier_prompts_in_memory_that_the_pod_has_not() -> None:
    [llama] = pod(LLAMA, provider="openai", endpoint=LLAMA_SERVER_URL, engine_model="a.gguf")[
        "initContainers"
    ]
    for engine in (llama, *pod(CPU)["initContainers"], *pod(GPU)["initContainers"]):
        assert variables(engine)["LLAMA_ARG_CACHE_RAM"] == "0"


def test_llama_server_loads_one_file_and_says_when() -> None:
    [engine] = pod(LLAMA, provider="openai", endpoint=LLAMA_SERVER_URL, engine_model="q/a.gguf")[
        "initContainers"
    ]
    arguments = dict(zip(engine["args"][::2], engine["args"][1::2], strict=True))
    assert arguments["--model"] == "/models/q/a.gguf"
    assert arguments["--alias"] == "q/a.gguf"
    assert arguments["--ctx-size"] == str(4 * 16384)
    assert engine["startupProbe"]["httpGet"] == {"path": "/health", "port": "engine"}


def test_keys_of_engines_come_from_the_secret() -> None:
    other = Fallback(provider=ProviderName.OPENAI, endpoint="https://b/v1", api_key_env="B_KEY")
    found = pod(OUTSIDE, api_key_env="A_KEY", fallbacks=[other.model_dump()])
    secret = {
        each["name"]: each["valueFrom"]["secretKeyRef"]
        for each in found["containers"][0]["env"]
        if "valueFrom" in each
    }
    assert secret == {
        "RABBITMQ_URL": {"name": "broker-worker", "key": "RABBITMQ_URL"},
        "MILLRACE_QUEUE_KEY": {"name": "queue-key", "key": "MILLRACE_QUEUE_KEY"},
        "A_KEY": {"name": "engine-keys", "key": "A_KEY"},
        "B_KEY": {"name": "engine-keys", "key": "B_KEY"},
    }


def annotation(**differs: Any) -> str:
    found: str = made(GPU, **differs)["spec"]["template"]["metadata"]["annotations"][
        "millrace.dev/entry"
    ]
    return found


def test_workers_start_anew_when_their_part_of_the_entry_changed_and_only_then() -> None:
    assert annotation() == annotation(max_workers=1, price={"prompt": 1}, gpu_memory_gib=7)
    assert annotation() != annotation(inter_token_seconds=5)
    assert annotation(capabilities=["chat", "code"]) == annotation(capabilities=["code", "chat"])
    # A worker lets a model reason only where its entry says that it does.
    assert annotation() != annotation(capabilities=["chat", "reasoning"])


def test_the_queue_that_is_watched_is_the_models_own() -> None:
    placed = Placed(model(), GPU.pools[0])
    spec = scaled_object(placed, GPU)["spec"]
    [trigger] = spec["triggers"]
    assert trigger["metadata"] == {
        "protocol": "http",
        "mode": "QueueLength",
        "queueName": topology.subtasks("llama3-2-3b").name,
        "value": "1",
        "excludeUnacknowledged": "false",
    }
    assert trigger["metricType"] == "AverageValue"
    assert trigger["authenticationRef"]["name"] == trigger_authentication()["metadata"]["name"]
    assert spec["scaleTargetRef"]["name"] == made(GPU)["metadata"]["name"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, 3)
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"


def test_up_goes_in_one_step_and_down_slowly() -> None:
    spec = scaled_object(Placed(model(), None), GPU)["spec"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    up, down = behavior["scaleUp"], behavior["scaleDown"]
    assert up["stabilizationWindowSeconds"] == 0
    assert up["policies"] == [{"type": "Pods", "value": 3, "periodSeconds": 15}]
    assert down["stabilizationWindowSeconds"] == 120
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]


@pytest.mark.parametrize("least", [0, 1])
def test_what_only_means_something_without_a_worker_is_only_said_there(least: int) -> None:
    spec = scaled_object(Placed(model(min_workers=least), None), GPU)["spec"]
    assert ("pollingInterval" in spec, "cooldownPeriod" in spec) == (not least, not least)
    assert spec["minReplicaCount"] == spec["fallback"]["replicas"] == least


def test_the_volume_is_that_of_the_pool() -> None:
    spec = claim(GPU.pools[0], GPU)["spec"]
    assert spec["storageClassName"] == "local-path"
    assert spec["resources"]["requests"]["storage"] == "50Gi"
    assert "storageClassName" not in claim(CPU.pools[0], CPU)["spec"]


def job(models: list[Model], tag: str = "1") -> Manifest:
    found = pull_job(GPU.pools[0], models, GPU, tag)
    assert found is not None
    return found


def test_another_model_or_another_release_makes_another_job() -> None:
    one, two = model(name="a"), model(name="b")
    names = {
        job(m, t)["metadata"]["name"] for m, t in (([one], "1"), ([one, two], "1"), ([one], "2"))
    }
    assert len(names) == 3
    assert job([one, two]) == job([two, one])
    assert job([one]) == job([model(name="a", max_workers=1), one])
    assert pull_job(GPU.pools[0], [], GPU, "1") is None
    assert pull_job(LLAMA.pools[0], [one], LLAMA, "1") is None


def test_a_file_says_that_it_is_rendered_and_keeps_its_order() -> None:
    text = to_yaml([{"b": "1", "a": "x\ny\n"}, {"c": []}], "elsewhere")
    assert text.splitlines() == [
        "# Rendered by `millrace k8s render` from elsewhere. Do not edit: change those and render "
        "again.",
        "b: '1'",
        "a: |",
        "  x",
        "  y",
        "---",
        "c: []",
    ]


@pytest.mark.parametrize(
    "text", ["12345678e9", "1e3", "1.5e3", "1_2e3", "0123456789", "0o17", "0X1F", "y", "N", ".5e1"]
)
def test_text_is_not_taken_for_a_number_by_go(text: str) -> None:
    """Go's YAML knows more numbers than Python's, and then there is one where text has to be."""
    assert to_yaml([{text: text}], "elsewhere").endswith(f"\n'{text}': '{text}'\n")


# --- what the containers' shells do, with an `ollama` that only notes how it was called ----------

NOTES = """\
#!/bin/sh
line=
for each in "$@"; do line="$line<$each>"; done
echo "$line" >> "$NOTES"
case "$1" in
  ps) grep -q serve "$NOTES" ;;
  serve) exec sleep 60 ;;
  show) [ "$2" != missing ] ;;
  pull) [ "$2" != broken ] ;;
esac
"""


@pytest.fixture
def noted(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ollama").write_text(NOTES)
    (tmp_path / "bin" / "ollama").chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "NOTES": str(tmp_path / "notes"), "OLLAMA_MODELS": str(tmp_path / "m")}


def ran(command: list[str], environment: dict[str, str]) -> tuple[int, list[str]]:
    assert shutil.which(command[0])
    done = subprocess.run(
        command, env=environment, capture_output=True, timeout=60, check=False, stdin=None
    )
    notes = Path(environment["NOTES"])
    return done.returncode, notes.read_text().splitlines() if notes.exists() else []


def startup(name: str) -> list[str]:
    [engine] = pod(GPU, engine_model=name)["initContainers"]
    command: list[str] = engine["startupProbe"]["exec"]["command"]
    return command


def test_the_startup_probe_loads_the_model_by_its_whole_name(noted: dict[str, str]) -> None:
    assert ran(startup("hub/a/b:Q4 $x"), noted) == (
        0,
        ["<show><hub/a/b:Q4 $x>", "<run><hub/a/b:Q4 $x><>"],
    )


def test_the_startup_probe_fails_without_the_model_and_pulls_nothing(noted: dict[str, str]) -> None:
    code, notes = ran(startup("missing"), noted)
    assert code != 0
    assert notes == ["<show><missing>"]


def test_an_engine_waits_for_the_first_weights(noted: dict[str, str], tmp_path: Path) -> None:
    [engine] = pod(GPU)["initContainers"]
    with subprocess.Popen(engine["command"], env=noted) as waiting:
        waiting.terminate()
        assert waiting.wait(timeout=60) in {0, -15}  # it may be told before it listens
    assert not Path(noted["NOTES"]).exists()
    for name in ("blobs", "manifests"):
        (tmp_path / "m" / name).mkdir(parents=True)
    (tmp_path / "bin" / "ollama").write_text(NOTES.replace("exec sleep 60", "exit 0"))
    assert ran(engine["command"], noted) == (0, ["<serve>"])


def test_the_job_pulls_every_model_and_ends_its_server(noted: dict[str, str]) -> None:
    command = job([model(name="b"), model(name="a-c")])["spec"]["template"]["spec"]["containers"][
        0
    ]["command"]
    code, notes = ran(command, noted)
    assert code == 0
    assert set(notes) == {"<serve>", "<ps>", "<pull><a-c>", "<pull><b>"}


def test_the_job_fails_where_one_cannot_be_pulled(noted: dict[str, str]) -> None:
    command = job([model(name="broken"), model(name="z")])["spec"]["template"]["spec"][
        "containers"
    ][0]["command"]
    code, notes = ran(command, noted)
    assert code != 0
    assert "<pull><z>" not in notes
