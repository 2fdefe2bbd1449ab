"""Where Prometheus' programs are; tests that need them are skipped without."""

from pathlib import Path

import pytest

_FOLDER = Path(__file__).parents[1] / ".prometheus"


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`, or the test is skipped with the reason."""
    found = _FOLDER / "bin" / name
    if not found.exists():
        file = _FOLDER / "why-not"
        known = file.read_text("utf-8").strip() if file.exists() else "nobody looked for it"
        pytest.skip(f"there is no {name}: {known}. scripts/ensure-prometheus says what to do")
    return str(found)
