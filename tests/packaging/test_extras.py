"""Each image installs one extra; what its process imports must be in that extra."""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]

IMPORT_WITHOUT = """
import importlib, json, sys
absent, modules = json.loads(sys.argv[1])

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(f"{name} is not in this extra", name=name)

sys.meta_path.insert(0, Absent())
for module in modules:
    importlib.import_module(module)
"""


def closure(requirement: Requirement) -> set[str]:
    """The distributions that installing a requirement brings, itself included."""
    found: set[tuple[str, str]] = set()
    waiting = [(requirement.name, extra) for extra in {"", *requirement.extras}]
    while waiting:
        name, extra = waiting.pop()
        if (canonicalize_name(name), extra) in found:
            continue
        found.add((canonicalize_name(name), extra))
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(needed.name, inner) for inner in {"", *needed.extras}]
    return {name for name, _ in found}


def modules_of(*packages: str) -> list[str]:
    files = [path for package in packages for path in (REPOSITORY / package).rglob("*.py")]
    names = (path.relative_to(REPOSITORY).with_suffix("").as_posix() for path in files)
    return sorted(
        re.sub(r"/__init__$", "", name).replace("/", ".")
        for name in names
        if "migrations" not in name
    )


ONLY_FOR_CELERY = {
    f"master.batch.{name}" for name in ("alive", "app", "metrics", "publishing", "worker")
}
ONLY_WHILE_TRACING = {"bus.open_telemetry", "bus.trace_file"}
"""Imported when it is switched on, which says what is missing."""


@pytest.mark.parametrize(
    ("extra", "packages"),
    [
        ("worker", ("worker", "bus", "queue_schemas")),
        ("master", ("master", "db", "bus", "queue_schemas")),
        ("celery", ("master", "db", "bus", "queue_schemas")),
        (None, ("bus", "queue_schemas")),
    ],
)
def test_a_process_imports_only_what_its_extra_brings(
    extra: str | None, packages: tuple[str, ...]
) -> None:
    installed = closure(Requirement(f"millrace[{extra}]" if extra else "millrace"))
    absent = [
        module
        for module, distributions in metadata.packages_distributions().items()
        if not installed & {canonicalize_name(name) for name in distributions}
    ]
    assert "pytest" in absent
    modules = modules_of(*packages)
    if extra is None:
        modules = [module for module in modules if module not in ONLY_WHILE_TRACING]
    if extra != "celery":
        modules = [module for module in modules if module not in ONLY_FOR_CELERY]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_WITHOUT, json.dumps([absent, modules])],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
