"""The wheel carries all of our packages and their files, and works far from this checkout."""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def run(command: list[str], folder: Path) -> str:
    """Run in `folder` with an environment that does not lead back here."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "MILLRACE"))
    }
    done = subprocess.run(
        command,
        cwd=folder,
        env={**environment, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_folder_with_code_is_a_package_of_the_wheel() -> None:
    apart = {"tests", "bench", "scripts"}
    folders = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")} - apart
    assert folders == set(PACKAGES)


def test_every_file_of_our_packages_is_in_the_wheel(wheel: Path) -> None:
    here = {
        path.relative_to(REPOSITORY).as_posix()
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = zipfile.ZipFile(wheel).namelist()
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == here
    assert {"db/migrations/env.py", "db/migrations/script.py.mako"} <= packed
    assert "millrace/models/one-machine.yaml" in packed
    assert any(name.startswith("db/migrations/versions/0001") for name in packed)


def test_the_wheel_carries_the_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_no_package_of_the_environment_has_one_of_our_names() -> None:
    taken = metadata.packages_distributions()
    foreign = {name: set(taken.get(name, [])) - {"millrace"} for name in PACKAGES}
    assert foreign == {name: set() for name in PACKAGES}


def test_no_package_of_ours_hides_the_standard_library() -> None:
    assert not set(PACKAGES) & sys.stdlib_module_names


def test_the_command_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    shown = run([str(installed / "millrace"), "--help"], tmp_path)
    for command in ("up", "demo", "ask", "worker", "migrate", "schemas"):
        assert command in shown


def test_the_version_is_that_of_the_project(installed: Path, tmp_path: Path) -> None:
    shown = run([str(installed / "millrace"), "--version"], tmp_path)
    assert shown.strip() == f"millrace {PROJECT['project']['version']}"


def test_packages_come_from_the_wheel_and_tests_are_not_among_them(
    installed: Path, tmp_path: Path
) -> None:
    script = (
        "import importlib, importlib.util, json\n"
        f"print(json.dumps([importlib.import_module(n).__file__ for n in {PACKAGES!r}]))\n"
        "print(importlib.util.find_spec('tests'))\n"
    )
    files, tests = run([str(installed / "python"), "-c", script], tmp_path).splitlines()
    assert all(Path(file).is_relative_to(installed.parent) for file in json.loads(files))
    assert tests == "None"


def test_every_module_of_the_wheel_can_be_imported(
    wheel: Path, installed: Path, tmp_path: Path
) -> None:
    modules = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in zipfile.ZipFile(wheel).namelist()
        if name.endswith(".py") and "migrations/" not in name
    ]
    assert len(modules) > len(PACKAGES)
    script = f"import importlib\nfor name in {modules!r}:\n    importlib.import_module(name)\n"
    run([str(installed / "python"), "-W", "error", "-c", script], tmp_path)


def test_migrations_are_found_in_the_wheel(installed: Path, tmp_path: Path) -> None:
    head = run(
        [str(installed / "python"), "-c", "from db.migrate import head; print(head())"], tmp_path
    )
    newest = max(path.stem for path in (REPOSITORY / "db/migrations/versions").glob("0*.py"))
    assert newest.startswith(head.strip())


def test_the_contract_is_exported_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from queue_schemas.export import export\n"
        "export(Path('schemas'))\n"
    )
    run([str(installed / "python"), "-c", script], tmp_path)
    committed = REPOSITORY / "docs" / "schemas" / "asyncapi.json"
    assert (tmp_path / "schemas" / "asyncapi.json").read_bytes() == committed.read_bytes()
