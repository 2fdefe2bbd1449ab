"""What docs/deploy says can be typed, and prints what the pages show."""

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from millrace.k8s import budget, cluster, secrets, versions
from millrace.k8s.placement import Placed
from millrace.k8s.secret_values import SLOTS
from queue_schemas.registry import Model
from scripts import deploy_walks
from tests.packaging.k8s.known_names import parse

REPOSITORY = Path(__file__).parents[2]
PAGES = deploy_walks.PAGES
OVERLAYS = sorted(path.parent.name for path in REPOSITORY.glob("k8s/overlays/*/cluster.yaml"))
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)

GPU = (REPOSITORY / "docs/deploy/gpu.md").read_text("utf-8")
FRONT = (REPOSITORY / "docs/deploy/README.md").read_text("utf-8")
FOOTPRINTS = {"codellama:34b-instruct": 21, "codellama:70b-instruct": 39, "llama3.2:3b": 6}


def typed(page: Path) -> Iterator[list[str]]:
    """The words of every command line in the page's plain blocks."""
    for block in re.findall(r"^```\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            for command in re.split(r" \| | > ", line.split("  #")[0]):
                if words := command.split():
                    yield words


def named(page: Path) -> Iterator[list[str]]:
    """The words of everything that is written as code within a text."""
    for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page.read_text("utf-8")):
        yield code.split()


def of_millrace(words: list[str]) -> list[str] | None:
    """The arguments of `millrace`, also where it runs in a pod or an image; None: it is not it."""
    for place, word in enumerate(words[:-1]):
        in_image = word.startswith("millrace/master:")
        if word == "millrace" and (place == 0 or words[place - 1] == "--"):
            return words[place + 1 :]
        if in_image and words[0] == "docker" and "run" in words:
            return words[place + 1 :]
    return None


@every_page
def test_commands_print_what_is_shown(page: Path) -> None:
    text = page.read_text("utf-8")
    if not deploy_walks.BUILD.exists() and "kubectl kustomize" in str(deploy_walks.commands(text)):
        pytest.skip("there is no kustomize: run scripts/ensure-kustomize, which says what to do")
    with deploy_walks.copy() as folder:
        shown = deploy_walks.rewritten(text, folder)
    assert shown == text, "run: .venv/bin/python scripts/deploy_walks.py"


@every_page
def test_millrace_knows_the_command_lines_that_are_shown(page: Path) -> None:
    for words in typed(page):
        arguments = of_millrace(words)
        if arguments:
            assert understood(arguments), " ".join(words)


def understood(arguments: list[str]) -> bool:
    plain = [re.sub(r"^['\"]|['\"]$", "", word) for word in arguments]
    try:
        parse(plain)
    except typer.TyperException:
        return False
    return True


def test_a_command_line_that_millrace_does_not_know_would_be_found() -> None:
    assert of_millrace(["kubectl", "exec", "deploy/master", "--", "millrace", "keys", "list"])
    assert not understood(["reconcile", "--mend"])
    assert not understood(["k8s", "draw", "--overlay", "DIR"])


@cache
def options_of_the_scripts() -> set[str]:
    own = (REPOSITORY / "build-and-run.sh").read_text("utf-8")
    twin = (REPOSITORY / "build-and-run.ps1").read_text("utf-8")
    said = {f"-{name}" for name in re.findall(r"^\.PARAMETER (\w+)", twin, re.MULTILINE)}
    return said | set(re.findall(r"(--[a-z-]+)(?= \||\))", own))


@every_page
def test_build_and_run_has_the_options_and_steps_that_are_shown(page: Path) -> None:
    steps = re.search(
        r"^steps='(.+)'$", (REPOSITORY / "build-and-run.sh").read_text(), re.MULTILINE
    )
    assert steps is not None
    for words in [*typed(page), *named(page)]:
        if not words[0].endswith(("build-and-run.sh", "build-and-run.ps1")):
            continue
        for word, value in pairwise([*words, ""]):
            if word.startswith("-"):
                assert word in options_of_the_scripts(), " ".join(words)
            if word in {"--only", "-Only"}:
                assert set(value.split(",")) <= set(steps[1].split()), value
            if word in {"--overlay", "-Overlay"}:
                assert value == "NAME" or value in OVERLAYS, value


