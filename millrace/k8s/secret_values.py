"""Which secrets there are, where each stands, and what is missing. Pure, but for the dice.

A *secret* is one random value. It may stand in several variables, alone or within a URL; a
*slot* is one such variable of one file, as a template. What a person wrote in stays as it is,
also where it fits no template: a database elsewhere, for example.
"""

import re
import secrets
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from master.api.keys import is_well_formed, new_key
from queue_schemas.codec import KeyRing

_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 40  # of 62 characters: 238 bits, and nothing that a URL or a shell minds
_HOLE = re.compile(r"\{([a-z0-9-]+)\}")


def _random() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


@dataclass(frozen=True)
class Slot:
    """One variable of one file."""

    file: str
    variable: str
    template: str

    def filled(self, found: Mapping[str, str]) -> str:
        """Its value with these secrets."""
        return _HOLE.sub(
            lambda hole: quote(found[hole[1]], safe="") if self.is_url else found[hole[1]],
            self.template,
        )

    def read(self, value: str) -> dict[str, str] | None:
        """The secrets in a value; None where somebody wrote something else there."""
        hole = "([^/@:]+)" if self.is_url else "(.+)"
        literals = _HOLE.split(self.template)[::2]
        match = re.fullmatch(hole.join(re.escape(literal) for literal in literals), value)
        if match is None:
            return None
        texts = [unquote(text) if self.is_url else text for text in match.groups()]
        return dict(zip(self.secrets, texts, strict=True))

    @property
    def is_url(self) -> bool:
        """Whether secrets stand in it as in a URL."""
        return "://" in self.template

    @property
    def secrets(self) -> list[str]:
        """The names of the secrets in it."""
        return _HOLE.findall(self.template)


_KUBERNETES: Final = (
    ("postgres", "POSTGRES_PASSWORD", "{postgres}"),
    ("postgres", "MILLRACE_PASSWORD", "{database}"),
    ("postgres", "N8N_PASSWORD", "{n8n-database}"),
    ("database", "DATABASE_URL", "postgresql://millrace:{database}@postgres:5432/millrace"),
    ("broker-master", "RABBITMQ_URL", "amqp://master:{broker-master}@rabbitmq:5672/millrace"),
    (
        "broker-master",
        "MILLRACE_CELERY_BROKER_URL",
        "amqp://celery:{broker-celery}@rabbitmq:5672/celery",
    ),
    ("broker-master", "MILLRACE_RABBITMQ_MANAGEMENT_URL", "http://rabbitmq:15672"),
    ("broker-worker", "RABBITMQ_URL", "amqp://worker:{broker-worker}@rabbitmq:5672/millrace"),
    ("broker-keda", "host", "http://rabbitmq.millrace.svc:15672/millrace"),
    ("broker-keda", "username", "keda"),
    ("broker-keda", "password", "{broker-keda}"),
    ("broker-admin", "username", "admin"),
    ("broker-admin", "password", "{broker-admin}"),
    ("queue-key", "MILLRACE_QUEUE_KEY", "{queue-key}"),
    ("api-key", "MILLRACE_API_KEY", "{api-key}"),
    ("n8n", "N8N_ENCRYPTION_KEY", "{n8n-encryption}"),
    ("n8n", "DB_POSTGRESDB_PASSWORD", "{n8n-database}"),
    (
        "n8n",
        "MILLRACE_N8N_DATABASE_URL",
        "postgresql://n8n:{n8n-database}@postgres:5432/millrace?sslmode=disable",
    ),
    ("n8n", "MILLRACE_N8N_RABBITMQ_URL", "amqp://n8n:{broker-n8n}@rabbitmq:5672/millrace"),
    ("n8n", "MILLRACE_N8N_WEBHOOK_KEY", "{n8n-webhook}"),
    ("open-webui", "WEBUI_SECRET_KEY", "{open-webui}"),
    ("open-webui", "OPENAI_API_KEY", "{api-key}"),
    ("grafana", "GF_SECURITY_ADMIN_PASSWORD", "{grafana}"),
)
SLOTS: Final[Sequence[Slot]] = tuple(Slot(f"{file}.env", *rest) for file, *rest in _KUBERNETES)
"""Of an overlay: a file for each Secret, beside `engine-keys.env` and `definitions.json`."""

NAMES: Final = tuple(dict.fromkeys(name for slot in SLOTS for name in slot.secrets))

_MAKERS: Final[Mapping[str, Callable[[], str]]] = {"api-key": lambda: new_key().plain}

Values = Mapping[tuple[str, str], str]
"""By file and variable."""


@dataclass(frozen=True)
class Filled:
    """What is to be written, and the secrets that are in the slots then."""

    changed: Values
    secrets: Mapping[str, str]
    foreign: Sequence[Slot]
    """Slots that hold what somebody wrote; a rotation leaves them alone."""


def fill(slots: Iterable[Slot], have: Values, rotate: str | None = None) -> Filled:
    """Give every empty slot a value, and the secret `rotate` a new one wherever it stands."""
    slots = list(slots)
    found: dict[str, str] = {}
    foreign = []
    for slot in slots:
        value = have.get((slot.file, slot.variable))
        if value and slot.secrets:
            read = slot.read(value)
            if read is None:
                foreign.append(slot)
            found = {**(read or {}), **found}
    if rotate is not None:
        found[rotate] = _next(rotate, found.get(rotate))
    changed = {}
    for slot in slots:
        place = (slot.file, slot.variable)
        rotated = rotate in slot.secrets and slot not in foreign
        if have.get(place) and not rotated:
            continue
        for name in slot.secrets:
            if name not in found:
                found[name] = _next(name, None)
        changed[place] = slot.filled(found)
    return Filled(changed, found, foreign)


def contradictions(slots: Iterable[Slot], have: Values) -> list[str]:
    """URLs that hold another password than the file that says what it is."""
    first: dict[str, tuple[Slot, str]] = {}
    problems = []
    for slot in slots:
        read = slot.read(have.get((slot.file, slot.variable), "")) or {}
        for name, value in read.items():
            said, theirs = first.setdefault(name, (slot, value))
            if theirs != value and slot.is_url:
                problems.append(
                    f"{slot.file}: {slot.variable} has another password than {said.variable} in "
                    f"{said.file}. Make them the same."
                )
    return problems


def malformed(have: Values) -> list[str]:
    """Keys that masters and workers would refuse."""
    problems = []
    api_key = have.get(("api-key.env", "MILLRACE_API_KEY"))
    if api_key and not is_well_formed(api_key):
        problems.append("api-key.env: MILLRACE_API_KEY is no key of Millrace's")
    ring = have.get(("queue-key.env", "MILLRACE_QUEUE_KEY"))
    try:
        if ring:
            KeyRing.parse(ring)
    except ValueError as error:
        problems.append(f"queue-key.env: MILLRACE_QUEUE_KEY: {error}")
    return [f"{problem}. Empty it and make one." for problem in problems]


def _next(name: str, old: str | None) -> str:
    made = _MAKERS.get(name, _random)()
    return _next_ring(old, made) if name == "queue-key" and old else made


def _next_ring(ring: str, made: str) -> str:
    """The next of three steps in which a queue key is changed without a stop.

    `old` is followed by `old,new` (all accept the new one), then `new,old,new` (all sign with it;
    the repetition does nothing but tell this step from the one before), then `new`.
    """
    keys = [key.strip() for key in ring.split(",")]
    if len(keys) == 1:
        return f"{keys[0]},{made}"
    if len(keys) == 2:
        old, new = keys
        return f"{new},{old},{new}"
    return keys[0]
