"""Rules that a person wrote into a file, and a rule as such a file would have it."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from millrace import yaml_nodes
from millrace.problems import Problem, one_line, reason

_LARGEST_BYTES = 1_000_000
_SHOWN = ("kind", "scope", "change")


def read(path: Path) -> list[dict[str, Any]]:
    """The rules of a file: one, a list, or a list under `rules:`. Raises `Problem` and OSError."""
    content = path.read_bytes()
    if len(content) > _LARGEST_BYTES:
        raise Problem(f"{path}: more than {_LARGEST_BYTES} bytes are no file of rules.")
    try:
        return parse(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError:
        raise Problem(f"{path}: this is not UTF-8.") from None


def parse(text: str, name: str) -> list[dict[str, Any]]:
    """The rules in YAML or JSON; `name` stands for the file in errors. Raises `Problem`."""
    try:
        document = yaml_nodes.parse(text)
    except yaml_nodes.YamlError as error:
        raise Problem(f"{name}:{error.line}: {one_line(error.message)}.") from error
    value = document.value
    if isinstance(value, dict) and "rules" in value:
        value = value["rules"]
    found = value if isinstance(value, list) else [value]
    if not found or not all(isinstance(each, dict) for each in found):
        raise Problem(f"{name}: a rule is a mapping with a name, a scope and a change.")
    _check_json(found, name)
    return found


def _check_json(value: object, name: str) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Problem(f"{name}: a value is none that JSON can hold: {reason(error)}.") from error


def difference(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[str]:
    """What changed from one version to another, as a unified diff; empty: nothing."""
    old = lines_of(before) if before else []
    was, is_now = ((_called(each) if each else "nothing") for each in (before, after))
    return list(difflib.unified_diff(old, lines_of(after), was, is_now, lineterm="", n=99))


def _called(rule: Mapping[str, Any]) -> str:
    return f"{_printable(rule['name'])} version {rule['version']}"


def lines_of(rule: Mapping[str, Any]) -> list[str]:
    """What a rule says, as lines that read like YAML."""
    return [line for key in _SHOWN for line in _entry(key, rule[key], "")]


def _entry(key: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        inner = {name: value[name] for name in sorted(value) if name != "kind"}
        yield f"{indent}{key}:" if inner else f"{indent}{key}: {{}}"
        for name, each in inner.items():
            yield from _entry(_printable(str(name)), each, indent + "  ")
    elif isinstance(value, str) and "\n" in value:
        yield f"{indent}{key}: |"
        yield from (f"{indent}  {_printable(line)}" for line in value.splitlines())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield f"{indent}{key}:"
        yield from (f"{indent}- {_plain(each)}" for each in value)
    else:
        yield f"{indent}{key}: {_plain(value)}"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _printable(str(value))


def _printable(line: str) -> str:
    """Without control characters, and with its spaces."""
    return "".join(c if c.isprintable() else " " for c in line)
