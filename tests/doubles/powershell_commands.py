"""The commands and .NET calls of build-and-run.ps1, on this machine, and a run of the script."""

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.doubles.powershell import Block, Exit, Shell
from tests.doubles.powershell_values import Thrown, Value, as_text, many, truth


class ErrorRecord(str):
    """A line on standard error."""

    __slots__ = ()

    @property
    def Exception(self) -> "ErrorRecord":  # noqa: N802  PowerShell's names
        """What it is about."""
        return self

    @property
    def Message(self) -> str:  # noqa: N802  PowerShell's names
        """The line."""
        return str(self)


@dataclass
class Host:
    """What is shown and typed, and where programs are."""

    environment: dict[str, str]
    shown: list[str] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    open_line: bool = False

    def write(self, text: str, *, ends: bool = True) -> None:
        """Shows text; the next begins a line unless this one was left open."""
        if self.open_line:
            self.shown[-1] += text
        else:
            self.shown.append(text)
        self.open_line = not ends

    def program(self, shell: Shell, name: str, words: list[str], merged: bool) -> list[Value]:
        """Runs a program; its standard error is a part of the output where that was asked for."""
        done = subprocess.run(
            [name, *words], env=self.environment, capture_output=True, text=True, check=False
        )
        shell.scopes[0]["lastexitcode"] = done.returncode
        errors = [ErrorRecord(line) for line in done.stderr.splitlines()]
        return [*done.stdout.splitlines(), *(errors if merged else [])]


def _select(
    _: Shell, _arguments: list[Value], named: dict[str, Value], given: list[Value]
) -> list[Value]:
    if "last" in named:
        return given[-named["last"] :]
    skipped = given[named.get("skip", 0) :]
    return skipped[: named["first"]] if "first" in named else skipped


def _each(
    shell: Shell, arguments: list[Value], _: dict[str, Value], given: list[Value]
) -> list[Value]:
    output: list[Value] = []
    for item in given:
        shell.put("_", item)
        output += shell.statements(_body(arguments))
    return output


def _where(
    shell: Shell, arguments: list[Value], _: dict[str, Value], given: list[Value]
) -> list[Value]:
    kept: list[Value] = []
    for item in given:
        shell.put("_", item)
        result = shell.statements(_body(arguments))
        kept += [item] if truth(result) else []
    return kept


def _body(arguments: list[Value]) -> Any:
    assert isinstance(arguments[0], Block)
    return arguments[0].body


def _object(value: Value) -> Value:
    if isinstance(value, dict):
        return SimpleNamespace(**{key: _object(inner) for key, inner in value.items()})
    return [_object(inner) for inner in value] if isinstance(value, list) else value


def _match(found: re.Match[str] | None) -> SimpleNamespace:
    groups = (
        [SimpleNamespace(Value=text or "") for text in (found[0], *found.groups())] if found else []
    )
    return SimpleNamespace(Success=bool(found), Groups=groups)  # fmt: skip


def _new_item(_: Shell, _a: list[Value], n: dict[str, Value], _g: list[Value]) -> list[Value]:
    Path(n["path"]).mkdir(parents=True, exist_ok=True)
    return [n["path"]]


def _remove_item(_: Shell, a: list[Value], _n: dict[str, Value], _g: list[Value]) -> list[Value]:
    Path(a[0]).unlink()
    return []


def _nothing(_: Shell, _a: list[Value], _n: dict[str, Value], _g: list[Value]) -> list[Value]:
    return []


def _get_content(_: Shell, a: list[Value], n: dict[str, Value], _g: list[Value]) -> list[Value]:
    text = Path(a[0]).read_text()
    return [text] if "raw" in n else text.splitlines()


def commands(host: Host) -> dict[str, Any]:
    """By their names in lower case; each takes shell, arguments, named ones, and piped values."""

    def write_host(_: Shell, a: list[Value], n: dict[str, Value], _g: list[Value]) -> list[Value]:
        host.write(as_text(a[0]) if a else "", ends="nonewline" not in n)
        return []

    def get_command(_: Shell, a: list[Value], n: dict[str, Value], _g: list[Value]) -> list[Value]:
        assert n["commandtype"] == "Application", "an alias of PowerShell could be taken"
        path = shutil.which(a[0], path=host.environment["PATH"])
        return [SimpleNamespace(Path=path)] if path else []

    def read_host(_: Shell, a: list[Value], _n: dict[str, Value], _g: list[Value]) -> list[Value]:
        host.write(a[0])
        return [host.given.pop(0) if host.given else ""]

    def start_process(
        _: Shell, _a: list[Value], n: dict[str, Value], _g: list[Value]
    ) -> list[Value]:
        words = [str(word) for word in many(n["argumentlist"])]
        started = subprocess.Popen(
            [n["filepath"], *words], env=host.environment, stdout=subprocess.DEVNULL
        )
        started.wait()
        return [SimpleNamespace(HasExited=True)]

    def out_host(_: Shell, _a: list[Value], _n: dict[str, Value], g: list[Value]) -> list[Value]:
        for line in g:
            host.write(line)
        return []

    return {
        "write-host": write_host,
        "write-verbose": _nothing,
        "write-progress": _nothing,
        "push-location": _nothing,
        "pop-location": _nothing,
        "set-strictmode": _nothing,
        "get-command": get_command,
        "get-content": _get_content,
        "new-item": _new_item,
        "read-host": read_host,
        "start-process": start_process,
        "out-host": out_host,
        "select-object": _select,
        "foreach-object": _each,
        "where-object": _where,
        "join-path": lambda _s, a, _n, _g: [str(Path(a[0]) / a[1])],
        "test-path": lambda _s, a, _n, _g: [Path(a[0]).exists()],
        "get-childitem": lambda _s, a, _n, _g: [
            SimpleNamespace(Name=item.name) for item in sorted(Path(a[0]).iterdir())
        ],
        "get-item": lambda _s, _a, _n, _g: [SimpleNamespace(PSDrive=SimpleNamespace(Free=2**36))],
        "remove-item": _remove_item,
        "new-object": lambda _s, a, _n, _g: [Thrown(a[0], as_text(a[1]))],
        "convertfrom-json": lambda _s, _a, _n, g: [_object(json.loads(g[0]))],
    }


TYPES: dict[str, Any] = {
    "regex::match": lambda text, pattern: _match(re.search(pattern, text)),
    "regex::matches": lambda text, pattern: [_match(m) for m in re.finditer(pattern, text)],
    "regex::escape": re.escape,
    "math::floor": lambda number: int(number // 1),
    "system.io.file::writealltext": lambda path, text: Path(path).write_text(text) and None,
    "system.io.path::gettempfilename": lambda: tempfile.mkstemp()[1],
    "system.diagnostics.stopwatch::startnew": lambda: SimpleNamespace(
        Elapsed=SimpleNamespace(TotalSeconds=1.4)
    ),
    "console::outputencoding": None,
    "cultureinfo::invariantculture": None,
    "system.text.encoding::utf8": None,
}


def run(
    script: Path,
    environment: dict[str, str],
    options: dict[str, Value],
    given: tuple[str, ...] = (),
) -> tuple[int, list[str]]:
    """The exit code of a script and the lines that it showed, as on Windows."""
    host = Host(environment, given=list(given))
    shell = Shell(commands(host), TYPES, host.program)
    shell.scopes[0].update(
        {"psscriptroot": str(script.parent), "env:os": "Windows_NT", "lastexitcode": 0}
    )
    shell.scopes[0].update({name.lower(): value for name, value in options.items()})
    try:
        shell.run(script)
    except Exit as ended:
        return ended.code, host.shown
    return 0, host.shown
