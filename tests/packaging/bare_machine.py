"""A machine on which only the plainest tools are, for the scripts that get others."""

import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TOOLS = ["awk", "bash", "cat", "chmod", "dirname", "head", "id", "ln", "mkdir", "mktemp", "mv"]
TOOLS += ["rm", "sed", "sh", "sort", "tail", "timeout", "touch", "true"]
APT = """
case "$*" in
  *indextargets*)
    echo 'http://other.example/ cloud main'
    echo 'http://mirror.example/debian/ bookworm contrib'
    echo 'http://mirror.example/debian/ bookworm main' ;;
  *update*)
    printf '%s\\n' "$@" > "{seen}"
    for each; do case "$each" in *sourcelist=*) cat "${{each#*=}}" >> "{seen}" ;; esac; done
    {update} ;;
  *download*) touch package.deb ;;
esac
"""


class Machine:
    """A checkout with one script, and a PATH."""

    def __init__(self, folder: Path, script: str) -> None:
        self.checkout = folder / "a checkout"
        self.path = folder / "bin"
        self.path.mkdir()
        (self.checkout / "scripts").mkdir(parents=True)
        self.script = self.checkout / "scripts" / script
        for name in (script, "debian-package"):
            shutil.copy(REPOSITORY / "scripts" / name, self.checkout / "scripts")
        for tool in TOOLS:
            (self.path / tool).symlink_to(shutil.which(tool) or tool)

    def has(self, name: str, script: str) -> None:
        (self.path / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (self.path / name).chmod(0o755)

    def is_called(self, system: str) -> None:
        """What /etc/os-release says; the file itself is the machine's."""
        part = self.script.with_name("debian-package")
        release = self.checkout / "os-release"
        release.write_text(system)
        part.write_text(part.read_text().replace("/etc/os-release", f'"{release}"'))

    def is_debian(self, dpkg: str, update: str = "true") -> Path:
        """With apt, and a dpkg-deb that unpacks as it is told; gives what apt was told."""
        seen = self.checkout / "apt-arguments"
        self.has("apt-get", APT.format(seen=seen, update=update))
        self.has("dpkg-deb", dpkg)
        self.is_called("ID=debian\nVERSION_CODENAME=bookworm\nPRETTY_NAME=Debian\n")
        return seen

    def run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.script)],
            env={"PATH": f"{self.path}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def says(self, *command: str) -> str:
        """What a program of this machine prints."""
        return subprocess.run(
            command, env={"PATH": f"{self.path}"}, capture_output=True, text=True, check=True
        ).stdout.strip()
