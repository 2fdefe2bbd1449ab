import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from millrace.models_file import ModelsFileError
from millrace.registry_file import RegistryFile

ONE = "models:\n  - {name: one, provider: ollama}\n"
TWO = ONE + "  - {name: two, provider: ollama}\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    path, ticks = tmp_path / "models.yaml", iter(range(1, 100))

    def replace(text: str) -> Path:
        path.write_text(text)
        stamp = 1_700_000_000 + next(ticks)
        os.utime(path, (stamp, stamp))
        return path

    return replace


def names(file: RegistryFile) -> list[str]:
    return [model.name for model in file.current.models]


def test_a_changed_file_is_read_again(write: Callable[[str], Path]) -> None:
    file = RegistryFile(write(ONE))
    assert not file.refresh()
    write(TWO)
    assert file.refresh()
    assert names(file) == ["one", "two"]


@pytest.mark.parametrize("broken", ["models: [\n", "models: 0x_\n", "[" * 3000])
def test_a_broken_file_keeps_the_old_registry_and_is_logged_once(
    write: Callable[[str], Path], broken: str
) -> None:
    file = RegistryFile(write(ONE))
    write(broken)
    with capture_logs() as logs:
        assert not file.refresh()
        assert not file.refresh()
    assert names(file) == ["one"]
    assert [entry["event"] for entry in logs] == ["registry.rejected"]
    write(TWO)
    assert file.refresh()
    assert names(file) == ["one", "two"]


def test_a_removed_file_keeps_the_old_registry(write: Callable[[str], Path]) -> None:
    path = write(ONE)
    file = RegistryFile(path)
    path.unlink()
    assert not file.refresh()
    assert names(file) == ["one"]


def test_a_broken_file_at_start_is_an_error(write: Callable[[str], Path]) -> None:
    with pytest.raises(ModelsFileError, match=r"models\.yaml:1"):
        RegistryFile(write("model: 1\n"))


async def test_watch_follows_the_file_through_swapped_links(tmp_path: Path) -> None:
    link = tmp_path / "models.yaml"
    for name, text in (("a", ONE), ("b", TWO)):
        (tmp_path / name).write_text(text)
    link.symlink_to("a")
    file = RegistryFile(link)
    watching = asyncio.create_task(file.watch(0.01))
    (tmp_path / "new").symlink_to("b")
    (tmp_path / "new").replace(link)
    async with asyncio.timeout(60):
        while names(file) == ["one"]:  # noqa: ASYNC110  the watch announces nothing
            await asyncio.sleep(0.01)
    watching.cancel()
    assert names(file) == ["one", "two"]
