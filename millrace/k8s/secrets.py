"""The secrets of an overlay on disk: made once, kept, and added to. Nobody else may read them."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from millrace.k8s import definitions, env_files
from millrace.k8s.problems import Unfit
from millrace.k8s.secret_values import (
    NAMES,
    SLOTS,
    Filled,
    Slot,
    Values,
    contradictions,
    fill,
    malformed,
)
from millrace.k8s.workers import key_names
from millrace.k8s.written import replace
from millrace.problems import reason
from queue_schemas.registry import Registry

FOLDER: Final = "secrets"
DEFINITIONS: Final = "definitions.json"
ENGINE_KEYS: Final = "engine-keys.env"

_FILES: Final = tuple(sorted({slot.file for slot in SLOTS}))
_OWNER_ONLY, _OWNERS_FOLDER = 0o600, 0o700
_RESTART: Final = "Apply it, and restart what uses it."
_RESTART_BROKER: Final = (
    "Apply it, restart the broker, which imports its definitions at its start, and then what uses "
    "this user."
)
_IN_POSTGRES: Final = (
    "Postgres takes it from there only when its volume is new: run ALTER ROLE … PASSWORD '…' with "
    "the new value, then apply it and restart what uses it."
)
_FOLLOWS: Final[Mapping[str, str]] = {
    "api-key": "Apply it and run the migrations job again, which makes the new key known. "
    "The old one is valid until you revoke it: `millrace keys list`, `millrace keys revoke`.",
    "grafana": "Grafana takes it from there only when its volume is new: run `grafana cli admin "
    "reset-admin-password` with the new value where it runs, then apply it.",
    "n8n-encryption": "n8n cannot read what it stored with the old key. Empty its database, or "
    "import its credentials again.",
    "queue-key": "This was one of three steps. Apply it, restart all masters and workers, and "
    "rotate again until the setting holds one key: then the old one is forgotten.",
}
_BROKER_USER: Final[Mapping[str, str]] = {user: f"broker-{user}" for user in definitions.USERS}


@dataclass(frozen=True)
class Prepared:
    """Files as they are to be, those that differ, and who put something of his own into which."""

    texts: Mapping[Path, str]
    stale: Sequence[Path]
    foreign: Sequence[Slot]


def check_name(name: str) -> None:
    """Raises `Unfit` if there is no such secret to rotate."""
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise Unfit([f"there is no secret {name!r}. {hint}There are: {', '.join(NAMES)}."])


def after_rotation(name: str) -> str:
    """What is still to be done, so that all know the new value."""
    if name.startswith("broker-"):
        return _RESTART_BROKER
    if name in {"postgres", "database", "n8n-database"}:
        return _IN_POSTGRES
    return _FOLLOWS.get(name, _RESTART)


def prepare(folder: Path, registry: Registry, rotate: str | None = None) -> Prepared:
    """What the files in `secrets/` are to hold. Raises `Unfit` for one that cannot be read."""
    before = {name: text_of(folder / name) for name in (*_FILES, ENGINE_KEYS, DEFINITIONS)}
    filled = fill(SLOTS, _values(folder, _FILES), rotate)
    after = {name: _written(name, before[name], filled.changed) for name in _FILES}
    after[ENGINE_KEYS] = _engine_keys(folder, before[ENGINE_KEYS], registry)
    after[DEFINITIONS] = _definitions(filled, registry, before[DEFINITIONS])
    stale = [folder / name for name, text in after.items() if text != before[name]]
    texts = {folder / name: text for name, text in after.items()}
    return Prepared(texts, stale, filled.foreign)


def write(folder: Path, prepared: Prepared) -> None:
    """Write what differs, and close all of it to others. Raises `Unfit`."""
    try:
        folder.mkdir(mode=_OWNERS_FOLDER, parents=True, exist_ok=True)
        folder.chmod(_OWNERS_FOLDER)
        for path, text in prepared.texts.items():
            if path in prepared.stale:
                replace(path, text, _OWNER_ONLY)
            else:
                path.chmod(_OWNER_ONLY)
    except OSError as error:
        raise Unfit([f"{error.filename or folder}: {reason(error)}"]) from error


def problems(folder: Path, registry: Registry, remedy: str) -> list[str]:
    """What is missing or contradicts itself; `remedy` makes what can be made."""
    try:
        prepared = prepare(folder, registry)
        have = _values(folder, [*_FILES, ENGINE_KEYS])
    except Unfit as error:
        return list(error.problems)
    found = []
    for path in prepared.stale:
        if not path.exists():
            found.append(f"{path}: no such file. {remedy}")
        elif path.name == DEFINITIONS:
            found.append(f"{path}: does not fit the secrets and models.yaml any more. {remedy}")
        elif empty := _empty(path.name, have):
            found.append(f"{path}: lacks {', '.join(empty)}. {remedy}")
    found += [
        f"{folder / ENGINE_KEYS}: {name} is empty. Write the key there that the engine of "
        f"{model} wants, or take api_key_env out of models.yaml."
        for name, model in _engine_key_names(registry).items()
        if not have.get((ENGINE_KEYS, name))
    ]
    return found + [f"{folder}/{line}" for line in (*contradictions(SLOTS, have), *malformed(have))]


def _empty(file: str, have: Values) -> Iterable[str]:
    return [s.variable for s in SLOTS if s.file == file and not have.get((file, s.variable))]


def _values(folder: Path, files: Iterable[str]) -> Values:
    return {
        (name, variable): value
        for name in files
        for variable, value in env_files.parse(
            text_of(folder / name) or "", str(folder / name)
        ).items()
    }


def _written(name: str, before: str | None, changed: Values) -> str:
    own = {variable: value for (file, variable), value in changed.items() if file == name}
    return env_files.with_values(before or "", own)


def _engine_keys(folder: Path, before: str | None, registry: Registry) -> str:
    """A line for each key that an entry names; the keys themselves only a person knows."""
    have = env_files.parse(before or "", str(folder / ENGINE_KEYS))
    added = {name: "" for name in _engine_key_names(registry) if name not in have}
    return env_files.with_values(before or "", added)


def _engine_key_names(registry: Registry) -> dict[str, str]:
    """Variables that hold engines' keys, each with a model that wants it."""
    found = {name: model.name for model in registry.models for name in key_names(model)}
    return dict(sorted(found.items()))


def _definitions(filled: Filled, registry: Registry, before: str | None) -> str:
    return definitions.definitions(broker_passwords(filled), registry.models, before)


def broker_passwords(filled: Filled) -> dict[str, str]:
    """The broker's users and their passwords, as far as they are known."""
    found = filled.secrets
    return {user: found[name] for user, name in _BROKER_USER.items() if name in found}


def text_of(path: Path) -> str | None:
    """What is in a file; None: there is none. Raises `Unfit`."""
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Unfit([f"{path}: {reason(error)}"]) from error
