"""What `millrace up` refuses before it makes anything, and what it says when it runs."""

import io
from pathlib import Path

import pytest
from pydantic import ValidationError
from rich.console import Console

from millrace import models_file, one_machine, up


async def test_a_wrong_setting_is_refused_before_a_database_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    monkeypatch.setenv("MILLRACE_TRACING", "nonsense")
    monkeypatch.setattr(up, "_end_with_the_terminal", lambda: None)
    monkeypatch.setattr(one_machine, "database", lambda _: pytest.fail("it was made"))
    with pytest.raises(ValidationError, match="MILLRACE_TRACING"):
        await up.up(up.UpOptions(), Console(file=io.StringIO()))


def test_the_greeting_is_not_wrapped_where_a_program_reads_it() -> None:
    console = Console(file=(written := io.StringIO()), width=80)
    note = "no Ollama at http://127.0.0.1:11434, so answers are quotations from the documents"
    registry = models_file.load(models_file.ONE_MACHINE)
    settings = up.settings_for("postgresql://nowhere/x", port=8931)
    up._greet(console, settings, "mr-key", note, lambda: registry)
    assert f"at http://127.0.0.1:8931   ({note})\n" in written.getvalue()
