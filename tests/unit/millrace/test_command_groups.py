"""What the command line says where nothing was asked for."""

import pytest

from millrace.cli import run


@pytest.mark.parametrize("group", ["dead", "rules", "conversations"])
def test_a_group_without_a_command_shows_its_help_and_complains_of_nothing(
    group: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([group]) == 2
    said = capsys.readouterr()
    assert "Commands" in said.out + said.err
    assert "millrace: " not in said.out + said.err
