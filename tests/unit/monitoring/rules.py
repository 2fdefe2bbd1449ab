"""The files of rules, read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[3]
FOLDER = REPOSITORY / "k8s" / "components" / "monitoring"
FILES = sorted((FOLDER / "rules").glob("*.yml"))


def rules() -> Iterator[dict[str, Any]]:
    """Every rule of every file: those that record, and those that alert."""
    for file in FILES:
        for group in yaml.safe_load(file.read_text("utf-8"))["groups"]:
            yield from group["rules"]


def alerts() -> dict[str, dict[str, Any]]:
    """The alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}
