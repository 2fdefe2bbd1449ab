"""scripts/ensure-chromium: what it takes, and what it does where there is nothing to take."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TOOLS = ("bash", "cat", "dirname", "env", "grep", "id", "mkdir", "mv", "rm", "tail", "timeout")
CHROMIUM = "echo 'Chromium 156.0.1 built on somewhere'"


class Machine:
    """A checkout and a PATH on which only the plainest tools are."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "a checkout"
        self.path = folder / "bin"
        self.path.mkdir()
        (self.checkout / "scripts").mkdir(parents=True)
        shutil.copy(REPOSITORY / "scripts" / "ensure-chromium", self.checkout / "scripts")
        for tool in TOOLS:
            (self.path / tool).symlink_to(shutil.which(tool) or tool)

    def has(self, name: str, script: str) -> Path:
        command = self.path / name
        command.write_text(f"#!/usr/bin/env bash\n{script}\n")
        command.chmod(0o755)
        return command

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.checkout / "scripts" / "ensure-chromium")],
            env={"PATH": str(self.path), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def outcome(self, name: str) -> str | None:
        file = self.checkout / ".chromium" / name
        return file.read_text().strip() if file.exists() else None


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_chromium_of_the_path_is_taken(machine: Machine) -> None:
    found = machine.has("chromium", CHROMIUM)
    done = machine.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.outcome("program") == str(found)


def test_one_that_only_says_where_to_get_it_is_passed_over(machine: Machine) -> None:
    machine.has("chromium", "echo 'install the snap' >&2; exit 10")
    chrome = machine.has("google-chrome", "echo 'Google Chrome 140.0.1 '")
    machine.run()
    assert machine.outcome("program") == str(chrome)


def test_the_one_that_is_named_goes_before_the_path(machine: Machine) -> None:
    machine.has("chromium", CHROMIUM)
    own = machine.has("my own", CHROMIUM)
    machine.run(MILLRACE_TEST_CHROMIUM=str(own))
    assert machine.outcome("program") == str(own)


def test_a_name_that_is_no_chromium_is_said_aloud_and_nothing_else_is_taken(
    machine: Machine,
) -> None:
    machine.has("chromium", CHROMIUM)
    done = machine.run(MILLRACE_TEST_CHROMIUM="/nowhere/chromium")
    assert done.returncode == 0
    assert "SKIPPED: MILLRACE_TEST_CHROMIUM names /nowhere/chromium" in done.stderr
    assert machine.outcome("program") is None
    assert "no Chromium that runs" in (machine.outcome("why-not") or "")


def test_apt_installs_it_where_it_may(machine: Machine) -> None:
    machine.has("sudo", 'shift; exec "$@"')
    machine.has("true", "exit 0")
    chromium = machine.path / "chromium"
    machine.has(
        "apt-get",
        f'echo "$@" > "{machine.checkout}/asked"\n'
        f'printf "#!/usr/bin/env bash\\n%s\\n" "{CHROMIUM}" > "{chromium}"\n'
        f'{shutil.which("chmod")} 755 "{chromium}"',
    )
    done = machine.run()
    assert "Installing chromium" in done.stdout
    asked = (machine.checkout / "asked").read_text()
    assert "--no-install-recommends install chromium" in asked
    assert machine.outcome("program") == str(chromium)


def test_what_apt_says_is_the_reason_for_skipping(machine: Machine) -> None:
    machine.has("sudo", 'shift; exec "$@"')
    machine.has("true", "exit 0")
    machine.has("apt-get", "echo 'E: Package chromium has no installation candidate' >&2; exit 100")
    done = machine.run()
    assert done.returncode == 0
    assert "no installation candidate" in (machine.outcome("why-not") or "")
    assert "SKIPPED" in done.stderr


def test_a_later_find_takes_the_reason_away(machine: Machine) -> None:
    machine.run()
    assert "nor apt-get" in (machine.outcome("why-not") or "")
    machine.has("chromium", CHROMIUM)
    machine.run()
    assert machine.outcome("why-not") is None


def test_the_script_may_be_started() -> None:
    assert os.access(REPOSITORY / "scripts" / "ensure-chromium", os.X_OK)