@every_page
def test_files_and_overlays_that_are_named_exist(page: Path) -> None:
    for words in [*typed(page), *named(page)]:
        for word in words:
            path = word.strip("'\",;()").rstrip(".")
            if not re.match(r"(?:k8s|compose|images|scripts)/", path) or re.search(
                "NAME|home", path
            ):
                continue
            made = re.search(r"/(?:secrets|entry)(?:/|$)", path)
            assert made or (REPOSITORY / path).exists(), path


@cache
def manifests() -> dict[str, list[dict[str, Any]]]:
    """What each overlay is built to."""
    if not deploy_walks.BUILD.exists():
        pytest.skip("there is no kustomize: run scripts/ensure-kustomize, which says what to do")
    built = {}
    with deploy_walks.copy() as folder:
        for name in OVERLAYS:
            deploy_walks.printed(f"millrace k8s secrets --overlay k8s/overlays/{name}", folder)
            text = deploy_walks.printed(f"kubectl kustomize k8s/overlays/{name}", folder)
            built[name] = list(yaml.load_all(text, yaml.CSafeLoader))
    return built


@every_page
def test_objects_that_are_named_in_commands_exist(page: Path) -> None:
    there = {(m["kind"], m["metadata"]["name"]) for each in manifests().values() for m in each}
    kinds = {
        "deploy": "Deployment",
        "deployment": "Deployment",
        "statefulset": "StatefulSet",
        "daemonset": "DaemonSet",
        "cronjob": "CronJob",
        "service": "Service",
    }
    for words in [*typed(page), *named(page)]:
        for word in words if words[0] == "kubectl" else []:
            kind, slash, name = word.partition("/")
            if slash and kind in kinds and not re.search("[A-Z]|NAME", name):
                assert (kinds[kind], name) in there, word


@every_page
def test_services_of_compose_that_are_named_exist(page: Path) -> None:
    there = yaml.safe_load((REPOSITORY / "compose.yaml").read_text("utf-8"))["services"].keys()
    for words in [*typed(page), *named(page)]:
        if words[0] != "dc" or len(words) < 3:
            continue
        plain = [word for word in words[2:] if not word.startswith("-")]
        if words[1] == "exec":
            assert plain[0] in there, " ".join(words)
        if words[1] in {"stop", "restart", "logs"}:
            assert set(plain) <= there, " ".join(words)
        if "--scale" in words:
            assert plain[0].partition("=")[0] in there, " ".join(words)


