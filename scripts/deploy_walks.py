"""Write the output that docs/deploy shows anew, by running the commands that it shows.

A page has a block with commands, `<!-- output -->`, and a block with what they print. Before, it
may have `<!-- file: PATH -->` and a block with a file that they find there, and
`<!-- run: COMMAND -->` for what readers did already. They run in a copy of what they read: without
Docker, and with a kubectl that can build manifests only.
"""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from millrace import cli

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted((REPOSITORY / "docs" / "deploy").glob("*.md"))
BUILD = REPOSITORY / ".kustomize" / "build"

_COPIED = ("k8s", "compose", "scripts/cluster", "images/versions.env", "build-and-run.sh")
# What builds may be the machine's own kubectl, which this one must not find instead.
_KUBECTL = f"""\
#!/bin/sh
[ "$1" = kustomize ] || {{ echo "only kubectl kustomize runs here" >&2; exit 1; }}
PATH=${{PATH#*:}} exec "{BUILD}" "$2"
"""
_FILE = r"<!-- file: (?P<path>\S+) -->\n```\w+\n(?P<content>.*?)^```$"
_DONE = r"<!-- run: (?P<done>.+?) -->"
_RUN = r"(?P<shown>^```\n(?P<command>[^`]+)```\n\n<!-- output -->\n)```text\n(?P<output>.*?)^```$"
_STEP = re.compile(f"{_FILE}|{_DONE}|{_RUN}", re.DOTALL | re.MULTILINE)


@contextlib.contextmanager
def copy() -> Iterator[Path]:
    """A folder with what the commands read; without secrets, as in a fresh checkout."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for each in _COPIED:
            source, target = REPOSITORY / each, folder / each
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("secrets"))
            else:
                shutil.copy(source, target)
        kubectl = folder / "bin" / "kubectl"
        kubectl.parent.mkdir()
        kubectl.write_text(_KUBECTL)
        kubectl.chmod(0o755)
        yield folder


def commands(text: str) -> list[str]:
    """The command lines of a page whose output it shows."""
    return [step["command"].strip() for step in _STEP.finditer(text) if step["command"]]


def rewritten(text: str, folder: Path) -> str:
    """The page with what its commands print now; each finds what those before it left."""

    def step(match: re.Match[str]) -> str:
        if match["path"]:
            path = folder / match["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(match["content"], "utf-8")
            return match[0]
        if match["done"]:
            printed(match["done"], folder)
            return match[0]
        return f"{match['shown']}```text\n{printed(match['command'], folder)}```"

    return _STEP.sub(step, text)


def printed(command: str, folder: Path) -> str:
    """What these lines print, as they would for somebody else."""
    lines = command.replace("\\\n", " ").strip().splitlines()
    said = "".join(
        (_ours if line.startswith("millrace ") else _shell)(line, folder) for line in lines
    )
    said = said.replace(str(folder), "/home/me/millrace")
    said = re.sub(r"--user \d+:\d+", "--user 1000:1000", said)
    return "".join(f"{line.rstrip()}\n" for line in said.strip("\n").splitlines())


def _ours(line: str, folder: Path) -> str:
    """In this process: starting Python takes longer than all of it."""
    both = io.StringIO()
    quiet = contextlib.redirect_stdout(both), contextlib.redirect_stderr(both)
    with contextlib.chdir(folder), quiet[0], quiet[1]:
        cli.run(line.split()[1:])
    return both.getvalue()


def _shell(line: str, folder: Path) -> str:
    done = subprocess.run(  # noqa: S603  what our own pages show
        ["/bin/bash", "-c", line],
        cwd=folder,
        env={**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "LC_ALL": "C"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


def main() -> None:
    """Write all pages and name those that changed."""
    for page in PAGES:
        before = page.read_text("utf-8")
        with copy() as folder:
            after = rewritten(before, folder)
        if after != before:
            page.write_text(after, "utf-8")
            sys.stdout.write(f"{page.relative_to(REPOSITORY)}\n")


if __name__ == "__main__":
    main()
