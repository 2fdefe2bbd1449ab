"""Reading `models.yaml`, with errors that name the file, the line and the field."""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from millrace import ollama_url, yaml_nodes
from millrace.problems import Problem, one_line, reason
from queue_schemas.registry import Fallback, Model, Price, ProviderName, Registry, Roles, slug

ONE_MACHINE = Path(__file__).with_name("models") / "one-machine.yaml"
"""The packaged file that needs no inference engine."""

_LARGEST_BYTES = 4_000_000
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_QUOTED = re.compile(r"'([^']+)'")
_Path = tuple[int | str, ...]
_PLAIN = {
    "missing": "is missing",
    "model_type": "must be a mapping of `key: value` lines",
    "tuple_type": "must be a list",
    "frozen_set_type": "must be a list",
}


class ModelsFileError(Problem):
    """The file cannot be used. `problems` has one line for each thing to mend, in file order."""

    def __init__(self, problems: list[str]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(problems[0] + more)
        self.problems = tuple(problems)


class _FieldError(Exception):
    def __init__(self, path: _Path, message: str) -> None:
        super().__init__(message)
        self.path = path


def default_path(option: Path | None, environment: Mapping[str, str] | None = None) -> Path:
    """Which file to read: the option, MILLRACE_MODELS, ./models.yaml, else the packaged one."""
    environment = os.environ if environment is None else environment
    if option is not None:
        return option
    if environment.get("MILLRACE_MODELS"):
        return Path(environment["MILLRACE_MODELS"])
    here = Path("models.yaml")
    return here if here.is_file() else ONE_MACHINE


def load(path: Path, environment: Mapping[str, str] | None = None) -> Registry:
    """The registry in this file. Raises `ModelsFileError`."""
    return parse(_read(path), str(path), os.environ if environment is None else environment)


def parse(text: str, name: str, environment: Mapping[str, str]) -> Registry:
    """The registry in this text; `name` stands for the file in errors."""
    try:
        document = yaml_nodes.parse(text)
    except yaml_nodes.YamlError as error:
        raise ModelsFileError([f"{name}:{error.line}: {one_line(error.message)}"]) from error
    if document.value is None:
        raise ModelsFileError([f"{name}: the file is empty; it needs a list `models:`"])
    try:
        _refuse_lax_numbers(document.value)
        _expand_endpoints(document.value, environment)
        return Registry.model_validate(document.value)
    except _FieldError as error:
        raise ModelsFileError([_located(name, document, error.path, str(error))]) from error
    except ValidationError as error:
        raise ModelsFileError(_problems(name, document, error)) from error


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ModelsFileError([f"{path}: larger than {_LARGEST_BYTES:,} bytes"])
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelsFileError([f"{path}: not UTF-8 text (byte {error.start})"]) from error
    except FileNotFoundError as error:
        raise ModelsFileError([f"{path}: no such file"]) from error
    except OSError as error:
        raise ModelsFileError([f"{path}: {reason(error)}"]) from error


# --- before validation ---------------------------------------------------------------------------


def _entries(value: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    models = value.get("models") if isinstance(value, dict) else None
    if isinstance(models, list):
        yield from ((i, entry) for i, entry in enumerate(models) if isinstance(entry, dict))


def _numbers(model: type[BaseModel]) -> frozenset[str]:
    fields = model.model_fields.items()
    return frozenset(name for name, field in fields if field.annotation in {int, float})


def _refuse_lax_numbers(value: Any) -> None:
    """Pydantic would read `slots: yes` as 1 and `slots: "4"` as 4."""
    for i, entry in _entries(value):
        price = entry.get("price")
        for path, mapping, kind in (
            (("models", i), entry, Model),
            (("models", i, "price"), price if isinstance(price, dict) else {}, Price),
        ):
            for field in _numbers(kind) & mapping.keys():
                if isinstance(mapping[field], bool | str):
                    raise _FieldError((*path, field), f"{mapping[field]!r} is not a number")


def _expand_endpoints(value: Any, environment: Mapping[str, str]) -> None:
    for path, entry in _engines(value):
        endpoint = entry.get("endpoint")
        if isinstance(endpoint, str):
            place = (*path, "endpoint")
            entry["endpoint"] = _endpoint(endpoint, entry.get("provider"), place, environment)


def _engines(value: Any) -> Iterator[tuple[_Path, dict[str, Any]]]:
    for i, entry in _entries(value):
        yield ("models", i), entry
        fallbacks = entry.get("fallbacks")
        for j, fallback in enumerate(fallbacks if isinstance(fallbacks, list) else ()):
            if isinstance(fallback, dict):
                yield ("models", i, "fallbacks", j), fallback


def _endpoint(
    template: str, provider: object, path: _Path, environment: Mapping[str, str]
) -> str | None:
    def variable(match: re.Match[str]) -> str:
        name, default = match.groups()
        value = environment.get(name) or default
        if value is None:
            hint = f"set it or write ${{{name}:-a default}}"
            raise _FieldError(path, f"the environment variable {name} is not set; {hint}")
        return value

    expanded = _VARIABLE.sub(variable, template).strip()
    try:
        if provider == ProviderName.OLLAMA:
            return ollama_url.normalised(expanded)
        if not expanded:
            return None
        if not re.match(r"https?://[^/\s]", expanded):
            raise ValueError(f"{expanded!r} is not an http:// or https:// address")
    except ValueError as error:
        raise _FieldError(path, str(error)) from error
    return expanded


# --- from pydantic's errors to lines of the file -------------------------------------------------


def _problems(name: str, document: yaml_nodes.Document, error: ValidationError) -> list[str]:
    errors = error.errors(include_url=False)
    # A tuple whose items failed is reported as too short as well.
    inner = [e for e in errors if not (e["type"] == "too_short" and e["loc"] == ("models",))]
    found = []
    for one in inner or errors:
        path, message = tuple(one["loc"]), _message(one)
        found.append((_line(document, path, message), _located(name, document, path, message)))
    return [text for _, text in sorted(found)]


def _message(error: Mapping[str, Any]) -> str:
    path, kind, given = error["loc"], error["type"], error.get("input")
    if kind == "extra_forbidden":
        return "unknown key" + _did_you_mean(str(path[-1]), _fields_at(path[:-1]))
    if kind == "enum":
        expected = error["ctx"]["expected"]
        suggestion = _did_you_mean(str(given), _QUOTED.findall(expected))
        return f"{str(given)!r} is not one of {expected}{suggestion}"
    if kind == "string_type" and isinstance(given, bool | int | float):
        return f"write it in quotes, as text: '{given}'"
    if kind == "too_short" and path == ("models",):
        return "needs at least one model"
    return _PLAIN.get(kind) or _reworded(str(error["msg"]))


def _reworded(message: str) -> str:
    text = message.removeprefix("Value error, ")
    return re.sub(r"^Input should be ", "must be ", text)


def _fields_at(path: _Path) -> list[str]:
    kinds: dict[str, type[BaseModel]] = {"roles": Roles, "price": Price}
    if not path:
        return list(Registry.model_fields)
    if "fallbacks" in path:
        return list(Fallback.model_fields)
    return list(kinds.get(str(path[-1]), Model).model_fields)


def _did_you_mean(given: str, known: list[str]) -> str:
    near = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _located(name: str, document: yaml_nodes.Document, path: _Path, message: str) -> str:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    where = f"{name}:{_line(document, path, message)}: "
    return one_line(where + (f"{field.lstrip('.')}: " if field else "") + message)


def _line(document: yaml_nodes.Document, path: _Path, message: str) -> int:
    """An error of the whole file quotes the value that it is about: its last place is meant."""
    quoted = None if path else _QUOTED.search(message)
    if quoted is None:
        return document.line(path)
    entries = [i for i, entry in _entries(document.value) if _slug(entry) == quoted[1]]
    entry_line = document.line(("models", entries[-1])) if entries else document.line(path)
    return document.line_of_text(quoted[1]) or entry_line


def _slug(entry: Mapping[str, Any]) -> str:
    return str(entry.get("slug") or slug(str(entry.get("name", ""))))