@every_page
def test_ports_of_this_machine_are_those_of_the_manifests(page: Path) -> None:
    composed = yaml.safe_load((REPOSITORY / "compose.yaml").read_text("utf-8"))["services"]
    published = {
        int(port.rsplit(":", 1)[-1]) for each in composed.values() for port in each.get("ports", [])
    }
    opened = {
        port["nodePort"]
        for each in manifests().values()
        for manifest in each
        if manifest["kind"] == "Service"
        for port in manifest["spec"]["ports"]
        if "nodePort" in port
    }
    for found in re.findall(
        r"(?:localhost|127\.0\.0\.1|pi-1):(\d+)",
        re.sub(r"```text.*?```", "", page.read_text(), flags=re.DOTALL),
    ):
        assert int(found) in published | opened | {11434}, found


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    below = text.split(f"{heading}\n", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert table is not None, heading
    return [
        [cell.strip() for cell in row.strip("|").split(" | ")] for row in table[0].splitlines()[2:]
    ]


@pytest.mark.parametrize(
    "row",
    rows(GPU, "### What fits which card"),
    ids=lambda row: f"{row[0]}, {row[2]}",
)
def test_the_budget_says_what_the_table_of_cards_says(row: list[str]) -> None:
    pool = cluster.Pool(name="cards", **yaml.safe_load(f"{{{row[1].strip('`')}}}"))
    placed = [
        Placed(
            Model(
                name=name,
                provider="ollama",
                max_workers=int(count),
                gpu_memory_gib=FOOTPRINTS[name],
            ),
            pool,
        )
        for count, name in (workers.split() for workers in row[2].split(", "))
    ]
    problems = budget.over_budget(placed)
    assert row[3].startswith("no" if problems else "yes"), problems


def test_every_field_of_cluster_yaml_is_explained_with_its_default() -> None:
    said = {row[0].strip("`"): row[1].strip("`") for row in rows(FRONT, "### cluster.yaml")}
    fields = {
        **{
            name: field for name, field in cluster.Cluster.model_fields.items() if name != "storage"
        },
        **{
            f"storage.{field.alias or name}": field
            for name, field in cluster.Storage.model_fields.items()
        },
        **cluster.Pool.model_fields,
    }
    assert said.keys() == fields.keys()
    for name, field in fields.items():
        if field.is_required():
            assert said[name] == "required", name
        elif isinstance(field.default, str | int):
            assert said[name] == str(field.default), name


def test_every_line_of_versions_env_is_explained() -> None:
    said = set(
        re.findall(
            r"[A-Z][A-Z0-9_]+", " ".join(row[0] for row in rows(FRONT, "### images/versions.env"))
        )
    )
    assert said == versions.load(REPOSITORY / "images/versions.env").keys()


@every_page
def test_tags_that_are_shown_are_those_of_versions_env(page: Path) -> None:
    known = versions.load(REPOSITORY / "images/versions.env")
    for image, tag in re.findall(
        r"(?<![\w/])([a-z0-9-]+/[a-z0-9-]+):([\w.-]*\d)", page.read_text()
    ):
        if image in versions.TAGS:
            assert tag == known[versions.TAGS[image]], f"{image}:{tag}"


def test_every_file_of_secrets_is_explained() -> None:
    said = set(re.findall(r"`([^`]+)`", " ".join(row[0] for row in rows(FRONT, "### Secrets"))))
    assert said == {slot.file for slot in SLOTS} | {secrets.ENGINE_KEYS, secrets.DEFINITIONS}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_sums_of_an_overlay_are_those_of_its_manifests(overlay: str) -> None:
    (row,) = (row for row in rows(FRONT, "## What each needs") if f"`{overlay}`" in row[0])
    memory, cpu, volumes = sums(manifests()[overlay])
    assert row[1].split()[0] == f"{memory:.1f}"
    assert row[2] == f"{cpu:.1f}"
    assert row[3] == f"{volumes:.0f} GiB"


def test_the_limit_of_compose_is_the_sum_of_its_services() -> None:
    composed = yaml.safe_load((REPOSITORY / "compose.yaml").read_text("utf-8"))["services"]
    staying = [
        each
        for each in composed.values()
        if each["restart"] == "unless-stopped"
        and {"database", "cpu"} & set(each.get("profiles", ["database"]))
    ]
    total = sum(gib(each["mem_limit"].upper() + "i") for each in staying if "mem_limit" in each)
    (row,) = (row for row in rows(FRONT, "## What each needs") if row[0] == "compose")
    assert row[1].split()[0] == f"{total:.1f}"


def sums(built: list[dict[str, Any]]) -> tuple[float, float, float]:
    """GiB of memory, CPUs and GiB of volumes that are asked for when nobody asks anything."""
    least = {
        m["spec"]["scaleTargetRef"]["name"]: m["spec"]["minReplicaCount"]
        for m in built
        if m["kind"] == "ScaledObject"
    }
    memory = cpu = volumes = 0.0
    for manifest in built:
        spec = manifest.get("spec", {})
        if manifest["kind"] == "PersistentVolumeClaim":
            volumes += gib(spec["resources"]["requests"]["storage"])
        if manifest["kind"] not in {"Deployment", "StatefulSet"}:
            continue
        for claim in spec.get("volumeClaimTemplates", []):
            volumes += gib(claim["spec"]["resources"]["requests"]["storage"])
        pod = spec["template"]["spec"]
        first = pod.get("initContainers", [])
        staying = [*pod["containers"], *(c for c in first if c.get("restartPolicy") == "Always")]
        wanted = sum(gib(c["resources"]["requests"]["memory"]) for c in staying)
        passing = max((gib(c["resources"]["requests"]["memory"]) for c in first), default=0.0)
        replicas = least.get(manifest["metadata"]["name"], spec.get("replicas", 1))
        memory += replicas * max(wanted, passing)
        cpu += replicas * sum(cores(c["resources"]["requests"]["cpu"]) for c in staying)
    return memory, cpu, volumes


def gib(quantity: str) -> float:
    return float(quantity[:-2]) / {"Mi": 1024, "Gi": 1}[quantity[-2:]]


def cores(quantity: str | int) -> float:
    text = str(quantity)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)
