"""compose.yaml: it is valid, agrees with the code and the images, and holds no secret."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml
from pydantic_settings import BaseSettings

from master.embedder.settings import EmbedderSettings
from master.settings import CelerySettings, MasterSettings
from millrace import models_file
from millrace.k8s import compose, env_files, versions
from queue_schemas.registry import Capability, Model
from worker.settings import WorkerSettings

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: s for name, s in SERVICES.items() if s["image"].startswith("millrace/")}
ONCE = {"migrate", "pull-models", "n8n-provision", "n8n-import"}
EXAMPLE = REPOSITORY / "compose" / "example.env"
REGISTRY = models_file.load(REPOSITORY / "compose" / "models.yaml", {})
CHATS = [m for m in REGISTRY.models if Capability.EMBEDDING not in m.capabilities]
PORTS = {
    "rabbitmq": 15672,
    "master": 8000,
    "n8n": 5678,
    "open-webui": 8080,
    "prometheus": 9090,
    "grafana": 3000,
}

every_service = pytest.mark.parametrize("name", SERVICES)
each_of_ours = pytest.mark.parametrize("name", OURS)


def variables() -> dict[str, set[str]]:
    """The variables that are asked for, and how: `:?` (needed), `:-` (a default) or plainly."""
    found: dict[str, set[str]] = {}
    for name, how in re.findall(r"\$\{([A-Z0-9_]+)(:\?|:-|\})", TEXT):
        found.setdefault(name, set()).add(how)
    return found


def environment(name: str) -> dict[str, str]:
    own: dict[str, str] = SERVICES[name].get("environment", {})
    files = [REPOSITORY / file for file in SERVICES[name].get("env_file", [])]
    shared = [env_files.parse(file.read_text(), str(file)) for file in files]
    return {key: value for each in [*shared, own] for key, value in each.items()}


def binds() -> list[dict[str, Any]]:
    mounts = [mount for s in SERVICES.values() for mount in s.get("volumes", ())]
    return [mount for mount in mounts if isinstance(mount, dict)]


def worker_of(model: Model) -> dict[str, Any]:
    return SERVICES[f"worker-{model.slug}"]


def seconds(text: str) -> int:
    units = {"s": 1, "m": 60}
    return sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)([sm])", text))


def test_it_is_what_the_compose_specification_says() -> None:
    folder = Path(__file__).with_name("schemas") / "compose-spec"
    schema = json.loads((folder / "compose-spec.json").read_text())
    check = jsonschema.Draft202012Validator(schema)
    assert [error.message for error in check.iter_errors(COMPOSE)] == []
    wrong = {**COMPOSE, "services": {"master": {**SERVICES["master"], "memory": "1g"}}}
    assert list(check.iter_errors(wrong))


def test_every_tag_is_in_the_one_place_for_versions() -> None:
    tags = versions.load(REPOSITORY / "images" / "versions.env")
    for name, service in SERVICES.items():
        image, _, tag = service["image"].partition(":")
        variable = re.match(r"\$\{([A-Z0-9_]+_TAG)[:}]", tag)
        assert variable, name
        assert versions.TAGS[image] == variable[1]
        assert variable[1] in tags
        assert not re.search(r"[.:]", image.split("/")[0]), f"{image} names a host"


def test_whatever_is_asked_for_can_be_given_in_the_two_files() -> None:
    tags = versions.load(REPOSITORY / "images" / "versions.env")
    example = env_files.parse(EXAMPLE.read_text(), str(EXAMPLE))
    asked = variables()
    assert set(asked) - tags.keys() - example.keys() == {"TORCH_INDEX"}
    assert set(example) - asked.keys() == {"COMPOSE_PROFILES", "RABBITMQ_ADMIN_PASSWORD"}
    assert example["COMPOSE_PROFILES"]


def test_the_command_for_secrets_fills_in_all_that_is_needed(tmp_path: Path) -> None:
    own = tmp_path / ".env"
    own.write_text(EXAMPLE.read_text())
    compose.write(own)
    filled = env_files.parse(own.read_text(), str(own))
    needed = {name for name, how in variables().items() if ":?" in how}
    tags = versions.load(REPOSITORY / "images" / "versions.env")
    assert all(filled.get(name) for name in needed - tags.keys())
    known = env_files.parse(EXAMPLE.read_text(), str(EXAMPLE))
    assert filled.keys() == known.keys(), "compose/example.env should name every secret"


def test_a_needed_variable_that_is_missing_is_said_with_its_remedy() -> None:
    for remedy in re.findall(r"\$\{[A-Z0-9_]+:\?([^}]*)\}", TEXT):
        assert "millrace k8s secrets --compose .env" in remedy or "--env-file" in remedy


def test_no_secret_is_written_into_any_file() -> None:
    example = env_files.parse(EXAMPLE.read_text().split("# --- secrets ---")[1], "example.env")
    assert set(example.values()) <= {"", "postgres"}
    for name in SERVICES:
        for key, value in environment(name).items():
            if re.search(r"KEY$|PASSWORD$|^DATABASE_URL|RABBITMQ_URL$|BROKER_URL$", key):
                assert str(value).startswith("${"), f"{name}: {key}"
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert {".env", "compose/secrets/"} <= set(ignored)


def settings_names(settings: type[BaseSettings]) -> set[str]:
    prefix = settings.model_config["env_prefix"]
    return {
        str(field.validation_alias or f"{prefix}{name}".upper())
        for name, field in settings.model_fields.items()
    }


def read_by_the_code() -> set[str]:
    found = {"HOME"}
    for settings in (CelerySettings, MasterSettings, EmbedderSettings, WorkerSettings):
        found |= settings_names(settings)
    for package in ("millrace", "worker", "master"):
        for file in (REPOSITORY / package).rglob("*.py"):
            found |= set(re.findall(r'"(MILLRACE_[A-Z0-9_]+|[A-Z]+_URL)"', file.read_text()))
    return found | {"OLLAMA_HOST"}  # for models.yaml


@each_of_ours
def test_our_services_are_told_what_the_code_reads(name: str) -> None:
    assert environment(name).keys() - read_by_the_code() == set()


@each_of_ours
def test_our_services_run_commands_that_exist(name: str) -> None:
    service = SERVICES[name]
    said = service.get("command", [])
    lines = [said] if service.get("entrypoint", ["millrace"])[0] != "sh" else _scripted(said[0])
    for line in filter(None, lines):
        module = importlib.import_module(f"millrace.commands.{line[0]}")
        command: Any = typer.main.get_command(module.app)
        rest = line[1:]
        if hasattr(command, "commands"):
            command, rest = command.commands[rest[0]], rest[1:]
        context = typer.Context(command)
        command.make_parser(context).parse_args(list(rest))


def _scripted(script: str) -> list[list[str]]:
    found = re.findall(r"millrace ([^&|>\n]+)", script)
    assert found
    return [line.split() for line in found]


def test_ports_are_published_on_loopback_only_and_are_those_of_the_cluster() -> None:
    published = {name: s["ports"] for name, s in SERVICES.items() if "ports" in s}
    assert published == {
        name: [f"${{PUBLISH_ADDRESS:-127.0.0.1}}:{port}:{port}"] for name, port in PORTS.items()
    }


@every_service
def test_a_service_waits_for_what_it_needs(name: str) -> None:
    for other, wanted in SERVICES[name].get("depends_on", {}).items():
        needed = SERVICES[other]
        if wanted["condition"] == "service_completed_successfully":
            assert other in ONCE
        elif wanted["condition"] == "service_healthy":
            ours = other in OURS  # health checks of ours are in the images
            assert ours or "healthcheck" in needed
        profiles = set(SERVICES[name].get("profiles", ()))
        always = not needed.get("profiles") or (
            profiles and profiles <= set(needed.get("profiles", ()))
        )
        assert wanted.get("required", True) is bool(always), f"{name} -> {other}"


@every_service
def test_a_service_is_closed_to_what_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert "privileged" not in service
    assert list(service["networks"]) == ["millrace"]
    if service["image"].startswith("ollama/"):
        return  # as root, as its image does; GPUs and models of any size
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["CHOWN"] if name == "n8n-provision" else [])
    assert "mem_limit" in service
    assert any(folder.startswith("/tmp") for folder in service["tmpfs"])


@every_service
def test_what_runs_once_is_tried_again_and_the_rest_is_kept_running(name: str) -> None:
    wanted = "on-failure:10" if name in ONCE else "unless-stopped"
    assert SERVICES[name]["restart"] == wanted


def test_mounted_files_exist_and_are_read_only() -> None:
    made = {str(compose.DEFINITIONS)}
    for mount in binds():
        assert mount["read_only"] is True
        assert mount["bind"] == {"create_host_path": False}
        source = re.sub(r"^\$\{MODELS_FILE:-(.*)\}$", r"\1", mount["source"]).removeprefix("./")
        assert source in made or (REPOSITORY / source).exists(), source
    named = {
        mount.split(":")[0]
        for s in SERVICES.values()
        for mount in s.get("volumes", ())
        if isinstance(mount, str)
    }
    assert named == set(COMPOSE["volumes"])


def test_the_broker_reads_its_definitions_where_its_configuration_says() -> None:
    targets = {m["target"]: m["source"] for m in binds()}
    conf = (REPOSITORY / targets["/etc/rabbitmq/rabbitmq.conf"]).read_text()
    assert "load_definitions = /etc/millrace/definitions.json\n" in conf
    assert targets["/etc/millrace/definitions.json"].endswith(str(compose.DEFINITIONS))


def test_images_of_ours_are_built_from_their_target() -> None:
    for name, service in OURS.items():
        assert service["build"]["target"] == service["image"].split("/")[1].split(":")[0], name
        assert service["build"]["dockerfile"] == "images/Dockerfile"


# --- the models ---


@pytest.mark.parametrize("model", CHATS, ids=lambda model: model.slug)
def test_a_model_that_chats_has_a_worker_that_may_finish_what_it_runs(model: Model) -> None:
    service = worker_of(model)
    assert service["command"] == ["worker", "--wait", "--model", model.name]
    drain = int(service["environment"]["MILLRACE_WORKER_DRAIN_SECONDS"])
    assert drain >= model.timeout_seconds
    assert seconds(service["stop_grace_period"]) > drain


def test_there_is_a_worker_for_nothing_else() -> None:
    workers = {name for name in SERVICES if name.startswith("worker-")}
    assert workers == {f"worker-{model.slug}" for model in CHATS}


def test_ollama_fetches_the_models_and_serves_them_as_the_registry_says() -> None:
    (script,) = SERVICES["pull-models"]["command"]
    assert re.findall(r"ollama pull (\S+)", script) == [
        model.name_at_engine for model in REGISTRY.models
    ]
    for name in ("ollama", "ollama-nvidia"):
        given = SERVICES[name]["environment"]
        assert given["OLLAMA_NUM_PARALLEL"] == str(max(model.slots for model in CHATS))
        assert given["OLLAMA_CONTEXT_LENGTH"] == str(max(m.context_length for m in CHATS))
        assert SERVICES[name]["networks"]["millrace"]["aliases"] == ["ollama"]
    assert SERVICES["open-webui"]["environment"]["RAG_EMBEDDING_MODEL"] == REGISTRY.roles.embedding


def test_prometheus_asks_services_that_exist() -> None:
    jobs = yaml.safe_load((REPOSITORY / "compose" / "prometheus.yml").read_text())["scrape_configs"]
    by_name = {job["job_name"]: job for job in jobs}
    workers = by_name["millrace-worker"]["dns_sd_configs"][0]
    assert workers["names"] == [f"worker-{model.slug}" for model in CHATS]
    assert workers["port"] == 8002
    batch = by_name["millrace-celery"]["dns_sd_configs"][0]
    assert set(batch["names"]) == {name for name in SERVICES if name.startswith("celery-")}
    for name in batch["names"]:
        assert environment(name)["MILLRACE_METRICS_PORT"] == str(batch["port"])
        assert environment(name)["MILLRACE_METRICS_HOST"] == "0.0.0.0"
    assert by_name["millrace-embedder"]["dns_sd_configs"][0]["names"] == ["embedder"]
    asked = {
        t.split(":")[0] for job in jobs for s in job.get("static_configs", ()) for t in s["targets"]
    }
    assert asked <= SERVICES.keys() | {"localhost"}
