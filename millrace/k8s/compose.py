"""The secrets of `compose.yaml`: one `.env`, and the definitions that the broker imports."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from millrace.k8s import definitions, env_files
from millrace.k8s.problems import Unfit
from millrace.k8s.secret_values import SLOTS, Slot, fill
from millrace.k8s.secrets import Prepared, broker_passwords, text_of
from millrace.k8s.written import replace
from millrace.problems import reason

DEFINITIONS: Final = Path("compose") / "secrets" / "definitions.json"

_OTHER_NAMES: Final = {
    ("broker-master.env", "RABBITMQ_URL"): "MASTER_RABBITMQ_URL",
    ("broker-worker.env", "RABBITMQ_URL"): "WORKER_RABBITMQ_URL",
    ("broker-admin.env", "password"): "RABBITMQ_ADMIN_PASSWORD",
}
_NOT_THERE: Final = frozenset({"host", "username", "password", "MILLRACE_RABBITMQ_MANAGEMENT_URL"})
"""Of KEDA, and what is no secret."""
_TWICE: Final = frozenset({"DB_POSTGRESDB_PASSWORD", "OPENAI_API_KEY"})
"""The same values as others, which compose.yaml can name."""
_READ_OTHERWISE = re.compile(r"^['\"\s]|\s$|\$|\s#")
"""Of a value: quotes, blanks, variables, comments. The others take it as it stands."""


def _slots() -> list[Slot]:
    found = []
    for slot in SLOTS:
        name = _OTHER_NAMES.get((slot.file, slot.variable), slot.variable)
        if name not in _NOT_THERE | _TWICE:
            found.append(Slot("", name, slot.template))
    return found


def variables() -> set[str]:
    """The variables of `.env` that are made here."""
    return {slot.variable for slot in _slots()}


def prepare(path: Path, rotate: str | None = None) -> Prepared:
    """What both files are to hold. Raises `Unfit` for one that cannot be read."""
    before = text_of(path)
    hashes = path.parent / DEFINITIONS
    have = env_files.parse(before or "", str(path))
    _refuse_ambiguous(have, path)
    filled = fill(_slots(), {("", name): value for name, value in have.items()}, rotate)
    changed = {variable: value for (_, variable), value in filled.changed.items()}
    texts = {
        path: env_files.with_values(before or "", changed),
        # The models' queues are the masters' to declare; nothing else looks for them here.
        hashes: definitions.definitions(broker_passwords(filled), (), text_of(hashes)),
    }
    stale = [each for each, text in texts.items() if text != text_of(each)]
    return Prepared(texts, stale, filled.foreign)


def _refuse_ambiguous(have: Mapping[str, str], path: Path) -> None:
    """Compose would read another password than the one whose hash the broker is given."""
    found = [name for name in sorted(variables()) if _READ_OTHERWISE.search(have.get(name, ""))]
    if found:
        raise Unfit([f"{path}: {n}: write it without quotes, blanks, $ and #" for n in found])


def write(path: Path, rotate: str | None = None) -> Prepared:
    """Write what differs. Raises `Unfit`."""
    prepared = prepare(path, rotate)
    try:
        for each, text in prepared.texts.items():
            # The broker runs as another user, and reads nothing but hashes there.
            mode = 0o600 if each == path else 0o644
            if each in prepared.stale:
                replace(each, text, mode)
            else:
                each.chmod(mode)
    except OSError as error:
        raise Unfit([f"{error.filename or path}: {reason(error)}"]) from error
    return prepared
