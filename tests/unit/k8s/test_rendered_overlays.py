"""Rendering a whole overlay, and that what is committed is what is rendered."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from millrace import cli
from millrace.k8s import rendering, versions, written
from millrace.k8s.labels import MARK
from millrace.k8s.problems import Unfit
from millrace.k8s.written import Kind
from queue_schemas import topology

ROOT = Path(__file__).parents[3]
OVERLAYS = sorted(path.parent.name for path in ROOT.glob("k8s/overlays/*/cluster.yaml"))
CLUSTER = "{engine: ollama, pools: [{name: one, memory_gib: 8}]}\n"
MODELS = """\
models:
  - name: small
    provider: ollama
    endpoint: ${OLLAMA_HOST:-http://127.0.0.1:11434}
    gpu_memory_gib: 2
  - {name: other, provider: ollama, gpu_memory_gib: 2, min_workers: 0}
"""


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    folder = tmp_path / "k8s" / "overlays" / "mine"
    folder.mkdir(parents=True)
    (tmp_path / "images").mkdir()
    shutil.copy(ROOT / "images" / "versions.env", tmp_path / "images")
    (folder / "cluster.yaml").write_text(CLUSTER)
    (folder / "models.yaml").write_text(MODELS)
    return folder


def render(overlay: Path, *more: str) -> int:
    return cli.run(["k8s", "render", "--overlay", str(overlay), *more])


def check(overlay: Path, *more: str) -> int:
    return cli.run(["k8s", "check", "--overlay", str(overlay), *more])


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_there_are_overlays() -> None:
    assert {"docker-desktop", "k3s-arm64-cpu", "k3s-gpu"} <= set(OVERLAYS)


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_is_committed_is_what_is_rendered(name: str) -> None:
    folder = ROOT / "k8s" / "overlays" / name
    wanted = rendering.render(rendering.read(folder))
    stale = written.changes(wanted, folder / rendering.MODELS)
    assert stale == [], f"run `millrace k8s render --overlay k8s/overlays/{name}`"


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_queue_that_is_watched_is_in_the_topology(name: str) -> None:
    folder = ROOT / "k8s" / "overlays" / name
    models = rendering.read(folder).registry.chat_models()
    watched = {
        trigger["metadata"]["queueName"]
        for path in (folder / rendering.MODELS).glob("*.yaml")
        for manifest in yaml.safe_load_all(path.read_text("utf-8"))
        for trigger in manifest.get("spec", {}).get("triggers", [])
    }
    assert watched == {topology.subtasks(model.slug).name for model in models}


def test_rendering_again_changes_nothing(
    overlay: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert render(overlay, "--check") == 1
    assert not (overlay / "models").exists()
    assert render(overlay) == 0
    assert "worker-small.yaml" in capsys.readouterr().out
    before = everything(overlay)
    monkeypatch.setenv("OLLAMA_HOST", "elsewhere")  # nothing of the machine that renders
    assert render(overlay, "--check") == 0
    assert render(overlay) == 0
    assert everything(overlay) == before


def test_what_a_person_put_there_stays(overlay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    render(overlay)
    own = overlay / "models" / "notes.txt"
    own.write_text("mine\n")
    capsys.readouterr()
    assert render(overlay, "--check") == 0
    assert render(overlay) == 0
    assert own.read_text() == "mine\n"


def test_a_new_entry_is_a_new_file_and_a_removed_one_is_gone(
    overlay: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    render(overlay)
    capsys.readouterr()
    (overlay / "models.yaml").write_text(MODELS.replace("name: other", "name: third"))
    assert render(overlay) == 0
    said = {
        (line.split()[0], Path(line.split()[1]).name)
        for line in capsys.readouterr().out.splitlines()
    }
    assert said == {
        ("changed", "kustomization.yaml"),
        ("changed", "pool-one.yaml"),
        ("gone", "worker-other.yaml"),
        ("new", "worker-third.yaml"),
    }
    listed = yaml.safe_load((overlay / "models" / "kustomization.yaml").read_text())["resources"]
    files = {path.name for path in (overlay / "models").iterdir()}
    assert set(listed) == files - {"kustomization.yaml"}


@pytest.mark.parametrize("slug", ["kustomization", "trigger-authentication", "pool-one"])
def test_no_slug_is_taken_for_another_file(overlay: Path, slug: str) -> None:
    (overlay / "models.yaml").write_text(
        f"{MODELS}  - {{name: x, slug: {slug}, provider: scripted}}\n"
    )
    assert render(overlay) == 0
    assert (overlay / "models" / f"worker-{slug}.yaml").exists()
    assert (overlay / "models" / "trigger-authentication.yaml").exists()


BROKEN = {
    "no cluster.yaml": ("cluster.yaml", None, "cluster.yaml: no such file"),
    "no models.yaml": ("models.yaml", None, "models.yaml: no such file"),
    "no versions": ("../../../images/versions.env", None, "versions.env: no such file"),
    "broken models.yaml": ("models.yaml", "models: [\n", "models.yaml:2: "),
    "slugs that collide": (
        "models.yaml",
        "models: [{name: 'a:1', provider: ollama}, {name: a-1, provider: ollama}]\n",
        "two models have the slug 'a-1'",
    ),
    "an address that only this machine knows": (
        "models.yaml",
        "models: [{name: a, provider: openai, endpoint: '${MY_VLLM}'}]\n",
        "the environment variable MY_VLLM is not set",
    ),
    "too much memory": (
        "cluster.yaml",
        CLUSTER.replace("memory_gib: 8", "memory_gib: 3"),
        "1 x 2 (small) + 1 x 2 (other) = 4 GiB, and it has 3",
    ),
    "an unknown model in a pool": (
        "cluster.yaml",
        CLUSTER.replace("}]", ", models: [huge]}]"),
        "there is no model 'huge'",
    ),
}


@pytest.mark.parametrize(("file", "text", "said"), BROKEN.values(), ids=BROKEN)
def test_what_is_broken_is_said_and_nothing_is_written(
    overlay: Path, file: str, text: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    render(overlay)
    path = (overlay / file).resolve()
    path.unlink()
    if text is not None:
        path.write_text(text)
    before = everything(overlay.parents[2])
    capsys.readouterr()
    for command in (render, check):
        assert command(overlay) == 1
        assert said in capsys.readouterr().err
    assert everything(overlay.parents[2]) == before


def test_a_folder_that_is_no_overlay_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match=r"is not a folder of k8s/overlays"):
        rendering.read(tmp_path)
    with pytest.raises(Unfit, match=r"is not a folder of k8s/overlays"):
        rendering.read(Path("/"))


def test_all_files_that_are_wrong_are_named_at_once(overlay: Path) -> None:
    (overlay / "cluster.yaml").write_text("engine: x\n")
    (overlay / "models.yaml").unlink()
    with pytest.raises(Unfit) as raised:
        rendering.read(overlay)
    assert [Path(line.split(":")[0]).name for line in raised.value.problems] == [
        "cluster.yaml",
        "models.yaml",
    ]


def test_check_says_everything_at_once(overlay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--kubernetes-version", "v1.27.3+k3s1", "--context", "prod")
    assert check(overlay, *options, "--expect-context", "docker-desktop") == 1
    said = capsys.readouterr().err
    assert "kubectl's context is 'prod', and 'docker-desktop' is meant" in said
    assert "Kubernetes v1.27.3+k3s1 is too old: 1.30 is the oldest" in said
    assert "worker-small.yaml: is not rendered yet. Run `millrace k8s render" in said
    assert "database.env: no such file. Run `millrace k8s secrets" in said
    assert not (overlay / "secrets").exists()


def test_check_is_content_when_all_is_there(
    overlay: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    render(overlay)
    assert cli.run(["k8s", "secrets", "--overlay", str(overlay)]) == 0
    options = ("--context", "docker-desktop", "--expect-context", "docker-desktop")
    assert check(overlay, "--kubernetes-version", "v1.33.4", *options) == 0
    assert "can be applied" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("server", "old"),
    [("1.30", False), ("v1.30.0", False), ("v1.29.15+k3s1", True), ("2.0", False), ("new", True)],
)
def test_an_old_kubernetes_is_refused(server: str, old: bool) -> None:
    assert bool(versions.too_old(server, "1.30")) is old


VERSIONS = (ROOT / "images" / "versions.env").read_text("utf-8")


def test_every_image_has_a_tag() -> None:
    found = versions.component(versions.parse(VERSIONS, "v"))
    tags = {image["name"]: image["newTag"] for image in found["images"]}
    assert tags["millrace/worker"] == tags["millrace/master"]
    assert all("/" not in tag and tag != "latest" for tag in tags.values())
    assert json.dumps(list(tags)) == json.dumps(sorted(tags))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (VERSIONS.replace("OLLAMA_TAG=", "OLLAMA_TAGG="), "v: OLLAMA_TAG is missing"),
        (VERSIONS + "N8N_TAG=1\n", "N8N_TAG was given before"),
        (VERSIONS + "A = 1\n", "write NAME=value, without spaces and quotes"),
        (VERSIONS + 'A="1"\n', "write NAME=value, without spaces and quotes"),
    ],
    ids=["a name is missing", "a name twice", "spaces", "quotes"],
)
def test_versions_that_cannot_be_used_are_refused(text: str, said: str) -> None:
    with pytest.raises(Unfit) as raised:
        versions.parse(text, "v")
    assert raised.value.problems[0].endswith(said)


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "a"
    written.replace(path, "1", 0o600)
    (tmp_path / ".a.new").write_text("left by somebody who died")
    written.replace(path, f"{MARK} 2", 0o600)
    assert path.read_text() == f"{MARK} 2"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
    assert written.changes({path: f"{MARK} 2"}, tmp_path) == []
    assert [c.kind for c in written.changes({tmp_path / "b": ""}, tmp_path)] == [
        Kind.GONE,
        Kind.NEW,
    ]


def test_the_device_plugin_cuts_cards_into_as_many_slices_as_are_reckoned_with() -> None:
    chart = ROOT / "k8s" / "components" / "gpu-timeslicing" / "device-plugin.yaml"
    values = yaml.safe_load(yaml.safe_load(chart.read_text("utf-8"))["spec"]["valuesContent"])
    cut = yaml.safe_load(values["config"]["map"]["sliced"])["sharing"]["timeSlicing"]["resources"]
    pools = rendering.read(ROOT / "k8s" / "overlays" / "k3s-gpu").cluster.pools
    assert {each["replicas"] for each in cut} == {pool.slices for pool in pools} - {1}
