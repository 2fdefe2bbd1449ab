"""The pages say what is so: drawings, links, files, commands and settings are checked."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from pydantic_settings import BaseSettings

from master.embedder.settings import EmbedderSettings
from master.planning.strategies import STRATEGIES
from master.settings import CelerySettings, MasterSettings
from millrace.cli import COMMANDS
from millrace.logs import LogSettings
from millrace.scaling.settings import ScalingSettings
from queue_schemas.registry import Registry
from scripts.regenerate import redraw
from worker.settings import WorkerSettings

REPOSITORY = Path(__file__).parents[3]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
OPERATIONS = (REPOSITORY / "docs" / "operations.md").read_text("utf-8")
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
SETTINGS = (
    CelerySettings,
    EmbedderSettings,
    LogSettings,
    MasterSettings,
    ScalingSettings,
    WorkerSettings,
)

PACKAGES = "master|worker|bus|db|millrace|queue_schemas|tests|docs|scripts"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}


def code(page: Path) -> list[str]:
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page.read_text("utf-8"))


def test_the_drawings_are_those_of_the_code() -> None:
    page = (REPOSITORY / "docs" / "architecture.md").read_text("utf-8")
    assert redraw(page) == page, "run `make schemas`"


@every_page
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@every_page
def test_every_file_that_is_named_exists(page: Path) -> None:
    for name in code(page):
        if name.removeprefix("millrace/") in STRATEGIES:
            continue
        if re.fullmatch(rf"(?:{PACKAGES})/[\w./-]*", name):
            assert (REPOSITORY / name).exists(), name


@every_page
def test_every_command_that_is_named_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    targets = (REPOSITORY / "Makefile").read_text("utf-8")
    for target in re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", targets, re.MULTILINE), target
    for command in re.findall(r"(?:`|^)millrace ([a-z][a-z0-9]*)", text, re.MULTILINE):
        assert command in COMMANDS, command


@every_page
def test_every_strategy_that_is_offered_exists(page: Path) -> None:
    for strategy in re.findall(r"`millrace/([a-z]+)`", page.read_text("utf-8")):
        assert strategy in STRATEGIES, strategy


def test_every_command_has_its_module() -> None:
    for command in COMMANDS:
        assert (REPOSITORY / "millrace" / "commands" / f"{command}.py").exists(), command


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda cls: cls.__name__)
def test_every_setting_is_explained_with_its_default(settings: type[BaseSettings]) -> None:
    prefix = settings.model_config["env_prefix"]
    for name, field in settings.model_fields.items():
        variable = str(field.validation_alias or f"{prefix}{name}".upper())
        row = re.search(rf"^\| `{variable}` \| (.*?) \|", OPERATIONS, re.MULTILINE)
        assert row, variable
        if field.default is not None and isinstance(field.default, int | float):
            whole = isinstance(field.default, int)  # `:g` would write millions as 5e+07
            said = str(field.default).lower() if whole else f"{field.default:g}"
            assert row[1] == f"`{said}`", variable


def test_no_setting_is_explained_that_does_not_exist() -> None:
    explained = set(re.findall(r"^\| `(MILLRACE_\w+)` \|", OPERATIONS, re.MULTILINE))
    source = subprocess.run(
        [
            "grep",
            "-rhoE",
            "--include=*.py",
            "MILLRACE_[A-Z_]+",
            "master",
            "millrace",
            "worker",
            "tests",
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    known = set(source)
    for settings in SETTINGS:
        prefix = settings.model_config["env_prefix"]
        known |= {f"{prefix}{name}".upper() for name in settings.model_fields}
    assert explained <= known


@every_page
def test_the_registries_that_are_shown_are_valid(page: Path) -> None:
    shown = re.findall(r"^```yaml\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    for block in shown:
        assert Registry.model_validate(yaml.safe_load(block)).models
